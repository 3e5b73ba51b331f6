"""What is shown: one line, harmless, in the width of the terminal; in HTML nothing from a document becomes markup."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from selectolax.lexbor import LexborHTMLParser

import semsearch
from semsearch.audit import Audit, Extreme, GroupOverlap, GroupShift
from semsearch.comparing import Comparison, Difference, IndexCost
from semsearch.display import (
    Explanation,
    answer_row,
    answer_text,
    clean,
    hits_rows,
    hits_text,
    report_text,
    shorten,
    snippet,
    words_of,
)
from semsearch.errors import MissingExtraError
from semsearch.evaluation import Evaluation
from semsearch.frames import hits_arrow, hits_pandas, hits_polars
from semsearch.health import CheckReport
from semsearch.html import STYLE, answer_html, hits_html, index_html
from semsearch.index import AddReport
from semsearch.records import Answer, Citation, Context, Hit, Passage, Sentence
from semsearch.retrieval import Hits
from semsearch.sync import SyncReport
from semsearch.tuning import Choice, Tuning

TEXT = "The library opens at nine. Late fees are charged from the second week; a book costs 20 cents a day."


def make_hit(text: str = TEXT, **passage: object) -> Hit:
    values = {"id": 7, "document_id": "fees.md", "text": text, "start": 100, "end": 100 + len(text)} | passage
    return Hit(Passage(**values), 0.5, 1, {"dense": (2, 0.61), "lexical": (1, 4.2)})  # type: ignore[arg-type]


def make_answer(text: str = "20 cents a day", hit: Hit | None = None) -> Answer:
    hit = hit or make_hit()
    start = hit.passage.start + hit.passage.text.index(text)
    return Answer(text, 0.864, hit, start, start + len(text))


GENERATED = "A book costs 20 cents a day. It is due on Monday. Bring it."


def make_generated() -> Answer:
    """Of three sentences the first is supported, twice, and the last by the second place alone."""
    hit = make_hit(page=2, metadata={"source": "/home/me/fees.md"})
    first, second = Citation("fees.md", 168, 198, 2, 0.75), Citation("rules.md", 3, 9, None, 0.5)
    cited = [("A book costs 20 cents a day.", (first, second)), ("It is due on Monday.", ()), ("Bring it.", (second,))]
    sentences = [
        Sentence(text, GENERATED.index(text), GENERATED.index(text) + len(text), places) for text, places in cited
    ]
    left_out = (make_hit(document_id="long.md").passage,)
    context = Context((hit.passage,), left_out)
    return Answer(GENERATED, 0.42, hit, None, None, (), (first, second), tuple(sentences), context)


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


# ---------------------------------------------------------------------------------------------------------------- text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\r\n\t b", "a b"),
        ("\x1b[2Jgone", "␛[2Jgone"),
        ("\x1b]0;title\x07", "␛]0;title␇"),
        ("a\x00b\x7f", "a␀b␡"),
        ("\x9b31m", "\ufffd31m"),
        ("abc\u202egnp.exe\u202c", "abcgnp.exe"),
        ("x\u2066y\u2069\u200f", "xy"),
        ("a\u2028b\u2029c", "a b c"),
        ("\ud800", "\ufffd"),
        ("نمی\u200cخواهم", "نمی\u200cخواهم"),
        ("👩\u200d🔬", "👩\u200d🔬"),
        ("\U000e0041\U000e0042", ""),
    ],
)
def test_clean_takes_away_what_a_terminal_obeys(text: str, expected: str) -> None:
    assert clean(text) == expected


@given(st.text(st.characters(exclude_categories=[]), max_size=200))
def test_clean_text_is_printable_and_stays_clean(text: str) -> None:
    line = clean(text)
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]", line)
    line.encode("utf-8")
    assert clean(line) == line.strip()


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [
        ("late fees", 9, "late fees"),
        ("late fees", 8, "late fe…"),
        ("東京都", 6, "東京都"),
        ("東京都", 5, "東京…"),
        ("東京都", 4, "東…"),
        ("e\u0301a", 2, "e\u0301a"),
        ("abc", 1, "…"),
        ("abc", 0, ""),
    ],
)
def test_shorten_counts_columns(text: str, width: int, expected: str) -> None:
    assert shorten(text, width) == expected


@pytest.mark.parametrize(
    ("query", "text", "found"),
    [
        ("late fees?", "Fees are late; related", ["Fees", "late"]),
        ("शुल्क", "विलंब शुल्क कल लगता है", ["शुल्क"]),
        ("क", "शुल्क क", ["क"]),  # a mark does not end a word
        ("ค่าปรับ", "ค่าปรับล่าช้า", ["ค่าปรับ"]),
        ("cafe\u0301", "cafe\u0301 e\u0301cafe cafe", ["cafe\u0301"]),
        ("図書館", "図書館 東京都図書館", ["図書館", "図書"]),
        ("?", "?", []),
    ],
)
def test_words_of_a_query_in_a_text(query: str, text: str, found: list[str]) -> None:
    words = words_of(query)
    assert ([] if words is None else words.findall(text)) == found


def test_snippet_shows_the_query_words() -> None:
    text = "Nothing to see in this first sentence. " * 20 + "Then: late fees are charged weekly. " + "And more. " * 20
    assert snippet(text, "When are late fees charged?", 40) == "… Then: late fees are charged weekly. A…"
    assert snippet("Short.", "anything", 40) == "Short."
    assert snippet("开放时间。" * 30 + "逾期罚款每天两角。", "罚款", 20) == "… 逾期罚款每天两角。"


def test_hits_text() -> None:
    hit = make_hit(page=3, metadata={"heading": "Fees > Late"})
    assert hits_text([hit], "late fees") == (
        "1 hit for “late fees”\n"
        "1  0.5000  fees.md, page 3 [100:199]  Fees > Late  (dense #2, lexical #1)\n"
        "   The library opens at nine. Late fees are charged from the second week; a boo…"
    )
    assert hits_text([], "x") == "No passage found for “x”."


def test_answer_text() -> None:
    assert answer_text(make_answer()) == (
        "20 cents a day  (86 %)\n  fees.md [184:198]\n"
        "  …ate fees are charged from the second week; a book costs «20 cents a day»."
    )


def test_answer_text_without_an_answer() -> None:
    nothing = Answer("", 0.9, alternatives=(make_answer(),))
    assert answer_text(nothing) == (
        "No answer in the documents.\n  Best guess: “20 cents a day” (86 %), fees.md [184:198]"
    )
    assert answer_text(Answer("", 0.9)) == "No answer in the documents."


def test_answer_text_with_citations() -> None:
    generated = Answer("It is 20 cents.", 0.5, citations=(Citation("fees.md", 3, 9, 2, 0.75),))
    assert answer_text(generated) == "It is 20 cents.  (50 %)\n  [1] fees.md, page 2 [3:9]  (75 %)"


def test_each_generated_sentence_has_its_citations_or_is_marked() -> None:
    assert answer_text(make_generated()) == (
        "A book costs 20 cents a day. [1, 2]\n"
        "It is due on Monday. [not supported]\n"
        "Bring it. [2]\n"
        "  2 of 3 sentences supported (42 %); no room for 1 passage\n"
        "  [1] fees.md, page 2 [168:198]  (75 %)  “a book costs 20 cents a day;”\n"
        "  [2] rules.md [3:9]  (50 %)"
    ).replace("“a book costs 20 cents a day;”", f"“{TEXT[68:98]}”")


def test_what_is_generated_without_support_is_no_answer_and_shown_as_such() -> None:
    text = "The moon is cheese."
    generated = Answer(text, 0.0, sentences=(Sentence(text, 0, len(text), ()),))
    expected = "No answer in the documents.\n  Generated, but not supported: “The moon is cheese.”"
    assert answer_text(Answer("", 0.0, alternatives=(generated,))) == expected
    assert "not supported: “The moon is cheese.”" in answer_html(Answer("", 0.0, alternatives=(generated,)))


@pytest.mark.parametrize("text", [TEXT * 30, "東京都図書館" * 60, "🦉" * 200, "x" * 500, "a\u0301" * 300])
def test_lines_fit_the_terminal(text: str) -> None:
    hit = make_hit(text, document_id=text[:90])
    answer = Answer(text[40:60], 0.5, hit, 140, 160)
    for line in (hits_text([hit], text) + "\n" + answer_text(answer)).splitlines():
        wide = sum(2 if ord(c) > 0x2E80 else c != "\u0301" for c in line)
        assert 0 < wide <= 80, line


def test_report_text() -> None:
    @dataclass(frozen=True)
    class Report:
        added: int = 2
        removed: int = 0
        failed: int = 1
        seconds: float = 0.5
        ok: bool = False
        failures: tuple[tuple[str, str], ...] = (("a\x1b[31m.pdf", "is\nencrypted"),)

    assert report_text(Report()) == (
        "added 2, removed 0, failed 1, seconds 0.50, ok no\nfailures:\n  a␛[31m.pdf: is encrypted"
    )
    many = Report(failures=tuple((f"{n}.txt", "damaged") for n in range(25)))
    assert report_text(many).splitlines()[-2:] == ["  19.txt: damaged", "  … and 5 more"]


def test_rows_are_json_values() -> None:
    row = hits_rows([make_hit(page=3, metadata={"suffix": ".md"})])[0]
    assert json.loads(json.dumps(row)) == {
        "rank": 1,
        "score": 0.5,
        "document_id": "fees.md",
        "page": 3,
        "start": 100,
        "end": 199,
        "text": TEXT,
        "passage_id": 7,
        "sources": {"dense": {"rank": 2, "score": 0.61}, "lexical": {"rank": 1, "score": 4.2}},
        "metadata": {"suffix": ".md"},
    }


def test_an_answer_as_json_values() -> None:
    nothing = Answer("", 0.4, alternatives=(make_answer(),), citations=(Citation("fees.md", 3, 9, 2, 0.75),))
    found = {"found": True, "text": "20 cents a day", "score": 0.864, "document_id": "fees.md", "page": None}
    assert json.loads(json.dumps(answer_row(nothing))) == {
        "found": False,
        "text": "",
        "score": 0.4,
        "document_id": None,
        "page": None,
        "start": None,
        "end": None,
        "citations": [{"document_id": "fees.md", "start": 3, "end": 9, "page": 2, "score": 0.75}],
        "sentences": [],
        "alternatives": [{**found, "start": 184, "end": 198, "citations": [], "sentences": [], "alternatives": []}],
    }
    sentences = json.loads(json.dumps(answer_row(make_generated())))["sentences"]
    assert [(each["text"], each["supported"], len(each["citations"])) for each in sentences] == [
        ("A book costs 20 cents a day.", True, 2),
        ("It is due on Monday.", False, 0),
        ("Bring it.", True, 1),
    ]


def test_pandas_has_a_column_for_each_leg() -> None:
    pytest.importorskip("pandas", reason="pandas is not installed")
    frame = hits_pandas([make_hit(), Hit(make_hit().passage, 0.4, 2, {"lexical": (2, 3.0)})])
    assert frame["rank"].tolist() == [1, 2]
    assert frame["lexical_score"].tolist() == [4.2, 3.0]
    assert frame["dense_rank"].isna().tolist() == [False, True]
    assert list(hits_pandas([]).columns)[:3] == ["rank", "score", "document_id"]


def frame_hits() -> list[Hit]:
    metadata = {"suffix": ".md", "year": 2020}
    return [
        make_hit(page=3, metadata=metadata),
        Hit(make_hit(metadata={"year": "x"}).passage, 0.4, 2, {"lexical": (2, 3.0)}),
    ]


COLUMNS = ["rank", "score", "document_id", "page", "start", "end", "text", "passage_id"]
LEGS = ["dense_rank", "dense_score", "lexical_rank", "lexical_score"]


def test_polars_has_typed_columns_and_metadata_as_json() -> None:
    polars = pytest.importorskip("polars", reason="polars is not installed")
    frame = hits_polars(frame_hits())
    assert frame.columns == [*COLUMNS, *LEGS, "metadata"]
    assert frame["page"].to_list() == [3, None]
    assert frame["dense_rank"].to_list() == [2, None]
    assert frame["lexical_score"].to_list() == [4.2, 3.0]
    assert frame.schema["dense_rank"] == polars.Int64
    assert [json.loads(each) for each in frame["metadata"]] == [{"suffix": ".md", "year": 2020}, {"year": "x"}]
    empty = hits_polars([])
    assert (empty.height, empty.columns, empty.schema["score"]) == (0, [*COLUMNS, "metadata"], polars.Float64)


def test_arrow_has_the_columns_of_polars() -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    table = hits_arrow(frame_hits())
    assert table.column_names == [*COLUMNS, *LEGS, "metadata"]
    assert table.column("text").to_pylist() == [TEXT, TEXT]
    assert table.column("dense_score").to_pylist() == [0.61, None]
    assert [str(field.type) for field in table.schema][:4] == ["int64", "double", "string", "int64"]
    assert hits_arrow([]).num_rows == 0


def test_hits_become_data_frames() -> None:
    for module in ("pandas", "polars", "pyarrow"):
        pytest.importorskip(module, reason=f"{module} is not installed")
    hits = Hits(frame_hits(), "late")
    assert hits.to_pandas()["rank"].tolist() == hits.to_polars()["rank"].to_list() == [1, 2]
    assert hits.to_arrow().column("rank").to_pylist() == [1, 2]


def test_a_lone_surrogate_fits_into_every_data_frame() -> None:
    for module in ("pandas", "polars", "pyarrow"):
        pytest.importorskip(module, reason=f"{module} is not installed")
    hit = make_hit("a\ud800b", document_id="\udfff", metadata={"\ud800": ["\ud800", {"k": "\ud800"}]})
    assert hits_pandas([hit])["text"].tolist() == ["a\ufffdb"]
    assert hits_polars([hit])["document_id"].to_list() == ["\ufffd"]
    metadata = json.loads(hits_arrow([hit]).column("metadata").to_pylist()[0])
    assert metadata == {"\ufffd": ["\ufffd", {"k": "\ufffd"}]}


@pytest.mark.parametrize(
    ("module", "extra", "method"), [("polars", "polars", Hits.to_polars), ("pyarrow", "arrow", Hits.to_arrow)]
)
def test_without_the_package_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, module: str, extra: str, method: Callable[[Hits], object]
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"pip install 'semsearch\[{extra}\]'"):
        method(Hits())


def test_without_pandas_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'semsearch\[pandas\]'"):
        hits_pandas([])


def test_explanation_draws_bars() -> None:
    explanation = Explanation({"fees": 4.0, "late": 1.0}, (("late", 0, 4, 0.5), ("fee", 5, 8, 0.75), ("s", 8, 9, -0.1)))
    assert str(explanation) == (
        "matched terms (share of BM25)\n"
        "  fees    4.000  ████████████████████████\n"
        "  late    1.000  ██████\n"
        "nearest tokens (cosine to the query)\n"
        "  fee     0.750  ████████████████████████\n"
        "  late    0.500  ████████████████\n"
        "  s      -0.100"
    )
    html = LexborHTMLParser(explanation._repr_html_())
    assert [p.text() for p in html.css("div > p")] == ["late fees"]
    assert [node.attributes["title"] for node in html.css("p > span")] == ["0.500", "0.750", "-0.100"]
    assert str(Explanation({})) == "no term matched"


# ---------------------------------------------------------------------------------------------------------------- HTML

PAYLOADS = [
    "<script>alert(1)</script>",
    "<SCRIPT SRC=//evil.example/x.js></SCRIPT>",
    "<scr<script>ipt>alert(1)</scr</script>ipt>",
    "<img src=x onerror=alert(1)>",
    "<img/src='x'/onerror='alert(1)'>",
    "<svg onload=alert(1)>",
    "<svg><script>alert&#40;1)</script></svg>",
    "<svg><animate onbegin=alert(1) attributeName=x dur=1s>",
    "<body onload=alert(1)>",
    "<iframe src=javascript:alert(1)></iframe>",
    "<iframe srcdoc='&lt;script&gt;alert(1)&lt;/script&gt;'></iframe>",
    "<a href=javascript:alert(1)>x</a>",
    "<a href='jAvAsCrIpT&colon;alert(1)'>x</a>",
    "<a href=' javascript:alert(1)'>x</a>",
    "<math><mtext><table><mglyph><style><img src=x onerror=alert(1)></style></mglyph></table></mtext></math>",
    "<details open ontoggle=alert(1)>",
    "<input autofocus onfocus=alert(1)>",
    "<form action=javascript:alert(1)><button>x</button></form>",
    "<object data=javascript:alert(1)></object>",
    "<embed src=javascript:alert(1)>",
    "<link rel=stylesheet href=//evil.example/x.css>",
    "<meta http-equiv=refresh content='0;url=javascript:alert(1)'>",
    "<base href=//evil.example/>",
    "<style>@import '//evil.example/x.css';</style>",
    "</style><script>alert(1)</script>",
    "</div></p></ol><script>alert(1)</script>",
    "</mark><script>alert(1)</script><mark>",
    '"><script>alert(1)</script>',
    "'><img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)',
    "' onmouseover='alert(1)",
    "` onmouseover=`alert(1)",
    '" style="background:url(javascript:alert(1))',
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "&#60;script&#62;alert(1)&#60;/script&#62;",
    "&amp;lt;script&amp;gt;",
    "<!--><script>alert(1)</script>-->",
    "<!-- --!><img src=x onerror=alert(1)>",
    "<![CDATA[><script>alert(1)</script>]]>",
    "<?xml version='1.0'?><script>alert(1)</script>",
    "<scr\x00ipt>alert(1)</scr\x00ipt>",
    "<\x00img src=x onerror=alert(1)>",
    "\ufeff<script>alert(1)</script>",
    "\u202e<script>alert(1)</script>",
    "\ud800<script>alert(1)</script>\udfff",
    "＜script＞alert(1)＜/script＞",
    "<img src=x:x onerror\u2028=alert(1)>",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    "<textarea><script>alert(1)</script>",
    "<title></title><script>alert(1)</script>",
    "<template><script>alert(1)</script></template>",
    "{{constructor.constructor('alert(1)')()}}",
    "$\\href{javascript:alert(1)}{x}$",
    "<x onclick=alert(1)>fees late",
    "<" * 50 + "script>",
    "<table><td background=javascript:alert(1)>",
    "<isindex type=image src=1 onerror=alert(1)>",
    "+ADw-script+AD4-alert(1)+ADw-/script+AD4-",
]
SOURCES = [
    "javascript:alert(1)",
    "JavaScript:alert(1)",
    "java\nscript:alert(1)",
    "\x01javascript:alert(1)",
    " javascript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "vbscript:msgbox(1)",
    "blob:https://evil.example/1",
    "view-source:javascript:alert(1)",
    "//evil.example/share",
    "file://evil.example/share",
    "file:////evil.example/share",
    "http:javascript:alert(1)",
    "http://[bad",
    '/tmp/"><script>alert(1)</script>',
    "/tmp/' onmouseover='alert(1)",
    'https://example.org/" onclick="alert(1)',
    "https://example.org/<script>",
    "relative/path",
]
ALLOWED = {
    "div": {"class"},
    "p": {"class"},
    "span": {"class", "style", "title"},
    "a": {"href", "rel"},
    "li": {"value"},
    "td": {"class"},
    "th": {"class", "scope"},
    "tr": {"class"},
    **dict.fromkeys(["style", "ol", "ul", "b", "mark", "table", "thead", "tbody"], frozenset()),
}
INLINE = re.compile(r"(background:rgba\(255,160,0,\d\.\d\d\)|width:\d+\.\d\dem)")


class Elements(HTMLParser):
    """Every element and its attributes as Python's own parser sees them, with errors for anything else."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data!r}")

    def handle_decl(self, decl: str) -> None:
        raise AssertionError(f"a declaration: {decl!r}")

    def handle_pi(self, data: str) -> None:
        raise AssertionError(f"a processing instruction: {data!r}")

    def unknown_decl(self, data: str) -> None:
        raise AssertionError(f"a declaration: {data!r}")


def elements(html: str) -> list[tuple[str, dict[str, str | None]]]:
    """The elements by two parsers; they must agree."""
    html.encode("utf-8")
    ours = Elements()
    ours.feed(html)
    ours.close()
    body = LexborHTMLParser(html).body
    assert body is not None
    theirs = [(n.tag, dict(n.attributes)) for n in body.traverse(include_text=False) if n.tag != "body"]
    assert sorted(map(repr, ours.found)) == sorted(map(repr, theirs))
    return ours.found


def check(html: str) -> None:
    for tag, attributes in elements(html):
        assert tag in ALLOWED, f"<{tag}> in {html}"
        assert set(attributes) <= ALLOWED[tag], f"{attributes} in {html}"
        if tag == "a":
            assert re.match(r"https?://[a-z]|file:///[^/]", attributes["href"] or ""), attributes
        if "style" in attributes:
            assert INLINE.fullmatch(attributes["style"] or ""), attributes
    style = LexborHTMLParser(html).css("style")
    assert len(style) == 1
    assert "evil" not in style[0].text()


def everything(payload: str, source: str) -> list[str]:
    """All that is rendered as HTML, with the payload in every place that a document or a query fills."""
    text = f"late {payload} fees {payload}"
    metadata = {"source": source, "heading": payload}
    passage = Passage(1, payload, text, 0, len(text), 2, metadata)
    hit = Hit(passage, 0.5, 1, {payload: (1, 0.5)})
    answer = Answer(payload, 0.5, hit, 5, 5 + len(payload), citations=(Citation(payload, 0, 1, 1, 0.5),))
    terms = {payload: 1.0, "late": 0.5}
    tokens = ((payload, 0, len(payload), 0.5), ("late", len(payload) + 1, len(payload) + 5, -0.5))
    citation = Citation(payload, 0, len(text), 2, 0.5)
    sentences = (Sentence(payload, 0, len(payload), (citation,)), Sentence(payload, 0, len(payload), ()))
    context = Context((passage,), (passage,))
    generated = Answer(payload, 0.5, hit, citations=(citation,), sentences=sentences, context=context)
    return [
        answer_html(generated),
        answer_html(Answer("", 0.5, alternatives=(generated,))),
        *(each._repr_html_() for each in reports(payload)),
        index_html(payload, index_info(payload)),
        hits_html([hit], payload),
        hits_html([hit], "late fees script alert onerror"),
        hits_html([], payload),
        answer_html(answer),
        answer_html(Answer("", 0.5, alternatives=(answer,))),
        Explanation(terms, tokens)._repr_html_(),
    ]


def reports(text: str) -> list[Any]:
    """Reports and tables with a text in every place that has one."""
    pair = ((text, text),)
    metrics = {"ndcg@10": 0.5, text: 0.25}
    evaluations = tuple(Evaluation(name, text, 3, metrics, {}, 1.5, 2.5, 2_000_000) for name in (text, f"{text}2"))
    difference = Difference(text, f"{text}2", -0.25, 0.04, -0.5, -0.125)
    cost = IndexCost(text, 7, 1.5, 3_000_000)
    overlap = GroupOverlap(text, (text, text), 3, 0.5, 0.75, 0.25, 0.125, 0.375)
    shift = GroupShift(text, text, 3, 1.0, 0.5, 0.25, 0.75, -0.5, -0.75, -0.25)
    return [
        AddReport(1, 2, 3, 4, 5, pair, pair),
        SyncReport(1200, 2, 3, 4, 5, pair, pair),
        CheckReport(1, 2, (text,), (text,), (text,), (text,)),
        evaluations[0],
        Comparison(text, "ndcg@10", evaluations, (difference,), f"{text}2", f"{text}2", text, (cost,)),
        Tuning(Choice("rrf", 0.25), 7, {"default": 0.5, "tuned": 0.75}, 0.04, False),
        Audit(10, 96, (overlap,), (shift,), (Extreme(text, text, text, {text: 1.5}),), (text,)),
    ]


def index_info(text: str) -> dict[str, Any]:
    encoder = {"name": text, "dimension": 384}
    fusion = {"fusion": text, "dense": 0.25, "learned": True}
    return {"documents": 1200, "passages": 7, "encoder": encoder, "language": text, "fusion": fusion}


@pytest.mark.parametrize("payload", PAYLOADS)
def test_text_never_becomes_markup(payload: str) -> None:
    for html in everything(payload, "/home/me/fees.md"):
        check(html)


@pytest.mark.parametrize("source", SOURCES)
def test_sources_never_become_dangerous_links(source: str) -> None:
    for html in everything("x", source):
        check(html)


@given(st.text(st.sampled_from("<>&\"'`=/ \x00\x1b!-[]?;#abSCRIPTonload\u202e\ud800"), max_size=60))
def test_random_markup_is_inert(payload: str) -> None:
    for html in everything(payload or "x", payload):
        check(html)


@pytest.mark.parametrize(
    ("source", "page", "href"),
    [
        ("/home/me/late fees.pdf", 3, "file:///home/me/late%20fees.pdf#page=3"),
        ("/home/me/a#b?.md", None, "file:///home/me/a%23b%3F.md"),
        ("https://example.org/a?b=c&d=é", None, "https://example.org/a?b=c&d=%C3%A9"),
        ("file:///home/me/a.md", None, "file:///home/me/a.md"),
    ],
)
def test_links_to_the_source(source: str, page: int | None, href: str) -> None:
    html = hits_html([make_hit(page=page, metadata={"source": source})], "late")
    assert [attributes["href"] for tag, attributes in elements(html) if tag == "a"] == [href]


def test_query_words_are_marked() -> None:
    html = hits_html([make_hit("Fees & more: <late> fees.", metadata={})], "late fees")
    marks = LexborHTMLParser(html).css("mark")
    assert [mark.text() for mark in marks] == ["Fees", "late", "fees"]
    assert "<mark>Fees</mark> &amp; more: &lt;<mark>late</mark>&gt; <mark>fees</mark>." in html


def test_the_space_between_two_marked_words_stays() -> None:
    html = hits_html([make_hit("All late\n fees", metadata={})], "late fees")
    assert "All <mark>late</mark> <mark>fees</mark></p>" in html


def test_the_answer_is_marked_in_its_passage() -> None:
    html = LexborHTMLParser(answer_html(make_answer()))
    assert [mark.text() for mark in html.css("mark")] == ["20 cents a day"]
    assert html.css("p")[-1].text() == TEXT


def test_sentences_are_marked_in_html() -> None:
    html = LexborHTMLParser(answer_html(make_generated()))
    assert [node.text() for node in html.css("span.bad")] == ["It is due on Monday."]
    assert html.css_first("p").text() == (
        "A book costs 20 cents a day. [1, 2] It is due on Monday. [not supported] Bring it. [2]"
    )
    first, second = html.css("li")
    assert first.text() == f"fees.md, page 2 [168:198] “{TEXT[68:98]}” 75 %"
    assert first.css_first("a").attributes["href"] == "file:///home/me/fees.md#page=2"
    assert (second.text(), second.css("a")) == ("rules.md [3:9] 50 %", [])


def cells(html: str) -> list[list[str]]:
    return [[cell.text() for cell in row.css("th, td")] for row in LexborHTMLParser(html).css("tr")]


def test_a_report_in_html() -> None:
    failures = tuple((f"{n}.pdf", "is encrypted") for n in range(25))
    html = SyncReport(1200, 2, 0, 4, 25, failures, ())._repr_html_()
    assert cells(html) == [["added", "updated", "removed", "unchanged", "failed"], ["1,200", "2", "0", "4", "25"]]
    tree = LexborHTMLParser(html)
    assert [node.text() for node in tree.css("p")] == ["SyncReport", "failures"]
    items = [node.text() for node in tree.css("li")]
    assert (len(items), items[0], items[-1]) == (21, "0.pdf: is encrypted", "… and 5 more")
    assert LexborHTMLParser(AddReport()._repr_html_()).css_first("p").text() == "AddReport"


def test_a_check_in_html() -> None:
    tree = LexborHTMLParser(CheckReport(3, 7, ("page 5 is damaged",), (), (), ("draft-1",))._repr_html_())
    assert [node.text() for node in tree.css("p")] == ["CheckReport: not ok", "damaged", "left over"]
    assert [node.text() for node in tree.css("li")] == ["page 5 is damaged", "draft-1"]
    assert "CheckReport: ok" in CheckReport(3, 7)._repr_html_()


def test_an_evaluation_in_html_has_the_numbers_of_the_text() -> None:
    evaluation = reports("a")[3]
    assert cells(evaluation._repr_html_())[0] == ["metric", "mean"]
    assert [line.split() for line in str(evaluation).splitlines()[1:]] == [
        each[0].split() + each[1:] for each in cells(evaluation._repr_html_())[1:]
    ]


def test_a_comparison_in_html_marks_what_is_recommended() -> None:
    comparison = reports("a")[4]
    tree = LexborHTMLParser(comparison._repr_html_())
    assert [row.css_first("th").text() for row in tree.css("tr.best")] == ["a2"]
    assert cells(comparison._repr_html_()) == [
        ["", "ndcg@10", "a", "median ms", "ndcg@10 to best", "p"],
        ["a", "0.5000", "0.2500", "1.50", "-0.2500", "0.0400"],
        ["a2", "0.5000", "0.2500", "1.50", "best", ""],
    ]
    assert [node.text() for node in tree.css("p")] == [
        "a, 3 questions",
        "a: 7 passages indexed in 1.5 s, 3.0 MB",
        "Take a",
    ]
    assert "a: 7 passages indexed in 1.5 s, 3.0 MB\nTake a" in str(comparison)


def test_a_tuning_and_an_audit_in_html() -> None:
    tuning, audit = reports("a")[5:]
    assert cells(tuning._repr_html_()) == [["", "nDCG@10"], ["default", "0.5000"], ["tuned", "0.7500"]]
    assert "Chosen: rrf with 25% dense, 75% lexical" in LexborHTMLParser(tuning._repr_html_()).text()
    rows = cells(audit._repr_html_())
    assert rows[1] == ["a: a / a", "0.500", "0.750", "+0.250", "+0.125 … +0.375", "*"]
    assert rows[3] == ["a: a", "1.00", "+0.50", "+0.25 … +0.75", "*", "-0.5000", "-0.7500 … -0.2500", "*"]
    paragraphs = [node.text() for node in LexborHTMLParser(audit._repr_html_()).css("p")]
    assert paragraphs[1:] == ["Where ranks differ most:", "a -> a: a at rank 1.5", "What this does not show:", "- a"]
    for line in paragraphs:
        assert line in str(audit)


def test_an_index_in_html(tmp_path: Path) -> None:
    from toy import WordEncoder

    with semsearch.Index(tmp_path / "hand<b>book", encoder=WordEncoder()) as index:
        assert "chosen at the first add" in (index._repr_html_() or "")
        index.add([("a", "late fees"), ("b", "opening hours")])
        html = index._repr_html_() or ""
    check(html)
    assert cells(html) == [
        ["documents", "2"],
        ["passages", "2"],
        ["encoder", "toy-words, 1024 dimensions"],
        ["language of keywords", "english"],
        ["fusion", f"absolute, {Choice().dense:.0%} dense (default)"],
    ]
    assert LexborHTMLParser(html).css_first("b").text() == "hand<b>book"
    assert index._repr_html_() is None  # closed: a notebook shows the text
    assert "closed" in repr(index)


# ------------------------------------------------------------------------------------------------- light and dark pages

Colour = tuple[float, float, float]
# Background and text of a white page, JupyterLab light and dark, VS Code dark, Colab dark, Chromium's own dark page.
THEMES: dict[str, tuple[Colour, Colour]] = {
    "white": ((255, 255, 255), (0, 0, 0)),
    "JupyterLab light": ((255, 255, 255), (33, 33, 33)),
    "JupyterLab dark": ((17, 17, 17), (224, 224, 224)),
    "VS Code dark": ((30, 30, 30), (212, 212, 212)),
    "Colab dark": ((56, 56, 56), (213, 213, 213)),
    "browser dark": ((18, 18, 18), (255, 255, 255)),
}


def mixed(over: Colour, under: Colour, alpha: float) -> Colour:
    red, green, blue = (alpha * a + (1 - alpha) * b for a, b in zip(over, under, strict=True))
    return red, green, blue


def contrast(one: Colour, other: Colour) -> float:
    """The contrast ratio of WCAG 2.2."""

    def luminance(colour: Colour) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (each / 255 for each in colour)]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_the_contrast_of_black_on_white_is_21() -> None:
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    assert contrast((119, 119, 119), (255, 255, 255)) == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("theme", THEMES)
def test_everything_is_readable_on_light_and_dark_pages(theme: str) -> None:
    """At least 4.5:1 (WCAG AA) for every text: it has the page's colour, on see-through marks, or is faded."""
    background, text = THEMES[theme]
    html = Explanation({}, (("late", 0, 4, 0.5),))._repr_html_()  # the style, and the darkest shade of a token
    assert re.findall(r"[;{]color:([^;}]*)", STYLE) == ["inherit"]
    fills = re.findall(r"background:rgba\((\d+),(\d+),(\d+),([\d.]+)\)", html)
    assert len(fills) == html.count("background:") == STYLE.count("background:") + 1
    for red, green, blue, alpha in fills:
        fill = mixed((float(red), float(green), float(blue)), background, float(alpha))
        if (red, green, blue) == ("70", "130", "220"):
            continue  # a bar, without text
        assert contrast(text, fill) >= 4.5, (red, green, blue, alpha)
    (opacity,) = re.findall(r"opacity:([\d.]+)", STYLE)
    assert contrast(mixed(text, background, float(opacity)), background) >= 4.5
