"""Which token comes next: the likeliest one, or one that is drawn.

    Sampling(temperature=0.8, top_p=0.95, seed=7)

A seed gives the same text each time, on every device on which the model gives the same logits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, TypeAlias

from semsearch.errors import InputError

__all__ = ["GREEDY", "Choose", "Sampling"]

Choose: TypeAlias = Callable[[Any, Sequence[int]], int]
"""The next token, from its logits (vocabulary,) and the tokens before it."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen from the model's logits.

    A `temperature` of 0 takes the likeliest each time; above, one is drawn with the probabilities of the logits divided
    by it. Of all tokens only the `top_k` likeliest can be drawn (None: all; Fan et al. 2018, "Hierarchical Neural Story
    Generation"), and of these only the fewest likeliest that together have the probability `top_p` (Holtzman et al.
    2020, "The Curious Case of Neural Text Degeneration"). With a `repetition_penalty` above 1 the logits of tokens that
    occurred before are divided by it, or multiplied where negative (Keskar et al. 2019, "CTRL"). Raises InputError for
    a number out of its range.
    """

    temperature: float = 0.0
    top_k: int | None = 50
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not _number(self.temperature) or not 0 <= self.temperature < inf:
            raise InputError(f"temperature is a number and not negative, got {self.temperature!r}.")
        if self.top_k is not None and (not isinstance(self.top_k, int) or self.top_k < 1 or self.top_k is True):
            raise InputError(f"top_k is a number of tokens and at least 1, or None for all, got {self.top_k!r}.")
        if not _number(self.top_p) or not 0 < self.top_p <= 1:
            raise InputError(f"top_p is a probability above 0 and at most 1, got {self.top_p!r}.")
        if not _number(self.repetition_penalty) or not 0 < self.repetition_penalty < inf:
            raise InputError(f"repetition_penalty is a number above 0, got {self.repetition_penalty!r}.")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or not 0 <= self.seed < 2**63:
            raise InputError(f"seed is a whole number, from 0 to 2**63 - 1, got {self.seed!r}.")

    def chooser(self) -> Choose:
        """A function that chooses one token after another, beginning with the seed."""
        if self.temperature == 0:
            return lambda logits, before: int(self._penalised(logits, before).argmax())
        import torch

        # On the CPU whatever the model's device, so that a seed means the same everywhere.
        generator = torch.Generator().manual_seed(self.seed)

        def choose(logits: Any, before: Sequence[int]) -> int:
            known = self._penalised(logits.float().cpu(), before).double()
            # The likeliest becomes 0, so that no temperature is too small.
            known = ((known - known.max()) / self.temperature).float()
            best, tokens = known.topk(min(self.top_k or len(known), len(known)))
            shares = torch.softmax(best, dim=-1)
            # The likeliest token stays, and each further one as long as those before it do not reach top_p.
            kept = len(shares) if self.top_p == 1 else int((shares.cumsum(-1) - shares < self.top_p).sum())
            drawn = torch.multinomial(shares[:kept], 1, generator=generator)
            return int(tokens[drawn])

        return choose

    def _penalised(self, logits: Any, before: Sequence[int]) -> Any:
        if self.repetition_penalty == 1:
            return logits
        import torch

        seen = torch.tensor(sorted(set(before)), dtype=torch.long, device=logits.device)
        known = logits[seen]
        changed = torch.where(known < 0, known * self.repetition_penalty, known / self.repetition_penalty)
        return logits.scatter(0, seen, changed)


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


GREEDY = Sampling()
