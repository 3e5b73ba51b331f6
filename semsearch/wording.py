"""The words of a sentence as they are compared with those of another: stems, numbers in digits, negations, opposites.

    >>> [word.key for word in words("Late books cost twenty cents.")]
    ['lat', 'book', 'cost', '20', 'cent']

A number keeps its sign. A sign of currency or percent beside it is a word of its own, the same as "dollars", "euros"
or "percent". Function words, negations and opposites are known for English, a few negations for German, French,
Spanish, Chinese and Japanese as well.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

__all__ = ["Word", "denials", "keys", "opposed", "places", "plain", "words"]

SCOPE = 3  # content words that a negation denies


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


class Word(NamedTuple):
    key: str  # what is compared: a stem, a number in digits, or two neighbouring Chinese or Japanese characters
    entity: bool  # a number or a name, which has to occur in the evidence
    place: int  # its position among all words of the sentence; the capital letter of the first says little
    negator: bool = False

    @property
    def unit(self) -> bool:
        """Whether it belongs to a number before it, as "million" and "$" do."""
        return self.entity and self.key in _MEASURES

    @property
    def numeric(self) -> bool:
        return self.unit or self.key.lstrip("-")[:1].isdigit()


_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003134f"
_MAGNITUDES = _set("hundred thousand million billion trillion")
# A minus sign is glued to the number and to nothing before it: not that of "5-10", "5 -10", "mid-1990" or "- 5 items".
_SIGN = r"(?<![^\s(\[{=<>|“‘`,*])(?<![\d%)]\s)(?:[-−–]|[Mm]inus\s)"
_CURRENCY = r"(?:US)?\$|[€£¥]|(?:USD|EUR|GBP)(?![^\W\d_])"
_CURRENCIES = {"us$": "$", "usd": "$", "eur": "€", "£": "pound", "gbp": "pound", "¥": "yen"}
_MEASURES = _MAGNITUDES | {"%", "$", "€", "pound", "yen"}
_ALNUM = rf"(?:(?![{_CJK}])[^\W_])"
_WORD = re.compile(
    rf"(?P<number>(?P<sign>{_SIGN})?(?:(?P<before>{_CURRENCY})\s?)?"
    rf"(?P<digits>(?:(?<![\w.)\]}}”’])\.)?\d+(?:[.,:]\d+)*{_ALNUM}*)"
    rf"(?:\s(?P<times>(?i:{'|'.join(sorted(_MAGNITUDES))}))\b)?(?:\s?(?P<after>%|(?:{_CURRENCY})(?!\s?\.?\d)))?)"
    r"|(?P<us>USA?\b|U\.\s?S\b\.?(?:\s?A\b\.?)?|(?i:united\s+states(?:\s+of\s+america)?)\b)"
    rf"|(?P<percent>(?i:per\s?cent)\b)|(?P<cjk>[{_CJK}]+)|(?P<word>{_ALNUM}+(?:['’][^\W\d_]+)*)"
)
_LIST_MARKER = re.compile(r"\s*(?:[-*+•>#|]+|\d{1,3}[.)])\s+")
_STOP = _set(
    "a about above according accordingly additionally after again all also although am an and another answer any are "
    "as at based be because been before being below between both but by can context could d did do document documents "
    "does doing done down during each either etc even every few finally for from further furthermore given had "
    "has have having he hence her here hers herself him himself his how however i if in into is it its itself just "
    "like likewise ll m many may me mention mentioned mentions might moreover more most much must my myself of off on "
    "once only or other our ours out over own passage passages per provided question re said same say says shall she "
    "should similarly since so some state stated states such t text than that the their theirs them themselves then "
    "there therefore these they this those though through thus to too under until up upon us ve very was we were what "
    "when where whether which while who whom whose why will with within would yes yet you your yours"
)
_NAMES = _set("IT May WHO Will")  # function words, but for these letters
_VERB = re.compile(r"\s+(?:I\b|(?!(?:is|was|has|had|and|or)\b)[a-z])")  # what follows "May" where it is no month
_NEGATORS = _set(
    "cannot hardly neither never no nobody non none nor not nothing nowhere rarely seldom without "
    "kein keine keinem keinen keiner nicht nie niemals pas jamais ni nunca"
)
_OPPOSED = (
    "first/last before/after above/below more/less more/fewer most/least best/worst better/worse same/different "
    "large/small large/little big/small big/little high/low long/short tall/short wide/narrow old/new old/young "
    "new/ancient modern/ancient early/late fast/slow quick/slow strong/weak hard/soft hot/cold warm/cold warm/cool "
    "wet/dry light/dark light/heavy deep/shallow thick/thin full/empty rich/poor cheap/expensive easy/difficult "
    "simple/complex good/bad right/wrong true/false positive/negative major/minor public/private open/closed "
    "open/shut opened/closed inside/outside inner/outer internal/external upper/lower left/right north/south "
    "northern/southern east/west eastern/western male/female man/woman men/women boy/girl father/mother "
    "son/daughter brother/sister king/queen husband/wife happy/sad alive/dead increase/decrease increase/reduce "
    "rise/fall rose/fell grow/shrink gain/lose win/lose won/lost begin/end began/ended start/stop start/finish "
    "start/end buy/sell bought/sold import/export accept/reject accept/refuse allow/forbid allow/prohibit "
    "permit/forbid support/oppose include/exclude enable/disable require/optional required/optional "
    "mandatory/optional love/hate arrive/leave arrive/depart came/went enter/leave push/pull give/take gave/took "
    "live/die lived/died remember/forget succeed/fail success/failure maximum/minimum maximal/minimal always/never "
    "all/none always/sometimes often/seldom often/rarely common/rare near/far up/down front/back top/bottom "
    "upward/downward day/night morning/evening summer/winter attack/defend guilty/innocent temporary/permanent "
    "visible/hidden safe/dangerous ally/enemy friend/enemy victory/defeat ascend/descend expand/contract "
    "raise/lower raised/lowered agree/disagree encourage/discourage"
)
_PREFIXES = ("un", "non", "dis", "in", "im", "il", "ir")
_CJK_NEGATORS = frozenset("不没沒無无未非")
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_ORDINAL = re.compile(r"(\d+)(?:st|nd|rd|th)")
_UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_SPELLED = {word: str(value) for value, word in enumerate(_UNITS.split())}
_SPELLED |= {word: str(10 * value) for value, word in enumerate(_TENS.split(), start=2)}
_SPELLED |= {word + ending: word for word in _MAGNITUDES for ending in ("", "s")}
_SPELLED |= {"dollar": "$", "dollars": "$", "usd": "$", "euro": "€", "euros": "€", "eur": "€"}
_ORDINALS = _set(
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth "
    "sixteenth seventeenth eighteenth nineteenth twentieth thirtieth fortieth fiftieth"
)


def words(text: str, *, sure: bool = False) -> list[Word]:
    """The content words and negators of a sentence, in order.

    In a sentence in capitals "IT", "US" and "WHO" may be names or not; `sure` leaves them out.
    """
    return [word for _, found in _matches(unicodedata.normalize("NFKC", text), sure) for word in found]


def keys(text: str) -> frozenset[str]:
    """The content words of a text."""
    return frozenset(word.key for word in words(text) if not word.negator)


def places(text: str) -> Iterator[tuple[str, int, int]]:
    """The content words of a text with their start and end in it."""
    for match, found in _matches(text):
        for word in found:
            if not word.negator:
                yield word.key, match.start(), match.end()


def _matches(text: str, sure: bool = False) -> Iterator[tuple[re.Match[str], list[Word]]]:
    """Each word of a text where it stands, with what is compared of it: nothing of a function word."""
    marker = _LIST_MARKER.match(text)
    pronouns = sure and text.isupper() and " " in text
    for place, match in enumerate(_WORD.finditer(text, marker.end() if marker else 0)):
        kind = match.lastgroup
        if kind == "number":
            found = _numeral(match, place)
        elif kind == "cjk":
            found = _cjk_words(match[0], place)
        elif kind == "word":
            found = _word(match, place, pronouns)
        elif kind == "us" and pronouns and match[0] == "US":
            found = []
        else:
            found = [Word("%" if kind == "percent" else "us", True, place)]
        yield match, found


def _numeral(match: re.Match[str], place: int) -> list[Word]:
    """A number, "million", and its currency or percent sign, in the order of "10 million dollars" for "$10 million"."""
    digits = match["digits"].casefold()
    number = ("-" if match["sign"] else "") + _key("0" + digits if digits[0] == "." else digits)
    unit = (match["before"] or match["after"] or "").casefold()
    parts = [number, (match["times"] or "").casefold(), _CURRENCIES.get(unit, unit)]
    return [Word(part, True, place) for part in parts if part]


def _word(match: re.Match[str], place: int, pronouns: bool) -> list[Word]:
    low = match[0].casefold().replace("’", "'")
    if low in _NEGATORS or low.endswith("n't"):
        return [Word("", False, place, negator=True)]
    low = low.split("'")[0]
    if low in _STOP and (pronouns or not _is_name(match, len(low))):
        return []
    if low in _ORDINALS and place == 0 and match.string.startswith(",", match.end()):  # "First, ..."
        return []
    key = _key(low)
    number = low in _SPELLED or low in _ORDINALS or any(map(str.isdigit, key))
    return [Word(key, number or match[0][0].isupper(), place)]


def _is_name(match: re.Match[str], length: int) -> bool:
    """Whether a function word is in the letters of a name, and "May" or "Will" no verb that begins a phrase."""
    raw, text, start = match[0][:length], match.string, match.start()
    if raw not in _NAMES or raw.isupper():
        return raw in _NAMES
    before = text[max(0, start - 3) : start].rstrip()[-1:]
    inside = before.isalnum() or before == ","
    return inside or not (_VERB.match(text, match.end()) or text.rstrip().endswith("?"))


def _cjk_words(run: str, place: int) -> list[Word]:
    """The negators and the pairs of neighbouring characters of a run (one character alone stands for itself)."""
    found = []
    for i in range(max(1, len(run) - 1)):
        if run[i] in _CJK_NEGATORS:
            found.append(Word("", False, place, negator=True))
        found.append(Word(run[i : i + 2], False, place))
    return found


@lru_cache(maxsize=65536)
def _key(word: str) -> str:
    if word in _SPELLED:
        return _SPELLED[word]
    ordinal = _ORDINAL.fullmatch(word)
    if ordinal:
        return ordinal[1]
    return _number(word) if _NUMBER.fullmatch(word) else _stem(word)


def plain(text: str) -> frozenset[str]:
    """All words of a text in the form in which they are compared, function words included."""
    return frozenset(_key(word) for word in re.findall(r"[^\W\d_]+", unicodedata.normalize("NFKC", text).casefold()))


def _number(word: str) -> str:
    """1,000 and 1000 are the same number, 5.00 and 5 too."""
    if re.fullmatch(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?", word):
        word = word.replace(",", "")
    return word.rstrip("0").rstrip(".") if re.fullmatch(r"\d+\.\d+", word) else word


def _stem(word: str) -> str:
    """One English ending off (after Harman 1991, "How effective is suffixing?", with -ed, -ing and -e as well)."""
    for suffix in ("ing", "es", "ed", "s", "e"):
        if word.endswith(suffix) and len(word) - len(suffix) >= 3 and not word.endswith("ss"):
            word = word[: -len(suffix)]
            break
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "lsz":
        word = word[:-1]
    return word[:-1] + "i" if word.endswith("y") else word


def _pairs(words: str) -> Mapping[str, frozenset[str]]:
    table: dict[str, set[str]] = {}
    for pair in words.split():
        one, other = map(_key, pair.split("/"))
        table.setdefault(one, set()).add(other)
        table.setdefault(other, set()).add(one)
    return {key: frozenset(others) for key, others in table.items()}


_OPPOSITES = _pairs(_OPPOSED)


def denials(words: Sequence[Word]) -> list[list[str]]:
    """The next few words after each negator, or the one before where none follows."""
    contents = [word.key for word in words if not word.negator]
    denials, place = [], 0
    for word in words:
        if word.negator:
            denials.append(contents[place : place + SCOPE] or contents[-1:])
        else:
            place += 1
    return [denial for denial in denials if denial]


def opposed(claim: frozenset[str], evidence: frozenset[str]) -> bool:
    """Whether a word of the claim that the evidence lacks has its opposite there, which the claim lacks."""
    return any(not _opposites(word).isdisjoint(evidence - claim) for word in claim - evidence)


@lru_cache(maxsize=65536)
def _opposites(key: str) -> frozenset[str]:
    made = [prefix + key for prefix in _PREFIXES if len(key) > 3]
    bare = [key[len(prefix) :] for prefix in _PREFIXES if key.startswith(prefix) and len(key) - len(prefix) > 3]
    return _OPPOSITES.get(key, frozenset()) | {*made, *bare}
