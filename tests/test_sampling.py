"""Choosing the next token, against hand-computed shares and transformers' own processors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import RepetitionPenaltyLogitsProcessor, TopKLogitsWarper, TopPLogitsWarper

from semsearch.errors import InputError
from semsearch.sampling import GREEDY, Sampling

LOGITS = torch.log(torch.tensor([0.1, 0.4, 0.05, 0.3, 0.15]))  # probabilities, so by rank: 1, 3, 4, 0, 2


def drawn(sampling: Sampling, times: int = 400, before: tuple[int, ...] = ()) -> list[float]:
    """How often each token is drawn."""
    choose = sampling.chooser()
    tokens = [choose(LOGITS, before) for _ in range(times)]
    return [tokens.count(token) / times for token in range(len(LOGITS))]


def test_the_likeliest_at_temperature_0() -> None:
    assert Sampling() == GREEDY
    assert drawn(GREEDY, 3) == [0, 1, 0, 0, 0]


def test_shares_are_the_probabilities() -> None:
    assert drawn(Sampling(temperature=1.0), 2000) == pytest.approx([0.1, 0.4, 0.05, 0.3, 0.15], abs=0.05)
    # At temperature 0.5 they are squared: 1, 16, 0.25, 9 and 2.25 of 28.5.
    assert drawn(Sampling(temperature=0.5), 2000) == pytest.approx(
        [1 / 28.5, 16 / 28.5, 0.25 / 28.5, 9 / 28.5, 2.25 / 28.5], abs=0.05
    )


def test_top_k_and_top_p_leave_the_likeliest() -> None:
    assert {i for i, share in enumerate(drawn(Sampling(1.0, top_k=2))) if share} == {1, 3}
    assert {i for i, share in enumerate(drawn(Sampling(1.0, top_k=1))) if share} == {1}
    # 0.4 and 0.3 are less than 0.75, with 0.15 they are more.
    assert {i for i, share in enumerate(drawn(Sampling(1.0, top_k=None, top_p=0.75))) if share} == {1, 3, 4}
    assert {i for i, share in enumerate(drawn(Sampling(1.0, top_p=0.01))) if share} == {1}
    assert {i for i, share in enumerate(drawn(Sampling(1.0, top_k=None), 2000)) if share} == {0, 1, 2, 3, 4}


@pytest.mark.parametrize(("k", "p"), [(50, 1.0), (7, 1.0), (50, 0.9), (20, 0.5), (3, 0.3)])
def test_what_can_be_drawn_is_what_transformers_leaves(k: int, p: float) -> None:
    torch.manual_seed(0)
    for _ in range(5):
        logits = 2 * torch.randn(100)
        scores = logits[None] / 0.8
        for warper in (TopKLogitsWarper(k), TopPLogitsWarper(p)):
            scores = warper(None, scores)
        left = set(torch.nonzero(torch.isfinite(scores[0])).flatten().tolist())
        choose = Sampling(0.8, top_k=k, top_p=p).chooser()
        tokens = {choose(logits, ()) for _ in range(300)}
        assert tokens <= left
        likely = torch.softmax(scores[0], 0) > 0.05  # is among 300, but for one case in four million
        assert set(torch.nonzero(likely).flatten().tolist()) <= tokens


def test_the_repetition_penalty_is_that_of_transformers() -> None:
    torch.manual_seed(0)
    for _ in range(20):
        logits, before = torch.randn(30), torch.randint(0, 30, (12,))
        scores = RepetitionPenaltyLogitsProcessor(1.7)(before[None], logits[None].clone())
        sampling = Sampling(repetition_penalty=1.7)
        assert torch.equal(sampling._penalised(logits, before.tolist()), scores[0])
        assert sampling.chooser()(logits, before.tolist()) == int(scores.argmax())
    assert drawn(Sampling(repetition_penalty=2.0), 1, before=()) == [0, 1, 0, 0, 0]
    # log 0.4 doubled is log 0.16, and 0.3 is more.
    assert drawn(Sampling(repetition_penalty=2.0), 1, before=(1,)) == [0, 0, 0, 1, 0]


def test_a_seed_begins_anew_with_each_chooser() -> None:
    sampling = Sampling(temperature=1.0, seed=5)
    first, second = sampling.chooser(), sampling.chooser()
    other = Sampling(temperature=1.0, seed=6).chooser()
    tokens = [first(LOGITS, ()) for _ in range(50)]
    assert tokens == [second(LOGITS, ()) for _ in range(50)]
    assert tokens != [other(LOGITS, ()) for _ in range(50)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, r"temperature is a number and not negative, got -1\.0"),
        ({"temperature": float("nan")}, "temperature is a number and not negative, got nan"),
        ({"temperature": "hot"}, "temperature is a number"),
        ({"top_k": 0}, "top_k is a number of tokens and at least 1, or None for all, got 0"),
        ({"top_k": True}, "got True"),
        ({"top_p": 0.0}, r"top_p is a probability above 0 and at most 1, got 0\.0"),
        ({"top_p": 1.1}, r"got 1\.1"),
        ({"repetition_penalty": 0}, "repetition_penalty is a number above 0, got 0"),
        ({"seed": 1.5}, r"seed is a whole number, from 0 to 2\*\*63 - 1, got 1\.5"),
        ({"seed": -1}, "got -1"),
    ],
)
def test_numbers_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Sampling(**options)


@pytest.mark.parametrize("temperature", [1e-40, 1e-320])
def test_no_temperature_is_too_small(temperature: float) -> None:
    logits = torch.tensor([1.0, 30.0, 29.0])
    assert Sampling(temperature=temperature).chooser()(logits, []) == 1
