"""Judged questions for measuring: BEIR folders, SQuAD files, JSON lines and lists.

dataset = read_dataset("data/scifact")
index.add(dataset.documents())
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from semsearch.errors import InputError
from semsearch.records import Document

__all__ = ["Dataset", "Question", "read_beir", "read_dataset", "read_questions", "read_squad"]


@dataclass(frozen=True, slots=True)
class Question:
    """A question with what is known about its answer.

    `documents` maps the ids of judged documents to grades (0: not relevant, higher is better). `answers` are the
    accepted answers, () if the documents hold none, and None if nothing is known. `context` is the text that the
    question was written about, for answerers that read without searching. `ambiguous` says that `documents` and
    `answers` are the same strings, of which the index tells whether they are ids of its documents or answers.
    """

    id: str
    text: str
    documents: Mapping[str, int] = field(default_factory=dict)
    answers: tuple[str, ...] | None = None
    context: str = field(default="", repr=False)
    ambiguous: bool = False


@dataclass(frozen=True, slots=True)
class Dataset:
    """Judged questions and, where the dataset brings them, the documents that they are put to."""

    name: str
    questions: tuple[Question, ...] = field(repr=False)
    corpus: Callable[[], Iterator[Document]] | None = field(default=None, repr=False)

    def documents(self) -> Iterator[Document]:
        """The documents, read one at a time: `index.add(dataset.documents())`."""
        if self.corpus is None:
            raise InputError(f"The dataset {self.name!r} has questions only, no documents.")
        return self.corpus()

    def asked(self) -> Dataset:
        """The dataset without empty questions, which cannot be asked."""
        kept = tuple(question for question in self.questions if question.text.strip())
        return self if len(kept) == len(self.questions) else replace(self, questions=kept)

    def sample(self, count: int, *, seed: int = 0) -> Dataset:
        """`count` random questions in their order, the same for the same seed; all of them if there are fewer."""
        if count < 1:
            raise InputError(f"A sample has at least 1 question, not {count}.")
        if count >= len(self.questions):
            return self
        chosen = np.sort(np.random.default_rng(seed).choice(len(self.questions), size=count, replace=False))
        return replace(self, questions=tuple(self.questions[i] for i in chosen))


def read_dataset(source: object) -> Dataset:
    """Whatever a user has, as a Dataset.

    `source` is a `Dataset`, the path of a BEIR folder (`read_beir`), of a SQuAD file (`read_squad`: .json, .json.gz),
    of a file of questions (`read_questions`: .jsonl, .jsonl.gz), or an iterable of

    - `(question, expected)`: the id of a document, an answer, a list of either, or None where there is no answer. A
      string that is the id of a document in the index means that document, any other is an answer;
    - mappings with `question` and, of `document`/`documents` and `answer`/`answers`, what is known: never ambiguous.
      With `id`, the question is called so; without, by its place in the list (1, 2, …), or by the next number after
      the last place where another question has that for its id.

    Raises InputError that names the file, line or item that cannot be used.
    """
    if isinstance(source, Dataset):
        return source
    if isinstance(source, (str, PathLike)):
        path = Path(source).expanduser()
        if path.is_dir():
            return read_beir(path)
        if not path.exists():
            raise InputError(f"There is no dataset at {str(path)!r}: neither a folder nor a file of that name.")
        jsonl = path.name.lower().removesuffix(".gz").endswith(".jsonl")
        return read_questions(path) if jsonl else read_squad(path)
    if not isinstance(source, Iterable) or isinstance(source, (bytes, Mapping)):
        raise InputError(
            f"A dataset is a path or a list of (question, expected document or answer), not {type(source).__name__}."
        )
    return Dataset("questions", _questions((f"item {n}", item) for n, item in enumerate(source, 1)))


def read_beir(folder: str | PathLike[str], *, split: str | None = None) -> Dataset:
    """A folder in the layout of BEIR (Thakur et al. 2021), each file also gzip'd.

        corpus.jsonl    {"id" or "_id", "title", "text"}; read only when `documents()` is asked for
        queries.jsonl   {"id" or "_id", "text"}, and "answers" (list) if known
        qrels.tsv       query id, document id, grade; or qrels/test.tsv and others, chosen by `split` ("test" if there)

    Raises InputError that names the folder, file or line.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise InputError(
            f"There is no folder {str(root)!r}. A BEIR folder has corpus.jsonl, queries.jsonl and qrels.tsv."
        )
    judged: dict[str, dict[str, int]] = {}
    for query, document, grade in _qrels(_qrels_file(root, split)):
        judged.setdefault(query, {})[document] = grade
    questions = []
    for where, row in _json_lines(_file(root, "queries.jsonl")):
        id, answers = _text(row, ("id", "_id"), where), row.get("answers")
        found = None if answers is None else _strings(answers, f"{where}: answers")
        questions.append(Question(id, _text(row, ("text",), where), judged.get(id, {}), found))

    def corpus() -> Iterator[Document]:
        for where, row in _json_lines(_file(root, "corpus.jsonl")):
            yield Document(_text(row, ("id", "_id"), where), _text(row, ("text",), where), str(row.get("title") or ""))

    return Dataset(root.resolve().name, tuple(questions), corpus)


def read_squad(path: str | PathLike[str]) -> Dataset:
    """A file in the layout of SQuAD 1.1 or 2.0 (.json or .json.gz). Every paragraph is a document.

    Its id is the paragraph's own `id` if there is one, otherwise the article's title and the paragraph's number in it:
    "Oxygen/3". A question without answers counts as one that the documents do not answer.
    """
    file = Path(path).expanduser()
    content = _json(_read(file), str(file))
    try:
        documents, questions = _squad(content["data"])
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{file} is not a SQuAD file: {type(error).__name__} {error}. "
            'It has {"data": [{"title", "paragraphs": [{"context", "qas": [{"id", "question", "answers"}]}]}]}.'
        ) from None
    return Dataset(file.name.split(".")[0], tuple(questions), lambda: iter(documents))


def read_questions(path: str | PathLike[str]) -> Dataset:
    """JSON lines (.jsonl, .jsonl.gz), one question each: {"question", "document"(s), "answer"(s)}.

    `"answer": null` says that the documents hold no answer.
    """
    file = Path(path).expanduser()
    return Dataset(file.name.split(".")[0], _questions(_json_lines(file)))


def _squad(articles: Iterable[Mapping[str, Any]]) -> tuple[list[Document], list[Question]]:
    documents, questions = [], []
    paragraphs: Counter[str] = Counter()
    for article in articles:
        title = str(article.get("title", ""))
        for paragraph in article["paragraphs"]:
            paragraphs[title] += 1
            id = str(paragraph.get("id") or f"{title}/{paragraphs[title]}")
            document = Document(id, paragraph["context"], title)
            documents.append(document)
            for qa in paragraph["qas"]:
                if not isinstance(qa["question"], str):
                    raise TypeError(f"question {qa['question']!r}")
                accepted = () if qa.get("is_impossible") else tuple(answer["text"] for answer in qa["answers"])
                answers = tuple(dict.fromkeys(accepted))
                questions.append(Question(str(qa["id"]), qa["question"], {document.id: 1}, answers, document.text))
    return documents, questions


def _questions(rows: Iterable[tuple[str, Any]]) -> tuple[Question, ...]:
    """The question of each (where, item); what has no id of its own gets one that no other has."""
    items = list(rows)
    own = {str(item["id"]) for _, item in items if isinstance(item, Mapping) and item.get("id") is not None}
    free = (str(n) for n in count(len(items) + 1) if str(n) not in own)
    ids = (next(free) if str(n) in own else str(n) for n in range(1, len(items) + 1))
    return tuple(_question(item, where, id) for (where, item), id in zip(items, ids, strict=True))


def _question(item: Any, where: str, id: str) -> Question:
    """The question of an item of a list; `id` if it has none of its own."""
    if isinstance(item, Mapping):
        if not set(item) & {"document", "documents", "answer", "answers"}:
            raise InputError(f"{where}: no document(s) and no answer(s) among the keys {sorted(map(str, item))}.")
        text = _text(item, ("question",), where)
        documents = _either(item, "document", where) or ()
        own = id if item.get("id") is None else str(item["id"])
        return Question(own, text, dict.fromkeys(documents, 1), _either(item, "answer", where))
    if (
        not isinstance(item, Sequence)
        or isinstance(item, (str, bytes))
        or len(item) != 2
        or not isinstance(item[0], str)
    ):
        raise InputError(f"{where}: expected (question, document id or answer or None), got {item!r}.")
    expected = dict.fromkeys(() if item[1] is None else _strings(item[1], where), 1)
    # A bare string may be either; which of them is decided when the index is known (_resolve).
    return Question(id, item[0], expected, tuple(expected), ambiguous=bool(expected))


def _either(item: Mapping[str, Any], key: str, where: str) -> tuple[str, ...] | None:
    """The strings under `key` or its plural; () for a null, None if neither key is there."""
    for name in (key, key + "s"):
        if name in item:
            return () if item[name] is None else _strings(item[name], f"{where}: {name}")
    return None


def _strings(value: object, where: str) -> tuple[str, ...]:
    values = (value,) if isinstance(value, str) else value
    if not isinstance(values, (list, tuple)) or not all(isinstance(v, str) for v in values):
        raise InputError(f"{where}: expected a string or a list of strings, got {value!r}.")
    return tuple(values)


def _text(row: Mapping[str, Any], keys: Sequence[str], where: str) -> str:
    for key in keys:
        if isinstance(row.get(key), str):
            return str(row[key])
    raise InputError(f"{where}: expected a string under {' or '.join(map(repr, keys))}, got {row.get(keys[0])!r}.")


def _file(root: Path, name: str) -> Path:
    for path in (root / name, root / f"{name}.gz"):
        if path.is_file():
            return path
    raise InputError(f"The folder {str(root)!r} has neither {name} nor {name}.gz, which a BEIR folder needs.")


def _qrels_file(root: Path, split: str | None) -> Path:
    folder = root / "qrels"
    if not folder.is_dir():
        return _file(root, "qrels.tsv")
    splits = {path.name.split(".")[0]: path for path in sorted(folder.iterdir()) if ".tsv" in path.suffixes}
    chosen = split or ("test" if "test" in splits else "".join(splits) if len(splits) == 1 else "")
    if chosen not in splits:
        raise InputError(f"{str(folder)!r} has no {chosen or 'test'}.tsv. Choose split= among {sorted(splits)}.")
    return splits[chosen]


def _qrels(path: Path) -> Iterator[tuple[str, str, int]]:
    for number, line in enumerate(_read(path).split("\n"), 1):
        cells = line.rstrip("\r").split("\t")
        if cells == [""] or (number == 1 and cells[-1] == "score"):
            continue
        try:
            query, document, grade = cells
            yield query, document, int(grade)
        except ValueError:
            raise InputError(
                f"{path}, line {number}: expected query id, document id and whole number between tabs, got {line!r}."
            ) from None


def _json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, row) for each line; `where` is for messages."""
    try:
        with _open(path) as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    where = f"{path}, line {number}"
                    row = _json(line, where)
                    if not isinstance(row, dict):
                        raise InputError(f"{where}: expected a JSON object, got {line[:80]!r}.")
                    yield where, row
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}.") from error


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InputError(f"{where}: not JSON: {error}.") from None


def _open(path: Path) -> Any:
    return (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8")


def _read(path: Path) -> str:
    try:
        with _open(path) as file:
            return str(file.read())
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}.") from error
