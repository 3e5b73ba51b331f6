"""Which language a corpus is written in, from the function words of a sample.

A language gives itself away by its commonest words: every second or third word of a running text is one of some forty
("the of and to …"), and those of another language hardly ever are. Bayes' rule over a stretch of text gives each
language a probability; the frequency of a function word falls with its rank as Zipf's law says. Stretches then vote.
A corpus has a language if nearly all of them agree. Otherwise it is "none", and so it is for what is too short to tell,
no prose, or in a language that Snowball has no stemmer for. The neighbours of those that it has are known, too, so that
a text in Ukrainian is not taken for Russian.

Scripts without spaces do not vote, since all analyzers treat them alike.

References: Grefenstette, "Comparing two language identification schemes", JADT 1995 (function words against trigrams);
Zipf, "Human Behavior and the Principle of Least Effort", 1949.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import islice

from semsearch.analysis import FUNCTION_WORDS, SPACELESS

__all__ = ["STRETCH", "TEXTS", "Detection", "detect"]

NEUTRAL = "none"

# Languages that Snowball has no stemmer for and that share function words with one that it has.
NEIGHBOURS = {
    "afrikaans": "die en van in is het te n nie wat met vir op dat hy om ek sy aan as ook by was maar sal word uit"
    " deur",
    "albanian": "dhe të në e që me për i një nga është së si ka do nuk",
    "belarusian": "і ў не на што з у да за як ад па для гэта або але яго ён так мае быць пры іх",
    "bulgarian": "и на да се в за от е са не с по като ще това че което до или които има към бъде при",
    "galician": "de a o que e do da en un para con non unha os no se na por máis as dos como ao el das seu súa ou"
    " tamén é pola polo ten está foi ás aos",
    "hebrew": "של את על לא הוא זה עם כל גם או אל היא כי אם אשר",
    "icelandic": "og í að er á sem til um með það við fyrir ekki af en var",
    "latin": "et in est non ad ut cum quod qui sed si ex de aut esse per",
    "latvian": "un ir ar no uz par kas ka tika bet pie pēc vai arī viņa lai tas to nav savu gan",
    "macedonian": "и на да се во за од е не со по како ќе тоа што или кои има при го",
    "marathi": "आहे आणि च्या या व हे त्या ते तर होते करण्यात केली आहेत",
    "slovak": "a v sa na je že s z do o to aj k vo pre za by ale si ako podľa po od sú ktoré ktorý jeho alebo byť"
    " bol pri zo čo má tak nie už",
    "slovene": "in je v na se da za so ki z pa s tudi ne o po bi kot pri iz ali do od ima ter biti le če ga",
    "swahili": "ya na wa kwa ni katika la za kuwa cha hii kama au yake watu hiyo kila",
    "tagalog": "ang ng sa na mga at ay hindi para ito ko",
    "ukrainian": "і в не на що з у та до за як від про для це або але його він так має бути при їх є який по",
    "urdu": "کے میں کی ہے اور سے کا کو پر نے کہ یہ ہیں بھی ایک نہیں کر تو اس",
    "vietnamese": "và của là có được cho trong không một các với người những để này đã khi về đó hay",
}
TEXTS = 256  # of a sample
CHARACTERS = 500  # of each text
STRETCH = 20  # words vote together: shorter texts are joined

# Counted on help pages: 0.40 of the words in French, 0.38 in German, 0.32 in Italian, 0.22 in Hungarian, 0.19 in Czech,
# 0.14 in Russian, 0.12 in Turkish. With 0.35, pages in the last four were often left undecided.
KNOWN_SHARE = 0.25  # of a running text's words are among the function words of its language …
UNKNOWN_SHARE = 0.05  # … and of a text of another language or of none, among those of any
STRAY = 3e-4  # a function word of another language, by chance
STRAY_SHORT = 2e-3  # the same for one or two letters
PRIOR = {"english": 10.0, NEUTRAL: 10.0}  # times as probable as any other, before a word is read
AGREEMENT = 0.8  # of the votes for any language have to be for one
LEAST = 0.4  # of all votes, those of lists, tables and code included
SETTLED = 200  # words after which a decision is not expected to change

_WORD = re.compile(
    "[^\\W\\d_](?:[^\\W\\d_]|[\\u0300-\\u036f\\u0591-\\u05c7\\u064b-\\u065f\\u0670\\u0900-\\u0963\\u0971-\\u0dff])*"
)
_ADDRESS = re.compile(r"\S*(?:[/@_\\]|\w[.:]\w)\S*")  # a "com" or "de" in there is no word
_SPACELESS = re.compile(f"[{SPACELESS}]+")


@dataclass(frozen=True, slots=True)
class Detection:
    """What a sample is written in.

    `language` is one of Snowball's or "none"; `confidence` is the share of the votes that are for it, between 0 and 1;
    `shares` are the votes for each language that got any, "none" and those without a stemmer included; `words` is how
    many words were looked at, and `settled` whether they are enough for the decision to last.
    """

    language: str
    confidence: float
    shares: Mapping[str, float] = field(default_factory=dict)
    words: int = 0

    @property
    def settled(self) -> bool:
        """Whether more text of the same kind is not expected to change the decision."""
        return self.words >= SETTLED

    def instead_of(self, language: str) -> str:
        """The language to go on with: what was found or, where too few words tell, the one there was until now."""
        told = self.settled or (self.words >= STRETCH and self.language != "none")
        return self.language if told else language


def detect(texts: Iterable[str]) -> Detection:
    """The language of a corpus by the first of its texts; at most 256 of them are read, and 500 characters of each.

    >>> detect(["The library is open from nine to five.", "Late fees are twenty cents a day."]).language
    'english'
    >>> detect(["図書館は九時に開きます。"]).language
    'none'
    """
    votes: dict[str, float] = defaultdict(float)
    words = spaceless = 0
    for stretch in _stretches(texts):
        if isinstance(stretch, int):
            spaceless += stretch
            continue
        words += len(stretch)
        for language, probability in _posterior(Counter(stretch)).items():
            votes[language] += probability * len(stretch)
    # Two characters of a script without spaces are about a word.
    total = words + spaceless // 2
    if not total:
        return Detection(NEUTRAL, 0.0)
    votes[NEUTRAL] += spaceless // 2
    shares = {language: vote / total for language, vote in sorted(votes.items(), key=lambda each: -each[1])}
    return _decided({language: round(share, 3) for language, share in shares.items() if share >= 0.005}, total)


def _decided(shares: Mapping[str, float], words: int) -> Detection:
    import snowballstemmer  # whose earlier releases know fewer languages

    known = {language: share for language, share in shares.items() if language != NEUTRAL}
    best = max(known, key=lambda language: known[language], default=NEUTRAL)
    if best in snowballstemmer.algorithms() and known[best] >= max(AGREEMENT * sum(known.values()), LEAST):
        return Detection(best, known[best], shares, words)
    return Detection(NEUTRAL, round(1 - known.get(best, 0.0), 3), shares, words)


def _stretches(texts: Iterable[str]) -> Iterator[list[str] | int]:
    """Words that vote together, lower case; and in between, as numbers, letters of scripts without spaces."""
    waiting: list[str] = []
    for text in islice(texts, TEXTS):
        plain = unicodedata.normalize("NFKC", text[:CHARACTERS])
        yield sum(map(len, _SPACELESS.findall(plain)))
        words = [word.lower() for word in _WORD.findall(_SPACELESS.sub(" ", _ADDRESS.sub(" ", plain)))]
        if len(words) >= STRETCH:
            yield words
            continue
        waiting += words
        if len(waiting) >= STRETCH:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


def _posterior(counts: Counter[str]) -> dict[str, float]:
    """The probability of each language for the words of a text; "none" is any other, or no prose at all."""
    scripts: Counter[str] = Counter()
    for word, count in counts.items():
        scripts[_script(word[0])] += count
    script = scripts.most_common(1)[0][0]
    languages = _profiles().get(script, {})
    own = {word: count for word, count in counts.items() if _script(word[0]) == script}
    every = _all_words(script)
    hits = {word: count for word, count in own.items() if word in every}
    rest = sum(own.values()) - sum(hits.values())
    logs = {NEUTRAL: rest * math.log(1 - UNKNOWN_SHARE) + sum(n * math.log(_stray(word)) for word, n in hits.items())}
    for language, profile in languages.items():
        found = sum(n * math.log(profile.get(word) or _stray(word) / 2) for word, n in hits.items())
        logs[language] = rest * math.log(1 - KNOWN_SHARE) + found
    top = max(logs.values())
    weights = {language: PRIOR.get(language, 1.0) * math.exp(log - top) for language, log in logs.items()}
    if len(languages) == 1:  # a script that is written in one language alone gives it away by itself
        weights[NEUTRAL] *= 0.002
    total = sum(weights.values())
    return {language: weight / total for language, weight in weights.items()}


def _stray(word: str) -> float:
    return STRAY_SHORT if len(word) <= 2 else STRAY


@cache
def _profiles() -> dict[str, dict[str, dict[str, float]]]:
    """By script and language, the probability of each function word."""
    profiles: dict[str, dict[str, dict[str, float]]] = defaultdict(dict)
    for language, listed in (FUNCTION_WORDS | NEIGHBOURS).items():
        by_script: dict[str, list[str]] = defaultdict(list)
        for word in unicodedata.normalize("NFKC", listed).split():
            by_script[_script(word[0])].append(word)
        for script, words in by_script.items():
            weights = {word: 1 / (rank + 2.7) for rank, word in enumerate(words)}  # Zipf, as Mandelbrot put it
            total = sum(weights.values())
            profiles[script][language] = {word: KNOWN_SHARE * weight / total for word, weight in weights.items()}
    return dict(profiles)


@cache
def _all_words(script: str) -> frozenset[str]:
    return frozenset(word for profile in _profiles().get(script, {}).values() for word in profile)


@cache
def _script(letter: str) -> str:
    """LATIN, CYRILLIC, ARABIC, …: the first word of the letter's name."""
    return unicodedata.name(letter, "").split(" ")[0]
