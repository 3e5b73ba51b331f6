"""Makes the files that the shipped reader is trained, calibrated and measured on.

    python examples/reader_data.py WORK                            # before the first step
    python examples/reader_data.py WORK --label WORK/first         # after it: pseudo-labels for the second

Reads --data and writes SQuAD-style files into WORK. The articles of SQuAD are kept apart by title, the same for both
versions: in alphabetical order, every fourth is for measuring (9 articles) and three more are for calibrating; nothing
of them is in a file for training. No question is made from a passage of openqa that is not in a training article.

| file | |
|---|---|
| test-1.1.json, test-2.0.json | for measuring only |
| calibrate-1.1.json, calibrate-2.0.json | for calibrating only |
| squad-1.1.json, squad-2.0.json | the other 24 articles |
| squad-none.json | of squad-2.0 the questions without an answer alone |
| changed.json | questions of squad-1.1 made unanswerable: a name, number or word of the question is exchanged |
| qamr.json, fairytaleqa.json, policyqa.json, covid.json, subjqa.json | train-extractive-en by source |
| nqg.json | questions of squad-nqg-sentences, answered within the right sentence by the readers of --label |
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from semsearch.datasets import Dataset, Question, read_dataset
from semsearch.extraction import Window, best_spans, trim

ROOT = Path(__file__).resolve().parent.parent
SURE = 0.4  # the least probability of a pseudo-label
TOGETHER = 64  # sentences that are read at once
OPPOSITES = """
    first/last, before/after, most/least, largest/smallest, larger/smaller, highest/lowest, higher/lower,
    more/fewer, increase/decrease, increased/decreased, north/south, northern/southern, east/west, eastern/western,
    early/late, earliest/latest, always/never, oldest/youngest, older/younger, begin/end, began/ended, start/finish,
    started/finished, won/lost, win/lose, male/female, men/women, legal/illegal, public/private,
    possible/impossible, allowed/forbidden, strong/weak, long/short, longest/shortest, high/low, major/minor,
    large/small, best/worst, better/worse, maximum/minimum, positive/negative, support/oppose, supported/opposed,
    accept/reject, accepted/rejected, inside/outside, above/below, import/export, buy/sell, bought/sold, left/right,
    upper/lower, modern/ancient, rich/poor, common/rare, include/exclude, included/excluded, opened/closed,
    rise/fall, hot/cold, new/old, same/different, true/false, internal/external, successful/unsuccessful
"""
OPPOSITE = {
    word: other
    for pair in OPPOSITES.split(",")
    for word, other in (pair.strip().split("/"), reversed(pair.strip().split("/")))
}
NAME = re.compile(r"(?:[A-Z][\w'-]+(?: (?:of|the|and|de) )?(?: )?)*[A-Z][\w'-]+")
NUMBER = re.compile(r"\b\d[\d,.]*\d\b|\b\d\b")


def split(titles: list[str]) -> tuple[set[str], set[str]]:
    """The titles for measuring and for calibrating."""
    ordered = sorted(titles)
    return set(ordered[::4]), set(ordered[2::12])


def plain(title: str) -> str:
    """A title as it can be compared: openqa writes spaces where SQuAD has underlines."""
    return title.replace("_", " ").casefold()


def unread(data: Path, dataset: Dataset, questions: Sequence[Question]) -> list[int]:
    """Which of a set's questions are about texts that the shipped reader was not trained on: all, but for openqa."""
    if dataset.name != "openqa":
        return list(range(len(questions)))
    squad = read_dataset(data / "squad-v1.1-dev-open" / "squad.json.gz")
    kept_apart, _ = split(list({document.title for document in squad.documents()}))
    return about(dataset, questions, {plain(title) for title in kept_apart})


def about(dataset: Dataset, questions: Sequence[Question], titles: set[str]) -> list[int]:
    """Which of the questions are about documents with these titles, which are as `plain` writes them."""
    own = {document.id for document in dataset.documents() if plain(document.title) in titles}
    return [number for number, question in enumerate(questions) if not own.isdisjoint(question.documents)]


def read(data: Path, name: str) -> list[dict[str, Any]]:
    path = data / name / "squad.json.gz"
    if not path.is_file():
        raise SystemExit(f"There is no file {path}. Give the folder of the data: --data DIR")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return json.load(file)["data"]


def write(path: Path, articles: list[dict[str, Any]]) -> None:
    path.write_text(json.dumps({"version": "2.0", "data": articles}), encoding="utf-8")
    questions = [qa for a in articles for p in a["paragraphs"] for qa in p["qas"]]
    print(
        f"{path.name}: {len(articles)} articles, {len(questions)} questions, "
        f"{sum(bool(qa['answers']) for qa in questions)} answerable"
    )


# -- questions that their paragraph does not answer


def changed(articles: list[dict[str, Any]], random_: random.Random) -> list[dict[str, Any]]:
    """Each question at most once, with one word or name exchanged so that its paragraph no longer answers it."""
    made = []
    for article in articles:
        names = sorted({n for p in article["paragraphs"] for n in names_of(p["context"])})
        paragraphs = []
        for paragraph in article["paragraphs"]:
            foreign = [n for n in names if n not in paragraph["context"]]
            qas = []
            for qa in paragraph["qas"]:
                if question := change(qa["question"], paragraph["context"], foreign, random_):
                    id = qa["id"] + "-changed"
                    qas.append({"id": id, "question": question, "answers": [], "is_impossible": True})
            paragraphs.append({"context": paragraph["context"], "qas": qas})
        made.append({"title": article["title"], "paragraphs": paragraphs})
    return made


def unanswerable(articles: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        article
        | {
            "paragraphs": [
                paragraph | {"qas": [qa for qa in paragraph["qas"] if not qa["answers"]]}
                for paragraph in article["paragraphs"]
            ]
        }
        for article in articles
    ]


def names_of(text: str) -> list[str]:
    return [m.group() for m in NAME.finditer(text) if m.start() > 1 and text[m.start() - 2] not in ".!?\n"]


def change(question: str, context: str, foreign: list[str], random_: random.Random) -> str | None:
    ways = [change_word, change_name, change_number]
    random_.shuffle(ways)
    for way in ways:
        if made := way(question, context, foreign, random_):
            return made
    return None


def change_word(question: str, context: str, foreign: list[str], random_: random.Random) -> str | None:
    words = question.split(" ")
    places = [i for i, word in enumerate(words) if word.strip("?,").lower() in OPPOSITE]
    if not places:
        return None
    i = random_.choice(places)
    bare = words[i].strip("?,")
    other = OPPOSITE[bare.lower()]
    if re.search(rf"\b{other}\b", context, re.IGNORECASE):
        return None
    words[i] = words[i].replace(bare, other)
    return " ".join(words)


def change_name(question: str, context: str, foreign: list[str], random_: random.Random) -> str | None:
    inside = [m for m in NAME.finditer(question) if m.start() > 0 and m.group() in context]
    if not inside or not foreign:
        return None
    match = random_.choice(inside)
    like = [n for n in foreign if abs(len(n.split()) - len(match.group().split())) <= 1] or foreign
    return question[: match.start()] + random_.choice(like) + question[match.end() :]


def change_number(question: str, context: str, foreign: list[str], random_: random.Random) -> str | None:
    inside = [m for m in NUMBER.finditer(question) if m.group() in context]
    if not inside:
        return None
    match = random_.choice(inside)
    digits = list(match.group())
    for i in range(len(digits) - 1, -1, -1):
        if digits[i].isdigit():
            digits[i] = random_.choice([d for d in "123456789" if d != digits[i]])
            break
    new = "".join(digits)
    return None if new in context else question[: match.start()] + new + question[match.end() :]


# -- pseudo-labels


def label(data: Path, readers: list[str], random_: random.Random) -> list[dict[str, Any]]:
    """Windows of neighbouring sentences with the questions whose answer the readers find in the right sentence."""
    sentences = {row["id"]: row["text"].strip() for row in rows(data / "squad-nqg-sentences" / "corpus.jsonl.gz")}
    questions = {row["id"]: row["text"] for row in rows(data / "squad-nqg-sentences" / "queries.jsonl.gz")}
    pairs = []
    qrels = (data / "squad-nqg-sentences" / "qrels.tsv").read_text(encoding="utf-8")
    for line in qrels.splitlines()[1:]:
        question, sentence, _ = line.split("\t")
        pairs.append((questions[question], sentence))
    order = list(sentences)
    place = {id: i for i, id in enumerate(order)}
    answers = dict(zip(pairs, answer_all(readers, [(q, sentences[s]) for q, s in pairs]), strict=True))
    by_sentence = defaultdict(list)
    for (question, sentence), span in answers.items():
        if span:
            by_sentence[sentence].append((question, span))
    articles = []
    for sentence, asked in by_sentence.items():
        i = place[sentence]
        before, after = random_.randrange(0, 4), random_.randrange(0, 4)
        around = [sentences[id] for id in order[max(0, i - before) : i + after + 1]]
        start = sum(len(text) + 1 for text in around[: min(before, i)])
        context = " ".join(around)
        qas = [
            {
                "id": f"{sentence}-{n}",
                "question": question,
                "answers": [{"text": context[start + a : start + b], "answer_start": start + a}],
            }
            for n, (question, (a, b)) in enumerate(asked)
        ]
        # Twenty neighbouring windows pass for an article: where wrong texts for their questions come from.
        if len(articles) == 0 or len(articles[-1]["paragraphs"]) == 20:
            articles.append({"title": "", "paragraphs": []})
        articles[-1]["paragraphs"].append({"context": context, "qas": qas})
    return articles


def rows(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def answer_all(folders: list[str], pairs: list[tuple[str, str]]) -> list[tuple[int, int] | None]:
    """For each question and sentence the most probable span, or None where the readers together are not sure."""
    from train_reader import Example, Teacher, best_device, pack  # torch, which those who only read data do without

    teacher = Teacher(folders, 256, best_device())
    cut = teacher.windows.cut
    made = [pack(Example(question, text, []), cut(question, [text])[0], 0, 0) for question, text in pairs]
    order = sorted(range(len(made)), key=lambda i: len(made[i].window.ids))
    found: list[tuple[int, int] | None] = [None] * len(pairs)
    for first in range(0, len(order), TOGETHER):
        numbers = order[first : first + TOGETHER]
        for number, sides in zip(numbers, teacher.probabilities([made[i] for i in numbers], 1.0), strict=True):
            found[number] = sure_span(made[number].window, sides, pairs[number][1])
    return found


def sure_span(window: Window, sides: np.ndarray, sentence: str) -> tuple[int, int] | None:
    """The most probable span within the sentence, if it is at least as probable as SURE."""
    inside = window.offsets[:, 0] >= 0
    scores = np.full(sides.shape, -np.inf)
    scores[:, inside] = np.log(sides[:, inside] / sides[:, inside].sum(axis=1, keepdims=True))
    spans = best_spans(*scores, max_tokens=20, count=1)
    if not spans or spans[0][2] < np.log(SURE):
        return None
    i, j, _ = spans[0]
    a, b = trim(sentence, int(window.offsets[i, 0]), int(window.offsets[j, 1]))
    return (a, b) if b > a else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--label", nargs="+", metavar="READER[:WEIGHT]", help="make nqg.json, nothing else")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    if args.label:
        write(args.work / "nqg.json", label(args.data, args.label, random.Random(0)))
        return
    for version in ("1.1", "2.0"):
        articles = read(args.data, f"squad-v{version}-dev-open")
        test, calibrate = split([a["title"] for a in read(args.data, "squad-v1.1-dev-open")])
        write(args.work / f"test-{version}.json", [a for a in articles if a["title"] in test])
        write(args.work / f"calibrate-{version}.json", [a for a in articles if a["title"] in calibrate])
        train = [a for a in articles if a["title"] not in test | calibrate]
        write(args.work / f"squad-{version}.json", train)
        if version == "1.1":
            write(args.work / "changed.json", changed(train, random.Random(0)))
        else:
            write(args.work / "squad-none.json", unanswerable(train))
    sources = defaultdict(list)
    for article in read(args.data, "train-extractive-en"):
        by_source = defaultdict(list)
        for paragraph in article["paragraphs"]:
            name = re.split(r"[.-]", paragraph["qas"][0]["id"])[0]
            by_source[name].append(paragraph)
        for name, paragraphs in by_source.items():
            sources[name].append({"title": article["title"], "paragraphs": paragraphs})
    for name, articles in sources.items():
        write(args.work / f"{name}.json", articles)


if __name__ == "__main__":
    main()
