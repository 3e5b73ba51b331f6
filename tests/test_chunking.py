"""Passages: exact slices that cover the text once, within the budget, cut where a reader would cut."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import semsearch
from semsearch import formats, loading
from semsearch.chunking import Chunk, chunk, embedded_text
from semsearch.errors import EncoderError, InputError
from semsearch.loading import LOADERS
from semsearch.records import Document

Count = Callable[[Sequence[str]], list[int]]
TOKENIZER = Path(semsearch.__file__).parent / "models" / "encoder" / "tokenizer.json"


def words(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def characters(texts: Sequence[str]) -> list[int]:
    return [len(text) for text in texts]


@cache
def _tokenizer():
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(TOKENIZER))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def wordpieces(texts: Sequence[str]) -> list[int]:
    """The shipped encoder's count. Its tokenizer raises on a lone surrogate: none may arrive."""
    return [len(_tokenizer().encode(text)) for text in texts]


def cut(text: str, suffix: str = "", max_tokens: int = 12, count: Count = words, title: str = "", **metadata: object):
    """(heading, text) of each passage."""
    document = Document("a", text, title, metadata={"suffix": suffix, **metadata})
    chunks = chunk(document, count_tokens=count, max_tokens=max_tokens)
    check(document, chunks, count, max_tokens)
    return [(c.heading, text[c.start : c.end]) for c in chunks]


def headings(text: str, suffix: str) -> list[str]:
    """The heading paths of the passages, with so little room that no two sections share one."""
    return list(dict.fromkeys(heading for heading, _ in cut(text, suffix, 12)))


def texts(text: str, suffix: str = "", max_tokens: int = 12, count: Count = words) -> list[str]:
    return [part for _, part in cut(text, suffix, max_tokens, count)]


def check(document: Document, chunks: Sequence[Chunk], count: Count, max_tokens: int) -> None:
    """What `chunk` guarantees, for any text."""
    text = document.text
    left, position = [], 0
    for c in chunks:
        assert position <= c.start < c.end <= len(text)
        assert text[c.start : c.end].strip() == text[c.start : c.end]
        left.append(text[position : c.start])
        position = c.end
    assert "".join([*left, text[position:]]).strip() == ""
    embedded = [embedded_text(document.title, c.heading, text[c.start : c.end]) for c in chunks]
    assert all(size <= max_tokens for size in count(embedded))
    if "pages" not in document.metadata:
        assert all(c.page is None for c in chunks)
        return
    for c in chunks:
        assert c.page == 1 + text.count("\f", 0, c.start)
        assert "\f" not in text[c.start : c.end]


# --- Properties ------------------------------------------------------------------------------------------------------

SUFFIXES = ["", ".md", ".html", ".rst", ".adoc", ".txt", ".py", ".rs", ".csv", ".pdf", None]
UNICODE = st.text(st.characters(exclude_categories=()), max_size=40)  # with lone surrogates
FRAGMENTS = (
    "\n", "\n\n", "\r\n", "\r", "\f", "\t", "    ", "# One\n", "### Three\n", "Title\n=====\n", "Title\n-----\n",
    "=====\nTitle\n=====\n", "```\n", "~~~~\n", "---\n", "== Part\n", "----\n", "....\n", "- item\n", "1. item\n",
    "> quote\n", ". ", "... ", ".", "Dr. ", "e.g. ", "3.14", "Fees are ten cents. ", "a, b; c: ", "word ", "class A:\n",
    "def f(x):\n    return x\n", "fn main() {\n", "}\n", "@x\n", "// note\n", "罚款是十分钱。", "「是的！」", "e\u0301",
    "\U0001f469\u200d\U0001f680", "क्षि", "\x00", "\ud800", "\udfff", "\u2028", "\x1c", "\x85", "\ufeff", "שלום. ",
    "| a | b |\n", "|---|---|\n", "+---+---+\n", "x" * 700, "=" * 300, "a,b,c\n", "\u0301" * 50,
)  # fmt: skip
TEXTS = st.lists(st.sampled_from(FRAGMENTS) | UNICODE, max_size=60).map("".join)


@given(text=TEXTS, suffix=st.sampled_from(SUFFIXES), max_tokens=st.integers(1, 40), paged=st.booleans())
@settings(deadline=None, max_examples=120)
def test_any_text_is_covered_once_within_a_budget_of_words(text, suffix, max_tokens, paged):
    metadata = {"suffix": suffix} | ({"pages": 3} if paged else {})
    document = Document("a", text, metadata=metadata)
    check(document, chunk(document, count_tokens=words, max_tokens=max_tokens), words, max_tokens)


@given(text=TEXTS, title=UNICODE, suffix=st.sampled_from(SUFFIXES), max_tokens=st.integers(220, 400))
@settings(deadline=None, max_examples=80)
def test_any_text_is_covered_once_within_a_budget_of_characters(text, title, suffix, max_tokens):
    document = Document("a", text, title, metadata={"suffix": suffix})
    check(document, chunk(document, count_tokens=characters, max_tokens=max_tokens), characters, max_tokens)


@given(text=TEXTS, title=TEXTS, suffix=st.sampled_from(SUFFIXES), max_tokens=st.sampled_from([64, 128, 200]))
@settings(deadline=None, max_examples=100)
def test_any_text_and_title_fit_the_shipped_encoder(text, title, suffix, max_tokens):
    document = Document("a", text, title, metadata={"suffix": suffix, "pages": 2})
    check(document, chunk(document, count_tokens=wordpieces, max_tokens=max_tokens), wordpieces, max_tokens)


@given(title=TEXTS, heading=TEXTS, text=TEXTS)
@settings(deadline=None, max_examples=60)
def test_embedded_text_ends_with_the_text_and_can_be_encoded(title, heading, text):
    embedded = embedded_text(title, heading, text)
    assert embedded.endswith(re.sub("[\ud800-\udfff]", "\ufffd", text))
    assert embedded.encode().decode() == embedded


def test_line_endings_do_not_change_the_passages():
    text = "# Fees\n\nTen cents a day.\n\n- one\n- two\n\n# Hours\n\nNine to five, except on Sundays and holidays."
    for ending in ("\r\n", "\r"):
        parts = cut(text.replace("\n", ending), ".md")
        assert [(heading, part.replace(ending, "\n")) for heading, part in parts] == cut(text, ".md")


# --- Pages, budget, errors -------------------------------------------------------------------------------------------


def test_pages_count_form_feeds_and_are_not_crossed():
    text = "Page one.\f\fPage three\nhas lines.\fPage four."
    document = Document("a", text, metadata={"suffix": ".pdf", "pages": 4})
    chunks = chunk(document, count_tokens=words, max_tokens=100)
    assert [(text[c.start : c.end], c.page) for c in chunks] == [
        ("Page one.", 1),
        ("Page three\nhas lines.", 3),
        ("Page four.", 4),
    ]


def test_a_form_feed_without_pages_is_white_space():
    document = Document("a", "One.\fTwo.", metadata={"suffix": ".txt"})
    assert chunk(document, count_tokens=words, max_tokens=100) == [Chunk(0, 9, None, "")]


@pytest.mark.parametrize("text", ["", " \n\t\f\u3000\r\n"])
def test_a_text_without_letters_has_no_passages(text):
    assert chunk(Document("a", text), count_tokens=words) == []


def test_the_title_takes_its_part_of_the_budget():
    text = "one two three four. five six seven eight. nine ten eleven twelve."
    assert texts(text, max_tokens=12) == [text]
    parts = cut(text, max_tokens=12, title="Some book of numbers")
    assert [part for _, part in parts] == ["one two three four. five six seven eight.", "nine ten eleven twelve."]


def test_a_heading_path_that_eats_the_budget_is_shortened():
    text = "# one two three four five\n\n## six seven eight\n\nnine ten eleven."
    assert [heading for heading, _ in cut(text, ".md", 20)][-1] == "one two three four five > six seven eight"
    assert [heading for heading, _ in cut(text, ".md", 12)][-1] == "six seven eight"


def test_no_room_beside_the_title_is_an_error_that_quotes_it():
    document = Document("a", "text", "A title of six long words")
    with pytest.raises(InputError, match=r"max_tokens=6 leaves no room .*'A title of six long words' \(6 tokens\)"):
        chunk(document, count_tokens=words, max_tokens=6)


def test_a_budget_below_one_is_an_error():
    with pytest.raises(InputError, match="max_tokens is 0; it must be at least 1"):
        chunk(Document("a", "text"), count_tokens=words, max_tokens=0)


def test_a_counter_that_drops_texts_is_an_error():
    with pytest.raises(EncoderError, match="count_tokens returned 0 numbers for 3 texts"):
        chunk(Document("a", "text"), count_tokens=lambda texts: [], max_tokens=9)


# --- Headings --------------------------------------------------------------------------------------------------------

BODY = "\n\none two three four five six seven eight.\n\n"


def test_markdown_headings_nest():
    text = f"# A{BODY}## B ##{BODY}### C{BODY}## D{BODY}# E{BODY}"
    assert headings(text, ".md") == ["A", "A > B", "A > B > C", "A > D", "E"]


def test_markdown_setext_headings():
    text = f"Guide\n=====\nintro text here.\n\nLate fees\n---{BODY}# End{BODY}"
    assert headings(text, ".md") == ["Guide", "Guide > Late fees", "End"]


@pytest.mark.parametrize(
    "text",
    [
        "#no space",
        "####### seven",
        "    # indented code",
        "```\n# comment\n```",
        "~~~ sh\n```\n# comment\n~~~",
        "````\n```\n# comment\n````",
        "```\n# never closed",
        "- item\n---",
        "a paragraph\nof two lines\n---",
        "para\n\n---",
        "| a |\n---",
        "---\ntitle: x\n# comment\n---",
        "#",
    ],
)
def test_what_is_no_markdown_heading(text):
    assert headings(f"{text}\n\nwords", ".md") == [""]


def test_a_fence_ends():
    assert headings(f"# A\n\n```\n# no\n```\n# B{BODY}", ".md")[-1] == "B"


def test_markup_is_taken_out_of_heading_names():
    text = "# The [**late** fees](fees.md#x) of `loans` {#fees}\n\nTen cents."
    assert headings(text, ".md") == ["The late fees of loans"]


@pytest.mark.parametrize("suffix", ["", ".txt", ".py", ".csv", ".rst", None])
def test_markdown_is_for_markdown_files_only(suffix):
    assert headings("# A\n\nwords", suffix) == [""]


def test_each_kind_of_file_that_is_read_as_marked_up_text_has_headings():
    samples = {
        formats.markdown: "# Fees\n\nTen cents.",
        formats.restructuredtext: "Fees\n====\n\nTen cents.",
        formats.asciidoc: "== Fees\n\nTen cents.",
    }
    for read, text in samples.items():
        suffixes = [suffix for suffix, loader in LOADERS.items() if loader is loading._text(read)]
        assert len(suffixes) > 1
        assert {suffix: headings(text, suffix) for suffix in suffixes} == {suffix: ["Fees"] for suffix in suffixes}


def test_rst_levels_follow_the_order_of_appearance():
    text = f"=====\nGuide\n=====\n\nFees\n~~~~{BODY}Late\n----{BODY}Hours\n~~~~~{BODY}"
    text += f"=====\nOther\n=====\n\nLast\n~~~~{BODY}"
    assert headings(text, ".rst") == [
        "Guide > Fees",
        "Guide > Fees > Late",
        "Guide > Hours",
        "Other > Last",
    ]


def test_rst_overline_and_underline_are_another_style_than_underline_alone():
    text = f"====\nTop\n====\n\nSub\n===={BODY}"
    assert headings(text, ".rst") == ["Top > Sub"]


@pytest.mark.parametrize(
    "text",
    [
        "a paragraph\n\n-----\n\nmore",
        "two\nlines\n-----\n",
        "=====  =====\na      b\n=====  =====",
        "    code\n    ----",
    ],
)
def test_what_is_no_rst_heading(text):
    assert headings(f"{text}\n\nwords", ".rst") == [""]


def test_asciidoc_headings():
    text = f"= Guide\n\n== Fees{BODY}=== Late{BODY}----\n== no\n----\n\n== Hours{BODY}"
    assert headings(text, ".adoc") == ["Guide > Fees", "Guide > Fees > Late", "Guide > Hours"]


def test_asciidoc_two_line_titles():
    assert headings(f"Guide\n=====\n\nFees\n----{BODY}", ".asciidoc") == ["Guide > Fees"]


def test_plain_text_headings_have_an_underline_of_their_length():
    assert headings(f"Fees\n===={BODY}Late fees\n---------{BODY}", ".txt") == ["Fees", "Fees > Late fees"]
    assert headings(f"Fees\n========{BODY}", ".txt") == [""]


def test_plain_text_headings_may_have_numbers():
    text = f"1. Fees{BODY}1.1. Late fees{BODY}2. Hours{BODY}"
    assert headings(text, ".txt") == ["1. Fees", "1. Fees > 1.1. Late fees", "2. Hours"]
    assert headings(f"1. Fees{BODY}2. Hours{BODY}", ".txt") == [""]  # as likely a list


def test_each_section_has_its_own_passage_unless_it_is_tiny():
    long = "one two three four five six seven eight nine ten"
    assert cut(f"# A\n\n{long}\n\n# B\n\n{long}", ".md", 20) == [("A", f"# A\n\n{long}"), ("B", f"# B\n\n{long}")]
    tiny = "# A\n\none\n\n# B\n\ntwo"
    assert cut(tiny, ".md", 40) == [("", tiny)]


def test_small_sections_of_different_parents_do_not_share_a_passage():
    text = f"# A\n\n{'word ' * 26}\n\n## X\n\none\n\n# B\n\ntwo"
    assert [heading for heading, _ in cut(text, ".md", 30)] == ["A", "A > X", "B"]


def test_a_heading_is_in_the_passage_that_it_opens():
    text = f"# A{BODY}## B\n\none two three four five six seven. one two three four five six seven."
    assert texts(text, ".md", 14)[1].startswith("## B\n\none")


# --- Where a text is cut ---------------------------------------------------------------------------------------------


def sentences(text: str, count: Count = words, max_tokens: int = 6) -> list[str]:
    return texts(text, "", max_tokens, count)


def test_paragraphs_stay_whole():
    text = "one two three. four.\n\nfive six. seven eight.\n\nnine ten. eleven twelve."
    assert texts(text, max_tokens=8) == ["one two three. four.\n\nfive six. seven eight.", "nine ten. eleven twelve."]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Ask Dr. Smith at noon. Then go to the desk.", ["Ask Dr. Smith at noon.", "Then go to the desk."]),
        ("It costs 3.50 a day. Pay it before you leave.", ["It costs 3.50 a day.", "Pay it before you leave."]),
        ("See fig. 3 on that page. It shows all the fees.", ["See fig. 3 on that page.", "It shows all the fees."]),
        (
            "Some (e.g. J. R. Smith) pay. Others never have paid.",
            ["Some (e.g. J. R. Smith) pay.", "Others never have paid."],
        ),
        ("“Is that all of it?” Yes, it is all there.", ["“Is that all of it?”", "Yes, it is all there."]),
        (
            "Open setup.py in an editor. Then change the one line.",
            ["Open setup.py in an editor.", "Then change the one line."],
        ),
        ("Это стоит десять центов. Платите до конца дня.", ["Это стоит десять центов.", "Платите до конца дня."]),
        ("क्या यह सब है। हाँ यह सब है।", ["क्या यह सब है।", "हाँ यह सब है।"]),
    ],
)
def test_sentences(text, parts):
    assert sentences(text) == parts


@pytest.mark.parametrize(
    "sentence",
    [
        "We all saw Dr. Smith here.",
        "It was by J. R. Smith.",
        "We see in fig. 3 below.",
        "We joined the U.S. Army then.",
    ],
)
def test_abbreviations_do_not_end_sentences(sentence):
    # A cut behind the abbreviation would give two equal passages, which the least total cost prefers.
    assert sentences(f"{sentence} Then go.") == [sentence, "Then go."]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("逾期每天十分钱。请到服务台付款！", ["逾期每天十分钱。", "请到服务台付款！"]),
        ("他说：“每天十分钱。”我们就付了钱。", ["他说：“每天十分钱。”", "我们就付了钱。"]),
        ("彼は「本を返す。」と言った。私は帰った。", ["彼は「本を返す。」と言った。", "私は帰った。"]),
        ("開館は九時ですか？はい、そうです。", ["開館は九時ですか？", "はい、そうです。"]),
    ],
)
def test_chinese_and_japanese_sentences(text, parts):
    longest = max(len(part) for part in parts)
    assert sentences(text, characters, longest) == parts


def test_a_list_is_cut_at_its_items():
    text = "- one two three, four\n- five six\n  seven eight.\n- nine. ten eleven\n- twelve"
    assert texts(text, ".md", 10) == [
        "- one two three, four\n- five six\n  seven eight.",
        "- nine. ten eleven\n- twelve",
    ]


def test_a_table_is_cut_at_its_rows():
    rows = ["| name. x | fee |", "|---|---|", "| book. y | ten. z |", "| film. y | two. z |"]
    parts = texts("\n".join(rows), ".md", 10)
    assert all(part.startswith("|") and part.endswith("|") for part in parts)
    assert parts[0] == "\n".join(rows[:2])


def test_csv_is_cut_at_lines():
    text = "name fee\nbook. x ten\nfilm. x two\nmap. x one"
    assert texts(text, ".csv", 6) == ["name fee\nbook. x ten", "film. x two\nmap. x one"]


def test_code_is_cut_before_definitions_with_their_decorators():
    text = "import os\n\n@cached\n# why\ndef one(a):\n    b = a\n\n    return b\n\n"
    text += "class Two:\n    def three(self):\n        return 3\n"
    assert texts(text, ".py", 11) == [
        "import os",
        "@cached\n# why\ndef one(a):\n    b = a\n\n    return b",
        "class Two:\n    def three(self):\n        return 3",
    ]


def test_a_long_class_is_cut_before_its_methods():
    text = "class A:\n    def one(self):\n        return 1\n\n    @property\n    def two(self):\n        return 2"
    assert texts(text, ".py", 6) == [
        "class A:\n    def one(self):\n        return 1",
        "@property\n    def two(self):\n        return 2",
    ]


def test_a_long_string_without_spaces_is_cut_to_the_budget():
    text = "x" * 1000
    parts = texts(text, "", 100, characters)
    assert "".join(parts) == text
    assert len(parts) <= 20


def test_an_unknown_long_string_is_not_one_endless_passage():
    # The shipped tokenizer takes a string of more than 100 characters for one unknown token.
    parts = texts("x" * 100_000, "", 200, wordpieces)
    assert max(len(part) for part in parts) <= 16 * 200


def test_a_run_of_marks_longer_than_the_budget_is_cut():
    assert "".join(texts("e" + "\u0301" * 7, "", 3, characters)) == "e" + "\u0301" * 7


def test_one_character_over_the_budget_is_an_error():
    with pytest.raises(InputError, match="max_tokens=2 leaves no room for the character '罚'"):
        chunk(Document("a", "罚"), count_tokens=lambda texts: [len(text.encode()) for text in texts], max_tokens=2)


def test_characters_of_several_code_points_stay_whole():
    for character in ("e\u0301", "👍🏽", "👩‍🚀"):
        assert all(len(part) % len(character) == 0 for part in texts(character * 300, "", 50, characters))


# --- What is embedded ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("title", "heading", "text", "expected"),
    [
        ("", "", "Ten.", "Ten."),
        ("Book", "", "Ten.", "Book\nTen."),
        ("Book", "A > B", "Ten.", "Book\nA > B\nTen."),
        ("Book", "Book > B", "Ten.", "Book\nB\nTen."),
        ("Book", "A > B", "## B\n\nTen.", "Book\nA\n## B\n\nTen."),
        ("Book", "Book", "# Book\n\nTen.", "# Book\n\nTen."),
        ("Book", "A > B", "A\n=\n\nB\n-\n\nTen.", "Book\nA\n=\n\nB\n-\n\nTen."),
        ("bo\ud800k", "", "\udfff", "bo\ufffdk\n\ufffd"),
        ("Book", "A", "", "Book\nA"),
    ],
)
def test_embedded_text(title, heading, text, expected):
    assert embedded_text(title, heading, text) == expected


def test_long_titles_and_paths_are_shortened():
    embedded = embedded_text("word " * 500, " > ".join(f"part{n}" for n in range(500)), "Ten.")
    title, path, text = embedded.split("\n")
    assert title == " ".join(["word"] * 48)
    assert path.endswith("part498 > part499")
    assert (len(path) < 200, text) == (True, "Ten.")


# --- Linear time -----------------------------------------------------------------------------------------------------

PATHOLOGICAL = {
    "no spaces": ("x" * 10_000_000, ".txt"),
    "headings": ("# a\n" * 50_000, ".md"),
    "headings, nested": ("# a\n## b\n### c\n" * 4_000, ".md"),
    "adorned": ("abc\n===\n\n" * 10_000, ".rst"),
    "blank lines": ("a" + "\n" * 200_000 + "b", ".md"),
    "blank lines with spaces": ("a" + " \r\n" * 200_000 + "b", ".txt"),
    "blank quotes": ("a" + ">\n" * 200_000 + "b", ".md"),
    "spaces": ("a" + " " * 200_000 + "b", ".md"),
    "comments": ("# x\n" * 100_000 + "def f():\n" * 50_000, ".py"),
    "brackets": ("[" * 200_000, ".md"),
    "heading of brackets": ("# " + "[a](" * 100_000, ".md"),
    "parentheses": ("f(" * 100_000, ".c"),
    "words": ("a " * 100_000, ".txt"),
    "sentences": ("A b. " * 40_000, ".txt"),
    "surrogates": ("\ud800" * 100_000, ".txt"),
    "marks": ("e" + "\u0301" * 100_000, ".txt"),
    "pages": ("\f" * 100_000 + "a", ".pdf"),
    "rows": ("|a|b|\n" * 50_000, ".md"),
    "grid lines": ("+---+\n" * 50_000, ".rst"),
    "open fences": ("```a\n" * 100_000, ".md"),
    "closing quotes": ("。" + "」" * 100_000, ".txt"),
    "1 MB of .": ("." * 1_000_000, ".txt"),
    "1 MB of =": ("=" * 1_000_000, ".rst"),
    "1 MB of `": ("`" * 1_000_000, ".md"),
} | {f"only {sign!r} in {suffix}": (sign * 100_000, suffix) for sign in "-#~|>*" for suffix in (".md", ".rst", ".adoc")}


@pytest.mark.parametrize("name", PATHOLOGICAL)
def test_time_is_linear(name):
    text, suffix = PATHOLOGICAL[name]
    document = Document("a", text, metadata={"suffix": suffix, "pages": 1} if suffix == ".pdf" else {"suffix": suffix})
    started = time.process_time()
    chunks = chunk(document, count_tokens=characters, max_tokens=200)
    assert time.process_time() - started < 8
    check(document, chunks, characters, 200)
