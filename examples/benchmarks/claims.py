"""Makes sentences whose truth is known, beside the passages that they are checked against.

Each passage set is cut and searched as an index does it. A case is a claim, the passage that it comes from and the
passages that a search for the sentence returns beside it. True claims are copies, copies with synonyms, and questions
turned into statements by their right answers; false ones are copies with one thing changed, and the same questions with
an answer to another question about the passage.
"""

from __future__ import annotations

import gzip
import json
import random
import re
import tarfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from common import records

from semsearch import Document, Hit, Passage, load
from semsearch.analysis import Analyzer
from semsearch.chunking import chunk
from semsearch.datasets import Question
from semsearch.lexical import LexicalIndex
from semsearch.sentences import sentences

GIVEN = 5  # passages that an answer is checked against
OPPOSITES = """
    first/last before/after most/least largest/smallest larger/smaller highest/lowest higher/lower more/fewer
    increase/decrease increased/decreased north/south northern/southern east/west eastern/western early/late
    earliest/latest oldest/youngest older/younger begin/end began/ended start/finish started/finished won/lost win/lose
    male/female men/women legal/illegal public/private possible/impossible allowed/forbidden strong/weak long/short
    longest/shortest high/low major/minor large/small best/worst better/worse maximum/minimum positive/negative
    support/oppose supported/opposed accept/reject accepted/rejected inside/outside above/below import/export buy/sell
    bought/sold left/right upper/lower modern/ancient rich/poor common/rare include/exclude included/excluded
    opened/closed rise/fall hot/cold new/old same/different true/false internal/external successful/unsuccessful
    enabled/disabled enable/disable required/optional mother/father brother/sister king/queen young/old happy/sad
    big/little came/went open/closed
"""
OPPOSITE = dict(pair for both in OPPOSITES.split() for pair in (both.split("/"), both.split("/")[::-1]))
NAME = re.compile(r"\b[A-Z][a-z]{2,}(?:[ -](?:(?:of|the|de) )?[A-Z][a-z]{2,})*\b")
NUMBER = re.compile(r"(?<![\w.,-])\d[\d,]*(?:\.\d+)?(?![\w-]|[.,]\d)")
AUXILIARY = re.compile(
    r"\b(?:is|was|are|were|can|could|will|would|should|may|might|must|has|had|have)\b(?! not\b|n't)(?= [a-z]+)"
)
DENIED = re.compile(r" (?:not|never)\b")
DENIES = re.compile(
    r"\b(?:not|never|no|none|nothing|nobody|neither|nor|without|cannot|hardly|rarely|\w+n['’]t)\b", re.I
)
LISTED = re.compile(r"\W*\d{1,3}[.)]\s")
SUBJECT = re.compile(
    r"(?:who|what|which [a-z]+|how many [a-z]+)\s+(?:(?:is|was|are|were|has|had|can|could|will|would|may|might|must)\b"
    r"(?!\s+(?:the|a|an|his|her|its|their|he|she|it|they|this|that|these|you|I|[A-Z]\w+)\b.*\b(?:of|for|by|to|in|with|"
    r"as|called|\w+ed|do|doing)\?)|[a-z]{3,}ed\b|led\b|won\b|wrote\b|made\b|took\b|gave\b|came\b|went\b|held\b|found\b)",
    re.IGNORECASE,
)
ASKED = re.compile(r"(?:who|what|which [a-z]+|how many(?= [a-z]))\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Claim:
    """A sentence of which it is known whether the passages say so; `question` is empty if it answers none."""

    set: str
    kind: str
    text: str
    true: bool
    hits: tuple[Hit, ...]
    question: str = ""


class Source:
    """Passages of a set, and which of them a search for a sentence finds."""

    def __init__(self, name: str, documents: Sequence[Document], analyzer: str = "english") -> None:
        self.name = name
        self.passages = list(_passages(documents))
        self._analyzer, self._index = Analyzer(analyzer), LexicalIndex()
        self._index.add(range(len(self.passages)), [self._analyzer(passage.text) for passage in self.passages])
        self.names = sorted({n for p in self.passages for n in names_of(p.text)})

    def hits(self, number: int, text: str) -> tuple[Hit, ...]:
        """The passage and four more that a keyword search for `text` returns, the passage at its own rank or last."""
        found = self._index.search(self._analyzer(text), GIVEN)[0].tolist()
        if number not in found:
            found = [*found[: GIVEN - 1], number]
        return tuple(Hit(self.passages[i], 1.0, rank) for rank, i in enumerate(found, start=1))


def _passages(documents: Sequence[Document]) -> Iterator[Passage]:
    number = 0
    for document in documents:
        for piece in chunk(document, count_tokens=_count):
            number += 1
            yield Passage(number, document.id, document.text[piece.start : piece.end], piece.start, piece.end)


def _count(texts: Sequence[str]) -> list[int]:
    """About as many tokens as the shipped encoder counts: of four letters in words, and signs."""
    return [2 + sum((len(part) + 3) // 4 for part in re.findall(r"\w+|[^\w\s]", text)) for text in texts]


# -- where the passages come from


def beir(data: Path, name: str, count: int = 2000) -> Source:
    """Documents of a set, the same ones each time."""
    every = [Document(each["id"], each["text"]) for each in records(data, name)]
    return Source(name, random.Random(3).sample(every, min(count, len(every))))


def folder(data: Path, work: Path, suffixes: Sequence[str], count: int) -> Source:
    """Files of the mixed folder, the same ones each time."""
    archive = data / "folders" / "mixed.tar.gz"
    if not archive.is_file():
        raise SystemExit(f"There is no {archive}. Name the folder of the data: --data DIR.")
    with tarfile.open(archive) as files:
        members = [
            m for m in files.getmembers() if m.isfile() and m.name.endswith(tuple(suffixes)) and m.size < 200_000
        ]
        chosen = random.Random(3).sample(sorted(members, key=lambda m: m.name), min(count, len(members)))
        files.extractall(work, members=chosen, filter="data")
    return Source("folders", [document for m in chosen for document in load(work / m.name)])


def of_source(data: Path, name: str, prefix: str = "") -> list[dict[str, Any]]:
    """The articles of a set with questions whose id begins with `prefix`."""
    path = data / name / "squad.json.gz"
    if not path.is_file():
        raise SystemExit(f"There is no {path}. Name the folder of the data: --data DIR.")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        articles: list[dict[str, Any]] = json.load(file)["data"]
    return [a for a in articles if any(qa["id"].startswith(prefix) for p in a["paragraphs"] for qa in p["qas"])]


def held_out(data: Path, *, apart: bool) -> list[dict[str, Any]]:
    """The articles of SQuAD that are kept apart for measuring, or the others without the questions of openqa."""
    articles = of_source(data, "squad-v1.1-dev-open")
    kept_apart = set(sorted(a["title"] for a in articles)[::4])  # as examples/reader_data.py has it
    asked = {each["id"].split("/")[-1] for each in records(data, "openqa", "queries.jsonl.gz")}
    chosen = [a for a in articles if (a["title"] in kept_apart) == apart]
    for paragraph in [] if apart else [p for a in chosen for p in a["paragraphs"]]:
        paragraph["qas"] = [qa for qa in paragraph["qas"] if qa["id"] not in asked]
    return chosen


def squad(name: str, articles: Sequence[Mapping[str, Any]]) -> tuple[Source, list[tuple[int, Question]]]:
    """Paragraphs of SQuAD-like articles, and their questions with the number of the paragraph."""
    documents, asked = [], []
    for article in articles:
        for paragraph in article["paragraphs"]:
            for qa in paragraph["qas"]:
                answers = tuple(dict.fromkeys(answer["text"] for answer in qa["answers"]))
                if answers:
                    asked.append((len(documents), Question(qa["id"], qa["question"], answers=answers)))
            documents.append(Document(str(len(documents)), paragraph["context"]))
    source = Source(name, documents)
    first = {int(p.document_id): i for i, p in reversed(list(enumerate(source.passages)))}
    return source, [(first[number], question) for number, question in asked if number in first]


# -- copies, and copies with something changed


class Copy(NamedTuple):
    """A sentence and the number of its passage."""

    number: int
    text: str


def copies(source: Source, count: int, seed: int = 0) -> list[Copy]:
    """Sentences that stand alone, of passages of at least two sentences, at most two of a passage."""
    chance = random.Random(seed)
    found = []
    for number in chance.sample(range(len(source.passages)), len(source.passages)):
        text = source.passages[number].text
        spans = [text[a:b] for a, b in sentences(text)]
        whole = [one for one in spans if 8 <= len(one.split()) <= 50 and one[-1] in ".!?" and "\n\n" not in one]
        whole = [one for one in whole if sum(map(str.isalpha, one)) > 0.6 * len(one) and not LISTED.match(one)]
        if len(spans) > 1:
            found += [Copy(number, one) for one in chance.sample(whole, min(2, len(whole)))]
        if len(found) >= count:
            break
    return found[:count]


def names_of(text: str) -> list[str]:
    """Names that do not begin a sentence."""
    return [m.group() for m in NAME.finditer(text) if m.start() > 1 and re.match(r"[\w,;] ", text[m.start() - 2 :])]


def changed(source: Source, copy: Copy, hits: Sequence[Hit], chance: random.Random) -> Iterator[tuple[str, str]]:
    """(kind, sentence) for each way in which the sentence can be made false."""
    near = " ".join(hit.passage.text for hit in hits)
    ways: dict[str, Callable[[], str | None]] = {
        "number": lambda: _another(copy.text, NUMBER, NUMBER.findall(near), _numbers(chance), chance),
        "numbers exchanged": lambda: _exchanged(copy.text, list(NUMBER.finditer(copy.text)), chance),
        "name": lambda: _another(copy.text, NAME, names_of(near), source.names, chance, first=False),
        "names exchanged": lambda: _exchanged(copy.text, _inner_names(copy.text), chance),
        "negation": lambda: _denied(copy.text, chance),
        "opposite": lambda: _opposite(copy.text, chance),
    }
    for kind, way in ways.items():
        made = way()
        if made is not None and made != copy.text:
            yield kind, made


def _numbers(chance: random.Random) -> list[str]:
    return [str(chance.randint(2, 99)) for _ in range(5)] + [str(chance.randint(1000, 2030))]


def _inner_names(text: str) -> list[re.Match[str]]:
    return [m for m in NAME.finditer(text) if m.start() > 1 and re.match(r"[\w,;] ", text[m.start() - 2 :])]


def _another(
    text: str,
    pattern: re.Pattern[str],
    near: Sequence[str],
    others: Sequence[str],
    chance: random.Random,
    *,
    first: bool = True,
) -> str | None:
    """With one number or name exchanged for another: every other time for one of the passages given."""
    places = list(pattern.finditer(text)) if first else _inner_names(text)
    if not places:
        return None
    place = chance.choice(places)
    pool = sorted({one for one in near if one not in text})
    if not pool or chance.random() < 0.5:
        pool = sorted({one for one in others if one not in text})
    if not pool:
        return None
    return text[: place.start()] + chance.choice(pool) + text[place.end() :]


def _exchanged(text: str, places: Sequence[re.Match[str]], chance: random.Random) -> str | None:
    """With two of its numbers or names exchanged, unless they are joined by "and" or a comma: that may stay true."""
    pairs = [(a, b) for a, b in pairwise(places) if a[0] != b[0] and len(text[a.end() : b.start()].split()) > 2]
    if not pairs:
        return None
    a, b = chance.choice(pairs)
    return text[: a.start()] + b[0] + text[a.end() : b.start()] + a[0] + text[b.end() :]


def _denied(text: str, chance: random.Random) -> str | None:
    """With a "not" after an auxiliary verb, or without its "not" or "never"; None where it denies in another way."""
    denials, places = DENIES.findall(text), list(DENIED.finditer(text))
    if len(denials) == len(places) == 1:
        return text[: places[0].start()] + text[places[0].end() :]
    verbs = list(AUXILIARY.finditer(text))
    if denials or not verbs:
        return None
    end = chance.choice(verbs).end()
    return f"{text[:end]} not{text[end:]}"


def _opposite(text: str, chance: random.Random) -> str | None:
    places = [m for m in re.finditer(r"[a-z]+", text) if m[0] in OPPOSITE]
    if not places:
        return None
    place = chance.choice(places)
    return text[: place.start()] + OPPOSITE[place[0]] + text[place.end() :]


# -- the same in other words, and other words


class Thesaurus:
    """Words that mean the same in WordNet, for words that have one meaning there, and words that do not."""

    def __init__(self, data: Path) -> None:
        senses: dict[str, list[list[str]]] = defaultdict(list)
        for each in records(data, "wordnet-glosses"):
            words = [word for word in each["title"].split(", ") if re.fullmatch("[a-z]{4,}", word)]
            for word in words:
                senses[word].append([other for other in words if other != word])
        self.same = {word: found[0] for word, found in senses.items() if len(found) == 1 and found[0]}
        self.words = sorted(self.same)

    def synonym(self, text: str, chance: random.Random) -> str | None:
        return self._replaced(text, chance, lambda word: chance.choice(self.same[word]))

    def other(self, text: str, chance: random.Random) -> str | None:
        """With a word exchanged for one that means something else."""
        return self._replaced(text, chance, lambda word: chance.choice(self.words))

    def _replaced(self, text: str, chance: random.Random, choose: Callable[[str], str]) -> str | None:
        places = [m for m in re.finditer(r"(?<= )[a-z]{4,}\b", text) if m[0] in self.same]
        if not places:
            return None
        place = chance.choice(places)
        return text[: place.start()] + choose(place[0]) + text[place.end() :]


# -- questions as statements


def stated(question: str, answer: str) -> str | None:
    """ "Who wrote Faust?" and "Goethe": "Goethe wrote Faust." None for questions that do not begin with their subject.

    >>> stated("How many people live there?", "200"), stated("Where is it?", "there")
    ('200 people live there.', None)
    """
    question = question.strip()
    if not question.endswith("?") or not SUBJECT.match(question) or len(question.split()) < 4:
        return None
    rest = question[ASKED.match(question).end() : -1].strip()  # type: ignore[union-attr]
    if question.lower().startswith("which") and answer.lower() in rest.lower():
        return None
    answer = answer.strip().rstrip(".")
    return f"{answer[:1].upper()}{answer[1:]} {rest}."


def answered(source: Source, asked: Sequence[tuple[int, Question]], count: int, seed: int = 0) -> Iterator[Claim]:
    """Statements made of questions: with the right answer, and with that of another question about the passage."""
    chance = random.Random(seed)
    of_passage: dict[int, list[Question]] = defaultdict(list)
    for number, question in asked:
        of_passage[number].append(question)
    made = 0
    for number, question in chance.sample(list(asked), len(asked)):
        right = stated(question.text, question.answers[0])
        if right is None:
            continue
        hits = source.hits(number, question.text)
        yield Claim(source.name, "right answer", right, True, hits, question.text)
        others = [a for other in of_passage[number] for a in other.answers[:1] if _apart(a, question)]
        if others:
            wrong = stated(question.text, chance.choice(others))
            if wrong is not None:
                yield Claim(source.name, "wrong answer", wrong, False, hits, question.text)
        made += 1
        if made == count:
            return


def _apart(answer: str, question: Question) -> bool:
    """Whether an answer shares no word with the right ones, nor with the question."""
    words = set(re.findall(r"\w+", answer.lower()))
    own = {word for right in (*question.answers, question.text) for word in re.findall(r"\w+", right.lower())}
    return bool(words) and not words & (own - {"the", "a", "an", "of", "in", "and"})


# -- all of it


def claims(
    source: Source, count: int, thesaurus: Thesaurus, seed: int = 0, asked: Sequence[tuple[int, Question]] = ()
) -> Iterator[Claim]:
    """Copies of sentences, and each with one thing changed in every way that applies to it.

    With `asked` each stands beside a question about its passage, which it need not answer.
    """
    chance = random.Random(seed)
    of_passage: dict[int, list[str]] = defaultdict(list)
    for number, question in asked:
        of_passage[number].append(question.text)
    for copy in copies(source, count, seed):
        hits = source.hits(copy.number, copy.text)
        beside = chance.choice(of_passage[copy.number]) if copy.number in of_passage else ""
        yield Claim(source.name, "copy", copy.text, True, hits, beside)
        for kind, text in changed(source, copy, hits, chance):
            yield Claim(source.name, kind, text, False, hits, beside)
        for kind, true, made in (
            ("synonym", True, thesaurus.synonym(copy.text, chance)),
            ("other word", False, thesaurus.other(copy.text, chance)),
        ):
            if made is not None and made != copy.text:
                yield Claim(source.name, kind, made, true, hits, beside)
