"""Text → the tokens that keyword search compares.

Unicode NFKC, words, lower case, Snowball stemming by language (Porter, "Snowball: A language for stemming algorithms",
2001). Scripts that are written without spaces give single characters and pairs of neighbours. An identifier, a version
or a dotted name gives itself and its parts: `max_tokens` → max_tokens, max, token; `getValue` → getvalu, get, valu;
`3.11` → 3.11, 3, 11.

What was measured (nDCG@10, of 100; lexical index with its defaults):

    scifact (train) / cranfield / cisi / medline / cosqa (code)
    no stemming                        67.0 / 39.9 / 34.4 / 67.4 / 37.1
    stemming, words only               69.7 / 42.5 / 37.6 / 69.0 / 38.6
    with identifiers and parts         69.7 / 42.4 / 37.0 / 69.0 / 38.8
    function words dropped in queries  69.8 / 43.4 / 39.6 / 70.1 / 38.9
    hyphenated words whole, too        less in three of the five, by up to 1.2: not done

    cmrc2018 / drcd (Chinese) / jaquad (Japanese)
    pairs of neighbours only           98.7 / 97.0 / 91.2
    single characters, too             98.9 / 97.4 / 91.9
"""

from __future__ import annotations

import re
import threading
import unicodedata
from functools import cache, lru_cache

from semsearch.errors import InputError

__all__ = ["Analyzer", "get_analyzer"]

RULES = 1  # raised whenever the same text gives other tokens

# No natural word is longer. Encoded data is cut, so that neither tokens nor the time of stemming grow with it.
LONGEST = 64
CACHED = 1 << 16

# Words that say nothing about a passage. "if", "not" and "all" are not among them: in questions about code they do.
FUNCTION_WORDS = """
    a an the this that these those it its here there
    i me my we our you your he him his she her they them their what which who whom how why
    am is are was were be been being do does did doing have has had having can could will would should
    of to in on for with by at from about as into and or but than then so such s t
"""

# Thai, Lao, Burmese, Hangul, Khmer, Kana, Bopomofo and Han: written without spaces, or with endings that stick.
SPACELESS = (
    "\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3005-\u3007\u3031-\u3035\u303b\u3041-\u309f\u30a1-\u30fa"
    "\u30fc-\u30ff\u3105-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff"
    "\uf900-\ufaff\U0001b000-\U0001b16f\U00020000-\U0003ffff"
)
_SPACELESS = re.compile(f"[{SPACELESS}]")
# Soft hyphens, joiners, marks of direction and variation selectors: they change how a word looks, not which it is.
_INVISIBLE = re.compile("[\u00ad\u200d-\u200f\u2060\ufe00-\ufe0f\ufeff\U000e0100-\U000e01ef]+")
_LONG_RUNS = re.compile(r"([^\x00-\u02ff\w]{30})[^\x00-\u02ff\w]+")
BEYOND = r"(?=[^\x00-\x7f])"
_JOINTS = re.compile(r"[._]+")
_HUMPS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


class Analyzer:
    """Turns text into tokens, in time linear in its length. Any string is fine, lone surrogates and NUL included.

    `language` is one that Snowball knows, or "none" (no stemming). Call it with a passage; use `query` for a question.

    >>> Analyzer()("The fees of os.path: 3.11")
    ['the', 'fee', 'of', 'os.path', 'os', 'path', '3.11', '3', '11']
    >>> Analyzer("none")("図書館 hours")
    ['図書', '書館', '図', '書', '館', 'hours']

    Raises InputError for a language that is not known.
    """

    def __init__(self, language: str = "english") -> None:
        import snowballstemmer

        if language != "none" and language not in snowballstemmer.algorithms():
            known = ", ".join([*snowballstemmer.algorithms(), "none"])
            raise InputError(f"There is no analyzer for {language!r}. Choose one of {known}.")
        self.language = language
        self._local = threading.local()  # a stemmer has state
        self._remembered = lru_cache(CACHED)(self._tokens)
        self._function_words = frozenset(self(FUNCTION_WORDS)) if language == "english" else frozenset()

    def __call__(self, text: str) -> list[str]:
        """The tokens of a passage, in order; a word that has parts comes before them."""
        tokens: list[str] = []
        remembered = self._remembered
        for word in _words(text.isascii()).findall(text if text.isascii() else _normal(text)):
            tokens.extend(remembered(word) if len(word) <= LONGEST else self._tokens(word))
        return tokens

    def query(self, text: str) -> list[str]:
        """The tokens of a question: without function words ("what is the …"), unless there is nothing else.

        >>> Analyzer().query("What is the fee?"), Analyzer().query("to be")
        (['fee'], ['to', 'be'])
        """
        tokens = self(text)
        return [token for token in tokens if token not in self._function_words] or tokens

    def fingerprint(self) -> dict[str, str | int]:
        """What must be equal for tokens to be equal: the language, the version of these rules and Snowball's."""
        from importlib.metadata import version

        return {"language": self.language, "rules": RULES, "snowball": version("snowballstemmer").split(".")[0]}

    def __repr__(self) -> str:
        return f"Analyzer({self.language!r})"

    def __reduce__(self) -> tuple[type[Analyzer], tuple[str]]:
        return (type(self), (self.language,))

    def _tokens(self, word: str) -> tuple[str, ...]:
        if _SPACELESS.match(word):
            pairs = [word[i : i + 2] for i in range(len(word) - 1)]
            return (*pairs, *word)
        word = word.replace("’", "'").replace(",", "")  # a comma only joins the thousands of a number
        plain = word.rstrip("+#")
        pieces = _JOINTS.split(plain)
        wholes = [self._lower(plain)] if len(pieces) > 1 else []
        if word != plain:
            wholes.append(self._lower(word))  # c++, c#
        parts = [token for piece in pieces for token in self._parts(piece)]
        return (*(whole for whole in wholes if len(whole) <= LONGEST), *parts)

    def _parts(self, piece: str) -> list[str]:
        humps = _HUMPS.split(piece)
        words = [piece, *humps] if len(humps) > 1 else humps
        return [token for word in words for token in self._stems(self._lower(word))]

    def _stems(self, word: str) -> list[str]:
        if len(word) > LONGEST:
            return [word[i : i + LONGEST] for i in range(0, len(word), LONGEST)]
        # Snowball knows what an apostrophe means in its language (library's, l'école); one that it leaves parts words.
        stem = self._stem(word)
        return [self._stem(part) for part in stem.split("'") if part] if "'" in stem else [stem]

    def _lower(self, word: str) -> str:
        return (word.replace("I", "ı").replace("İ", "i") if self.language == "turkish" else word).lower()

    def _stem(self, word: str) -> str:
        if self.language == "none":
            return word
        if not hasattr(self._local, "stem"):
            import snowballstemmer

            self._local.stem = lru_cache(CACHED)(snowballstemmer.stemmer(self.language).stemWord)
        return str(self._local.stem(word))


def get_analyzer(spec: str | Analyzer | None = None) -> Analyzer:
    """An analyzer by language; None is English, and an analyzer is itself.

    >>> get_analyzer("german")
    Analyzer('german')
    """
    if isinstance(spec, Analyzer):
        return spec
    if spec is None or isinstance(spec, str):
        return Analyzer(spec or "english")
    raise InputError(f"{spec!r} is no analyzer. Give a language by name ('english', 'none', …) or an Analyzer.")


def _normal(text: str) -> str:
    # NFKC sorts a run of combining marks in quadratic time. No word has thirty in a row (UAX #15, "stream-safe text").
    return unicodedata.normalize("NFKC", _LONG_RUNS.sub(r"\1", _INVISIBLE.sub("", text)))


@cache
def _words(ascii_only: bool) -> re.Pattern[str]:
    """What is looked at as one word: letters, marks and digits with joints in between, or a run without spaces."""
    if ascii_only:
        letters = "[a-zA-Z0-9]+"
    else:
        # Large character classes are slow, so that they are tried only where a character is not ASCII.
        letter = rf"[^\W_{SPACELESS}]"
        rest = rf"{letter}*(?:[{_marks()}]+{letter}*)*"
        letters = rf"(?:[a-zA-Z0-9]+(?:{BEYOND}{rest})?|{BEYOND}{letter}{rest})"
    joints = r"[._]+|['’]|(?<=\d),(?=\d{3}(?!\d))"
    word = rf"{letters}(?:(?:{joints}){letters})*(?:(?:\+\+|\#)(?!\w))?"
    return re.compile(word if ascii_only else rf"{word}|{BEYOND}[{SPACELESS}]+")


@cache
def _marks() -> str:
    """Combining marks, as the inside of a character class: Python's `\\w` lacks them and would cut words there."""
    spaceless = re.compile(f"[{SPACELESS}]")
    codes = [*range(0x300, 0x3400), *range(0xA000, 0xAC00), *range(0xFB00, 0xFE30), *range(0x10000, 0x1F000)]
    marks = (chr(code) for code in codes if unicodedata.category(chr(code)) in ("Mn", "Mc"))
    return "".join(mark for mark in marks if not spaceless.match(mark))
