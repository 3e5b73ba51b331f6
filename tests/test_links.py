"""Links, images and markup in generated text."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semsearch.citing import AnswerStream
from semsearch.links import REMOVED, without_links
from semsearch.records import Hit, Passage

SOURCE = "See https://good.example/a_(b), [doc](https://good.example/x), `names[0]: int` and <b>bold</b>."


def clean(*pieces: str, sources: tuple[str, ...] = (SOURCE,)) -> str:
    return "".join(without_links(pieces, sources))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("See https://evil.example/?q=1.", f"See {REMOVED}."),
        ("See https://good.example/a_(b).", "See https://good.example/a_(b)."),
        ("See https://good.example/a_(b)?q=secret.", f"See {REMOVED}."),  # more than the source has
        ("[doc](https://good.example/x)", "[doc](https://good.example/x)"),
        ("[doc](https://good.example/y)", f"[doc] ({REMOVED})"),
        ("![x](//evil.example/i.png)", "![x] (//evil.example/i.png)"),
        ("[x]: //evil.example", "[x] : //evil.example"),
        ("<b>bold</b>", "<b>bold</b>"),
        ("<img src=x onerror=y>", "< img src=x onerror=y>"),
        ("a < b, a <3, x<-y", "a < b, a <3, x<-y"),
        ("data: 5, http is a protocol, www is a name", "data: 5, http is a protocol, www is a name"),
        ("mailto:eve@evil.example javascript:alert(1)", f"{REMOVED} {REMOVED})"),
        ("HTTPS:\\\\evil.example WWW.evil.example", f"{REMOVED} {REMOVED}"),
        ("ht\u200btps://evil.example \x1b[2J\u202e", f"{REMOVED} [2J"),
        ("`names[0]: int`", "`names[0]: int`"),
        ("[a]:https://]: ", "[a] :{link removed}]: "),
        ("\u0645\u06cc\u200c\u062e", "\u0645\u06cc\u200c\u062e"),  # the joiner that Persian needs
    ],
)
def test_what_is_not_in_the_sources_is_taken_out(text: str, expected: str) -> None:
    assert clean(text) == expected
    assert clean(*text) == expected  # a character at a time
    assert clean(expected) == expected


PARTS = st.sampled_from(
    ["https://", "http", ":", "//", "www.", "evil.example", "good.example/x", " ", "[a]", "(", ")", "]", "![", "<",
     "b>", "javascript:", "data:", "text/html", "\n", "\u200b", "\x1b", "word", ".", "src=", "[1]", "'", "]:", "\\\\"]
)  # fmt: skip


SHOWN = re.compile(r"https?:[/\\]{2}[a-z]|\bwww\.[a-z]|\bjavascript:[a-z]|\]\(|<[a-z/!?]", re.IGNORECASE)


@settings(max_examples=300, deadline=None)
@given(st.lists(PARTS, max_size=25), st.integers(1, 7))
def test_the_pieces_make_no_difference(parts: list[str], size: int) -> None:
    text = "".join(parts)
    whole = clean(text)
    assert clean(*[text[i : i + size] for i in range(0, len(text), size)]) == whole
    assert clean(whole) == whole
    assert "\x1b" not in whole
    assert "\u200b" not in whole


@settings(max_examples=300, deadline=None)
@given(st.lists(PARTS, max_size=25))
def test_an_answer_has_no_address_that_is_not_in_its_sources(parts: list[str]) -> None:
    passage = Passage(1, "a", "Words of a passage.", 0, 19)
    stream = AnswerStream(parts, [Hit(passage, 1.0, 1)])
    pieces = "".join(stream)
    answer = stream.answer
    text = answer.text or (answer.alternatives[0].text if answer.alternatives else "")
    for shown in (pieces, text):
        assert not SHOWN.search(shown), shown


@pytest.mark.parametrize("unit", ["](", "]:", "<a", "https://", "w", "://", "[x](", "data:a/"])
def test_time_is_linear_in_the_text(unit: str) -> None:
    start = time.process_time()
    clean(unit * 10_000)
    clean(*[unit] * 1_000)
    assert time.process_time() - start < 10


def test_a_word_is_kept_back_only_while_it_may_be_a_link() -> None:
    assert list(without_links(["It cos", "ts 20", " cents h", "ere."], [])) == ["It cos", "ts 20", " cents ", "here."]
