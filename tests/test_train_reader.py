"""The training script, on a language of its own: the answer to "when late ?" is the letter after "late"."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_bert
import torch
from safetensors.torch import load_file

EXAMPLES = Path(__file__).parents[1] / "examples"
sys.path.insert(0, str(EXAMPLES))
import reader_data  # noqa: E402
import train_reader  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def squad(*paragraphs: tuple[str, list[dict[str, Any]]], title: str = "") -> dict[str, Any]:
    return {"title": title, "paragraphs": [{"context": context, "qas": qas} for context, qas in paragraphs]}


def asked(question: str, context: str, answer: str | None) -> dict[str, Any]:
    found = [] if answer is None else [{"text": answer, "answer_start": context.index(answer)}]
    return {"id": question, "question": question, "answers": found, "is_impossible": answer is None}


def save(path: Path, *articles: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"version": "2.0", "data": list(articles)}))
    return path


def language(path: Path, count: int, seed: int) -> Path:
    """Rows of letters, each once; two in three have a "late" before one of them."""
    random_ = random.Random(seed)
    articles = []
    for _ in range(count):
        letters = random_.sample("abcdefghijklmnopqrstuvwxyz", 6)
        place = random_.randrange(6) if random_.random() < 2 / 3 else None
        context = " ".join(f"late {letter}" if i == place else letter for i, letter in enumerate(letters))
        answer = None if place is None else letters[place]
        articles.append(squad((context, [{**asked("when late ?", context, None)}])))
        if answer:
            start = context.index(f"late {answer}") + len("late ")
            qa = articles[-1]["paragraphs"][0]["qas"][0]
            qa.update(answers=[{"text": answer, "answer_start": start}], is_impossible=False)
    return save(path, *articles)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> None:
    monkeypatch.setattr(sys, "argv", ["train_reader.py", *map(str, arguments)])
    train_reader.main()


def test_a_reader_learns_what_its_files_teach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, held_out = language(tmp_path / "train.json", 400, 1), language(tmp_path / "eval.json", 100, 2)
    options = ["--epochs", "12", "--rate", "0.005", "--batch-tokens", "512", "--max-tokens", "40", "--train-embeddings"]
    start = tiny_bert.reader(tmp_path)
    run(monkeypatch, "--start", start, "--data", data, "--eval", held_out, "--out", tmp_path / "out", *options)
    written = json.loads((tmp_path / "out" / "training.json").read_text())
    found = written["results"]["eval"]["eval.json"]
    assert found["EM"] >= 95
    assert found["balanced_accuracy"] >= 95
    assert written["settings"]["rate"] == 0.005
    assert not (tmp_path / "out" / "checkpoint.pt").exists()


def test_going_on_after_an_interruption_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = tiny_bert.reader(tmp_path)
    data = language(tmp_path / "train.json", 60, 1)
    options = ["--start", start, "--data", data, "--epochs", "3", "--batch-tokens", "256", "--max-tokens", "40"]
    run(monkeypatch, *options, "--out", tmp_path / "whole", "--save-minutes", "99")

    save_ = train_reader.save

    def interrupted(path: Path, model: Any, optimizer: Any, step: int, seconds: float) -> None:
        save_(path, model, optimizer, step, seconds)
        if step == 7:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(train_reader, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(patched, *options, "--out", tmp_path / "parts", "--save-minutes", "0")
    assert (tmp_path / "parts" / "checkpoint.pt").exists()
    run(monkeypatch, *options, "--out", tmp_path / "parts", "--save-minutes", "99")
    whole, parts = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parts"))
    assert whole == parts


def test_the_mean_of_the_weights_before_and_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = tiny_bert.reader(tmp_path)
    options = ["--data", language(tmp_path / "train.json", 30, 1), "--batch-tokens", "256", "--max-tokens", "40"]
    run(monkeypatch, "--start", start, *options, "--out", tmp_path / "after")
    run(monkeypatch, "--start", start, *options, "--out", tmp_path / "mean", "--average")
    before, after, mean = (
        load_file(path / "model.safetensors") for path in (start, tmp_path / "after", tmp_path / "mean")
    )
    assert not all(torch.equal(before[name], after[name]) for name in before)
    for name, value in mean.items():
        torch.testing.assert_close(value, (before[name] + after[name]) / 2)


def test_a_wrong_text_is_another_paragraph_without_the_answer(tmp_path: Path) -> None:
    asked_about = "the fee is two cents"
    path = save(
        tmp_path / "data.json",
        squad(
            (asked_about, [asked("what is the fee?", asked_about, "two cents")]),
            ("another fee is two cents as well", []),
            ("the fee for a lost book is ten", []),
        ),
        squad(("what is a fee, what is the fee", [])),
    )
    source = train_reader.read_source(str(path))
    train_reader.find_near(source)
    made = {e for n in range(40) for e in map(lambda e: (e.question, e.text, len(e.spans)),
            train_reader.wrong_text(source, 0, random.Random(n)))}  # fmt: skip
    assert made == {
        ("what is the fee?", "the fee for a lost book is ten", 0),
        ("what is the fee?", "what is a fee, what is the fee", 0),
    }


def test_weights_say_how_often_a_question_is_taken(tmp_path: Path) -> None:
    path = language(tmp_path / "data.json", 100, 3)
    source = train_reader.read_source(f"{path}:2")
    assert len(train_reader.epoch([source], 0.0, random.Random(0))) == 200
    quarter = train_reader.read_source(f"{path}:0.25")
    taken = [len(train_reader.epoch([quarter], 0.0, random.Random(n))) for n in range(40)]
    assert 20 < sum(taken) / 40 < 30


def test_an_answer_that_does_not_stand_where_the_file_says_is_looked_for(tmp_path: Path) -> None:
    qa = {"id": "1", "question": "when?", "answers": [{"text": "late", "answer_start": 0}], "is_impossible": False}
    gone = {"id": "2", "question": "what?", "answers": [{"text": "early", "answer_start": 0}], "is_impossible": False}
    source = train_reader.read_source(str(save(tmp_path / "data.json", squad(("a late fee", [qa, gone])))))
    assert [(q.text, q.spans) for q in source.questions] == [("when?", [(2, 6)])]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"There is no file .*nothing\.json"):
        train_reader.read_source(str(tmp_path / "nothing.json"))


def test_balanced_accuracy_is_that_of_the_best_threshold() -> None:
    import numpy as np

    # Above 2.5: one of two answerable kept, both others refused: (1/2 + 1) / 2; above 0.5: (1 + 1/2) / 2.
    scores, answerable = np.array([3.0, 2.0, 1.0, 0.0]), np.array([True, False, True, False])
    assert train_reader.balanced_accuracy(scores, answerable) == 0.75


def test_articles_are_kept_apart_by_title() -> None:
    titles = [f"t{n:02d}" for n in range(36)]
    measuring, calibrating = reader_data.split(titles)
    assert (len(measuring), len(calibrating)) == (9, 3)
    assert not measuring & calibrating
    assert reader_data.split(titles[::-1]) == (measuring, calibrating)


@pytest.mark.parametrize(
    ("question", "context", "made"),
    [
        ("Who was born before 1900?", "He came after all; she was born before 1900.", {"Who was born before 1901?"}),
        ("What is the largest city?", "The largest city.", {"What is the smallest city?"}),
        ("Where did Ada Byron live?", "Ada Byron lived here.", {"Where did Mary Shelley live?"}),
        ("Where did they live?", "They lived here.", {None}),
    ],
)
def test_a_changed_question_is_one_its_paragraph_does_not_answer(
    question: str, context: str, made: set[str | None]
) -> None:
    found = {reader_data.change(question, context, ["Mary Shelley"], random.Random(n)) for n in range(30)}
    if question.endswith("1900?"):  # the last digit may become any other
        assert found <= {f"Who was born before 190{d}?" for d in range(1, 10)}
        assert len(found) > 3
    else:
        assert found == made


def test_the_shipped_reader_is_what_its_training_left() -> None:
    """The compiled reader and its weights find the same spans, with nearly the same scores."""
    from semsearch.extraction import OnnxReader, Windows, spans_of_window

    model, tokenizer = train_reader.load_model("shipped")
    windows = Windows(tokenizer.backend_tokenizer, window=384)
    question, text = "When are late fees charged?", "Books are lent for four weeks. Late fees are charged after day 3."
    (window,) = windows.cut(question, [text])
    inputs = train_reader.tensors([train_reader.Encoded(window, 0, 0)], tokenizer, train_reader.torch.device("cpu"))
    with train_reader.torch.no_grad():
        output = model.eval()(**inputs)
    ours = spans_of_window(window, (output.start_logits[0].numpy(), output.end_logits[0].numpy()), text)
    shipped = OnnxReader().read(question, [text])
    assert text[shipped[0].start : shipped[0].end] == text[ours[0].start : ours[0].end]
    assert shipped[0].score == pytest.approx(ours[0].score, abs=1.0)


# -- a teacher


def cut_alike(text: str, *offsets: tuple[int, int]) -> train_reader.Window:
    """A window of a text whose tokens are at these offsets, behind a first token and two of a question."""
    places = np.array([(-1, -1)] * 3 + list(offsets) + [(-1, -1)])
    return train_reader.Window(0, np.arange(len(places)), np.zeros(len(places), dtype=np.int64), places)


def test_a_teachers_probabilities_are_carried_over_by_character() -> None:
    """Tokens "under stand" and "ing" become "under", "stand", "ing"; the own window begins at character 10."""
    theirs = cut_alike("understanding", (0, 10), (10, 13))
    own = cut_alike("", (10, 15), (15, 20), (20, 23))
    logits = np.array([np.log(0.2), 9.0, 9.0, np.log(0.5), np.log(0.3), 9.0])
    starts = train_reader.carried_over(logits, theirs, own, side=0)
    ends = train_reader.carried_over(logits, theirs, own, side=1)
    assert starts == pytest.approx([0.2, 0, 0, 0.5, 0, 0.3, 0], abs=1e-3)
    assert ends == pytest.approx([0.2, 0, 0, 0, 0.5, 0.3, 0], abs=1e-3)


def test_the_loss_with_a_teacher_is_a_mean_of_two_cross_entropies() -> None:
    """By hand: logits 0 everywhere; the answer costs log 6 (all tokens), the teacher log 3 (those of the text)."""

    class Even(torch.nn.Module):
        def forward(self, input_ids: torch.Tensor, **_: torch.Tensor) -> Any:
            zeros = torch.zeros(input_ids.shape)
            return type("Output", (), {"start_logits": zeros, "end_logits": zeros})

    window = cut_alike("ab", (0, 1), (1, 2))
    inputs = {"input_ids": torch.zeros(1, 6, dtype=torch.long), "attention_mask": torch.ones(1, 6)}
    taught = torch.zeros(2, 1, 6)
    taught[:, 0, 3] = 1
    batch = [train_reader.Encoded(window, 3, 3)]
    assert train_reader.loss_of(Even(), batch, inputs).item() == pytest.approx(np.log(6), rel=1e-6)
    share, t = train_reader.TAUGHT, train_reader.TEMPERATURE
    expected = (1 - share) * np.log(6) + share * t**2 * np.log(3)
    assert train_reader.loss_of(Even(), batch, inputs, taught).item() == pytest.approx(expected, rel=1e-6)


def test_a_reader_learns_from_a_teacher_what_its_files_do_not_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files say of half of the answers that there is none; the teacher, which learned from right ones, knows."""
    data, held_out = language(tmp_path / "train.json", 400, 1), language(tmp_path / "eval.json", 100, 2)
    options = ["--epochs", "12", "--rate", "0.005", "--batch-tokens", "512", "--max-tokens", "40", "--train-embeddings"]
    start = tiny_bert.reader(tmp_path)
    run(monkeypatch, "--start", start, "--data", data, "--out", tmp_path / "teacher", *options)
    told = json.loads(data.read_text())
    for article in told["data"][::2]:
        article["paragraphs"][0]["qas"][0].update(answers=[], is_impossible=True)
    wrong = save(tmp_path / "wrong.json", *told["data"])
    found = []
    for name, more in (("alone", []), ("taught", ["--teacher", tmp_path / "teacher"])):
        arguments = ["--start", start, "--data", wrong, "--eval", held_out, "--out", tmp_path / name, *options, *more]
        run(monkeypatch, *arguments)
        written = json.loads((tmp_path / name / "training.json").read_text())
        found.append(written["results"]["eval"]["eval.json"]["EM"])
    alone, taught = found
    assert taught > alone + 5


def test_what_two_teachers_agree_on_is_the_geometric_mean_by_weight(tmp_path: Path) -> None:
    device = torch.device("cpu")
    example = train_reader.Example("when late ?", "a late b c", [(7, 8)])
    folders = [str(tiny_bert.reader(tmp_path / name, seed=seed)) for seed, name in enumerate(("one", "two"))]
    cutter = train_reader.Reader(folders[0], 20, device).windows
    batch = [train_reader.encode(example, cutter, random.Random(0))]
    one, two = (train_reader.Teacher([folder], 20, device).probabilities(batch, 1.0)[0] for folder in folders)
    both = train_reader.Teacher([folders[0] + ":3", folders[1]], 20, device).probabilities(batch, 1.0)[0]
    assert np.abs(one - two).max() > 0.01
    expected = one**0.75 * two**0.25
    assert both == pytest.approx(expected / expected.sum(axis=1, keepdims=True), abs=1e-4)


def test_layers_that_are_frozen_stay_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = tiny_bert.reader(tmp_path)
    data = language(tmp_path / "train.json", 30, 1)
    options = ["--start", start, "--data", data, "--batch-tokens", "256", "--max-tokens", "40"]
    layers = 1 + max(int(n.split(".")[3]) for n in load_file(start / "model.safetensors") if ".layer." in n)
    with pytest.raises(SystemExit, match="leaves no layer"):
        run(monkeypatch, *options, "--out", tmp_path / "none", "--freeze-layers", str(layers))
    run(monkeypatch, *options, "--out", tmp_path / "out", "--freeze-layers", str(layers - 1))
    before, after = (load_file(path / "model.safetensors") for path in (start, tmp_path / "out"))
    frozen = {name for name in before if torch.equal(before[name], after[name])}
    top = f"layer.{layers - 1}."
    assert not any(top in name for name in frozen)
    assert all(name in frozen for name in before if ".layer." in name and top not in name)


def test_a_pseudo_label_is_the_span_that_is_sure_within_the_sentence() -> None:
    """By hand: of what is not "no answer" the start has .8 and the end .8, together .64; then .5 and .5, too little."""
    window = cut_alike("ab cd", (0, 2), (3, 5))
    sure = np.array([[0.5, 0, 0, 0.4, 0.1, 0], [0.5, 0, 0, 0.1, 0.4, 0]])
    assert reader_data.sure_span(window, sure, "ab cd") == (0, 5)
    unsure = np.array([[0.5, 0, 0, 0.25, 0.25, 0], [0.5, 0, 0, 0.25, 0.25, 0]])
    assert reader_data.sure_span(window, unsure, "ab cd") is None
