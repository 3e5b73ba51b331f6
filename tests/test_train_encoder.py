"""The script that adapts an encoder: questions from documents by hand, and a language that a tiny model learns."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import pytest
import tiny_bert

EXAMPLES = Path(__file__).parents[1] / "examples"
sys.path.insert(0, str(EXAMPLES))
import train_encoder  # noqa: E402
from train_encoder import Pair, Piece  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def test_questions_are_made_of_titles_headings_questions_and_sentences() -> None:
    text = (
        "## How late fees work\n\nWhen is a late fee charged here? On the fourth day. A fee is charged for every book."
    )
    pieces = [
        Piece("a", "The library handbook of 2026", "Fees > How late fees work", text),
        Piece("a", "The library handbook of 2026", "Fees > How late fees work", "More about the fees of books."),
    ]
    body = text.partition("\n\n")[2]
    made = list(train_encoder.pairs_of(pieces, random.Random(0)))
    assert made[0] == Pair("The library handbook of 2026", text, "a")
    assert made[1] == Pair("How late fees work", body, "a")  # its own line is taken out
    assert made[2] == Pair(
        "When is a late fee charged here?", "On the fourth day. A fee is charged for every book.", "a"
    )
    taken, next_to = made[3:]
    assert taken.question in text
    assert taken.question not in taken.text
    assert next_to == Pair(taken.question, "More about the fees of books.", "a")


def test_hard_negatives_are_of_other_documents_and_near() -> None:
    pieces = [Piece(str(n), "", "", f"late fee number {n}" if n < 20 else "nothing of it") for n in range(40)]
    pairs = [Pair("late fee", "late fee number 3", "3")] * 20
    negatives = train_encoder.hard_negatives(pairs, pieces, "english", 0)
    assert set(negatives) <= {f"late fee number {n}" for n in range(20) if n != 3}
    assert len(set(negatives)) > 5


def test_no_batch_has_two_texts_of_one_document() -> None:
    pairs = [Pair(str(n), str(n), str(n % 5)) for n in range(23)]
    batches = list(train_encoder.batches(pairs, 4, random.Random(0)))
    assert all(len({pairs[place].document for place in batch}) == len(batch) > 1 for batch in batches)
    places = [place for batch in batches for place in batch]
    assert len(places) == len(set(places)) >= 20


def test_weights_are_mixed() -> None:
    import torch

    model = torch.nn.Linear(1, 1)
    before = {name: torch.full_like(value, 1.0) for name, value in model.state_dict().items()}
    with torch.no_grad():
        for value in model.parameters():
            value.fill_(3.0)
    train_encoder.mix(model, before, 0.25)
    assert [value.item() for value in model.state_dict().values()] == [1.5, 1.5]


def test_an_encoder_learns_the_language_of_its_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # In each document a letter stands for the next one of the alphabet: "a a a" is about b.
    chance = random.Random(0)
    letters = "abcdefghijklmnopqrst"
    folder = tmp_path / "corpus"
    folder.mkdir()
    rows = []
    for n in range(120):
        one, two = chance.sample(range(len(letters) - 1), 2)
        title = " ".join([letters[one], letters[two]] * 2)
        text = " ".join([letters[one + 1], letters[two + 1]] * 4) + " ."
        rows.append({"id": str(n), "title": title, "text": text})
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "queries.jsonl").write_text("")
    (folder / "qrels.tsv").write_text("")
    start = tiny_bert.encoder(tmp_path)
    options = ["--rate", "0.003", "--epochs", "12", "--batch", "16", "--mix", "1"]
    arguments = ["--documents", folder, "--start", start, "--out", tmp_path / "out", *options]
    monkeypatch.setattr(sys, "argv", ["train_encoder.py", *map(str, arguments)])
    train_encoder.main()
    assert "12 kept out" in capsys.readouterr().out
    written = json.loads((tmp_path / "out" / "training.json").read_text())
    reached = {system["name"]: system["metrics"]["mrr@10"] for system in written["results"]["systems"]}
    assert reached["out dense"] > reached["tiny dense"] + 0.2
    assert sum(written["losses"][-5:]) < 0.5 * sum(written["losses"][:5])
    with pytest.raises(SystemExit, match="holds an encoder already"):
        train_encoder.main()
