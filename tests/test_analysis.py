"""Tokens: words, stems, identifiers and their parts, scripts without spaces, and whatever else a string may hold."""

from __future__ import annotations

import pickle
import threading
import time
import unicodedata

import pytest
import snowballstemmer
from hypothesis import example, given, settings
from hypothesis import strategies as st

from semsearch.analysis import LONGEST, Analyzer, get_analyzer
from semsearch.errors import InputError

ENGLISH = Analyzer()
PLAIN = Analyzer("none")
ANY_TEXT = st.text(alphabet=st.characters(exclude_categories=()))


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Late FEES are charged daily.", ["late", "fee", "are", "charg", "daili"]),
        ("the library’s libraries' books", ["the", "librari", "librari", "book"]),
        ("don't o'clock", ["don", "t", "o", "clock"]),
        ("Python 3.11, not 3.1", ["python", "3.11", "3", "11", "not", "3.1", "3", "1"]),
        ("1,000,000 or 1,5", ["1000000", "or", "1", "5"]),
        ("max_tokens", ["max_tokens", "max", "token"]),
        ("__init__", ["init"]),
        ("getValue", ["getvalu", "get", "valu"]),
        ("HTTPServer", ["httpserver", "http", "server"]),
        ("HTTPServer2", ["httpserver2", "http", "server", "2"]),
        ("utf8 p53 IL-2", ["utf8", "utf", "8", "p53", "p", "53", "il", "2"]),
        ("v2.0.1 2.0.1", ["2.0.1", "2", "0", "1"] * 2),
        ("10.5.3-rc1 2024-05-01", ["10.5.3", "10", "5", "3", "rc1", "rc", "1", "2024", "05", "01"]),
        ("the U.S. or U.S.A., e.g. a.b", ["the", "us", "or", "usa", "eg", "ab"]),
        ("j.doe@example.com", ["j.doe", "j", "doe", "example.com", "exampl", "com"]),
        ("/usr/lib/os.py", ["usr", "lib", "os.py", "os", "py"]),
        ("kebab-case", ["kebab", "case"]),
        ("a1b2c3d4e5f6", ["a1b2c3d4e5f6"]),
        ("os.path.join", ["os.path.join", "os", "path", "join"]),
        ("C++, C# or C", ["c++", "c", "c#", "c", "or", "c"]),
        ("see #42 and issue#42", ["see", "42", "and", "issu", "42"]),
        ("state-of-the-art", ["state", "of", "the", "art"]),
        ("résumé ﬁne co\u00adoperate", ["résumé", "fine", "cooper"]),
        ("e\u0301te\u0301 É", ["été", "é"]),
        ("Ｆｕｌｌ ｗｉｄｔｈ", ["full", "width"]),
        ("a\x00b \ud800 c", ["a", "b", "c"]),
        ("😀 — …", []),
        ("", []),
    ],
)
def test_english(text: str, tokens: list[str]) -> None:
    assert ENGLISH(text) == tokens


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("図書館", ["図書", "書館", "図", "書", "館"]),
        ("猫", ["猫"]),
        ("ﾊﾝｶﾞｸ", ["ハン", "ンガ", "ガク", "ハンガク"]),
        ("東京タワーは", ["東京", "京タ", "タワ", "ワー", "ーは", "東", "京", "タワー"]),
        ("ひらがな", ["ひら", "らが", "がな"]),
        ("iPod手机v2", ["ipod", "i", "pod", "手机", "手", "机", "v2", "v", "2"]),
        ("도서관 책", ["도서", "서관", "도", "서", "관", "책"]),
        ("ไทย", ["ไท", "ทย"]),
        ("กินข้าว", ["กิน", "นข้", "ข้า", "าว"]),
        ("ก", ["ก"]),
        ("東京。大阪", ["東京", "東", "京", "大阪", "大", "阪"]),
    ],
)
def test_scripts_without_spaces(text: str, tokens: list[str]) -> None:
    assert PLAIN(text) == tokens


@pytest.mark.parametrize(
    ("language", "text", "tokens"),
    [
        ("german", "Die Häuser", ["die", "haus"]),
        ("french", "L’école d'été", ["écol", "été"]),
        ("italian", "dell'arte", ["arte"]),
        ("russian", "библиотеки", ["библиотек"]),
        ("turkish", "IŞIK İSTANBUL", ["ışık", "istanbul"]),
        ("greek", "ΟΔΟΣ", ["οδ"]),
        ("hindi", "हिन्दी", ["हिन्द"]),
        ("none", "Libraries", ["libraries"]),
    ],
)
def test_languages(language: str, text: str, tokens: list[str]) -> None:
    assert Analyzer(language)(text) == tokens


def test_words_keep_their_marks() -> None:
    assert PLAIN("हिन्दी में") == ["हिन्दी", "में"]
    assert PLAIN("שָׁלוֹם") == [unicodedata.normalize("NFKC", "שָׁלוֹם")]


def test_every_language_of_snowball() -> None:
    for language in snowballstemmer.algorithms():
        stemmer = snowballstemmer.stemmer(language)
        assert Analyzer(language)("dominion") == [stemmer.stemWord("dominion")]


def test_questions_lose_function_words_but_not_everything() -> None:
    assert ENGLISH.query("What is the fee for being late?") == ["fee", "late"]
    assert ENGLISH.query("if not found") == ["if", "not", "found"]
    assert ENGLISH.query("to be or the") == ["to", "be", "or", "the"]
    assert Analyzer("german").query("the fee") == ["the", "fee"]
    assert Analyzer("german").query("Wo ist die Bibliothek?") == ["wo", "bibliothek"]
    assert Analyzer("french").query("L'été dans les forêts") == ["été", "forêt"]
    assert ENGLISH.query("") == []


def test_unknown_language_lists_the_known() -> None:
    with pytest.raises(InputError, match=r"'klingon'.*english.*none"):
        Analyzer("klingon")
    with pytest.raises(InputError, match="42"):
        get_analyzer(42)  # type: ignore[arg-type]


def test_get_analyzer() -> None:
    assert get_analyzer(None).language == "english"
    assert get_analyzer("french").language == "french"
    assert get_analyzer(PLAIN) is PLAIN


def test_fingerprint_tells_languages_apart() -> None:
    mine = ENGLISH.fingerprint()
    assert mine == {"language": "english", "rules": 2, "snowball": snowball_major()}
    assert mine != PLAIN.fingerprint()
    assert Analyzer("english").fingerprint() == mine


def snowball_major() -> str:
    from importlib.metadata import version

    return version("snowballstemmer").split(".")[0]


def test_an_analyzer_travels_between_processes() -> None:
    copy = pickle.loads(pickle.dumps(Analyzer("french")))  # noqa: S301
    assert copy("Les écoles") == Analyzer("french")("Les écoles")


def test_threads_do_not_disturb_each_other() -> None:
    words = [f"relational{i:x}izations nationalities {i}ing" for i in range(400)]
    alone = [Analyzer()(word) for word in words]
    shared, wrong = Analyzer(), []

    def work() -> None:
        wrong.extend(w for w, tokens in zip(words, alone, strict=True) if shared(w) != tokens)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@settings(max_examples=300, deadline=None)
@given(text=ANY_TEXT)
@example("İ")
@example("\u0130.\u0130_x" * 30)
@example("ŉ ǰ ΐ")
def test_any_string(text: str) -> None:
    for analyzer in (ENGLISH, PLAIN):
        tokens = analyzer(text)
        assert tokens == Analyzer(analyzer.language)(text)
        assert all(token and len(token) <= 2 * LONGEST and not any(c.isspace() for c in token) for token in tokens)
        # Text around does not change a word.
        assert analyzer(f"before {text} after")[1:-1] == tokens or not text.isascii()


@settings(max_examples=200, deadline=None)
@given(text=ANY_TEXT)
def test_equivalent_strings_have_equal_tokens(text: str) -> None:
    assert PLAIN(unicodedata.normalize("NFD", text)) == PLAIN(unicodedata.normalize("NFC", text))


@pytest.mark.parametrize(
    "unit",
    [
        "a",
        "a.",
        "aB",
        "a_",
        "'",
        "a'",
        "1,000",
        "日",
        "ß",
        "é\u0300",
        "\u0300\u0316",
        "a\u0300\u0316",
        "+",
        "ก",
        "กิ",
        "a1",
        "a.b",
        "v1.",
        "ア",
    ],
)
def test_time_is_linear(unit: str) -> None:
    """A quadratic step would take minutes at this length."""
    started = time.thread_time()
    PLAIN(unit * (200_000 // len(unit)))
    assert time.thread_time() - started < 6


def test_long_words_are_cut_and_still_found() -> None:
    digest = "0123456789abcdef" * 8
    assert PLAIN(digest) == [digest[:64], digest[64:]]
    assert PLAIN(".".join(["part"] * 30)) == ["part"] * 30
