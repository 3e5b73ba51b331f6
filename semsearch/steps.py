"""A model of transformers over one or more prompts, one token each at a time, with its key-value cache.

    steps = CausalSteps(model, [prompt])
    steps.logits                            # (1, vocabulary): what may follow
    steps.advance([token])

A causal model reads each prompt by itself, in pieces of `PIECE` tokens that begin at fixed places. So what a beginning
comes to does not depend on what follows it, nor on whether it was read before: the keys and values of the last prompt
are kept, and a prompt that begins with the same tokens goes on from there, with the same bits as without.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

__all__ = ["CausalSteps", "LastPrompt", "Seq2SeqSteps", "Steps", "has_plain_cache"]

PIECE = 256  # tokens of a prompt that are read at once; fewer take longer on a CPU


class Steps(ABC):
    """The rows of a batch. `logits`, (rows, vocabulary), is about the next token of each."""

    logits: Any

    @abstractmethod
    def advance(self, tokens: Sequence[int]) -> None:
        """Put one token behind each row."""

    @abstractmethod
    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows only, in this order."""


class LastPrompt:
    """The keys and values of the prompt that was read last.

    They are never changed, so threads may share them; each that has read a prompt puts its own in their place.
    """

    def __init__(self) -> None:
        self._last: tuple[tuple[int, ...], list[tuple[Any, Any]]] = ((), [])

    def put(self, prompt: Sequence[int], cache: Any) -> None:
        """Remember what `cache` holds: the keys and values of all of `prompt`."""
        self._last = tuple(prompt), [(layer.keys, layer.values) for layer in cache.layers]

    def begin(self, prompt: Sequence[int], cache: Any) -> int:
        """Fill an empty `cache` with the whole pieces that `prompt` has in common: the number of their tokens.

        At least one token is left, because its logits are needed.
        """
        known, layers = self._last
        size = min(len(known), len(prompt) - 1)
        common = next((i for i in range(size) if known[i] != prompt[i]), size)
        common -= common % PIECE
        if common:
            for i, (keys, values) in enumerate(layers):
                cache.update(keys[..., :common, :], values[..., :common, :], i)
        return common


class CausalSteps(Steps):
    """Rows of a model that continues a text.

    Rows of different lengths are padded on the left. Several prompts need a model with a plain cache (see
    `has_plain_cache`). `last` is where the keys and values of prompts are kept, if they are.
    """

    logits: Any

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], last: LastPrompt | None = None) -> None:
        import torch

        self._model, self._last = model, last
        # Without this the logits of the whole prompt would be computed: gigabytes for a large vocabulary.
        self._options = {"logits_to_keep": 1} if "logits_to_keep" in _parameters(model) else {}
        self._lengths = [len(prompt) for prompt in prompts]
        self._ids = list(prompts[0])
        self._plain = has_plain_cache(model)
        if self._plain:
            read = [self._read(prompt) for prompt in prompts]
            self.logits = torch.cat([logits for logits, _ in read])
            self._cache = read[0][1] if len(read) == 1 else self._padded([cache for _, cache in read])
        else:
            (prompt,) = prompts
            self.logits, self._cache = self._run([prompt], None, self._ones(1, len(prompt)))
        width = max(self._lengths)
        self._mask = self._ones(len(prompts), width)
        for row, length in enumerate(self._lengths):
            self._mask[row, : width - length] = 0

    def advance(self, tokens: Sequence[int]) -> None:
        """Put one token behind each row."""
        import torch

        self._ids.append(tokens[0])
        self._lengths = [length + 1 for length in self._lengths]
        self._mask = torch.cat([self._mask, self._ones(len(tokens), 1)], dim=1)
        if self._cache is None:  # a model that keeps none
            self.logits, self._cache = self._run([self._ids], None, self._mask)
            return
        options = {}
        if self._plain:  # a row that was padded has fewer tokens than the cache has places
            positions = [[length - 1] for length in self._lengths]
            options["position_ids"] = torch.tensor(positions, device=self._model.device)
        self.logits, self._cache = self._run([[token] for token in tokens], self._cache, self._mask, **options)

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows only, in this order."""
        import torch

        chosen = torch.tensor(rows, device=self._model.device)
        self._cache.batch_select_indices(chosen)
        self.logits, self._mask = self.logits[chosen], self._mask[chosen]
        self._lengths = [self._lengths[row] for row in rows]

    def _read(self, prompt: Sequence[int]) -> tuple[Any, Any]:
        """The logits behind a prompt, (1, vocabulary), and its cache."""
        cache, logits = _empty_cache(self._model), None
        done = self._last.begin(prompt, cache) if self._last else 0
        while done < len(prompt):
            end = min(done + PIECE, len(prompt))
            logits, cache = self._run([prompt[done:end]], cache, self._ones(1, end))
            done = end
        if self._last:
            self._last.put(prompt, cache)
        return logits, cache

    def _padded(self, caches: Sequence[Any]) -> Any:
        """Caches of one row each as the cache of all."""
        import torch
        from torch.nn.functional import pad

        width = max(self._lengths)
        joined = _empty_cache(self._model)
        for i, layers in enumerate(zip(*(cache.layers for cache in caches), strict=True)):
            gaps = [(0, 0, width - length, 0) for length in self._lengths]
            keys = torch.cat([pad(layer.keys, gap) for layer, gap in zip(layers, gaps, strict=True)])
            values = torch.cat([pad(layer.values, gap) for layer, gap in zip(layers, gaps, strict=True)])
            joined.update(keys, values, i)
        return joined

    def _run(self, ids: Sequence[Sequence[int]], cache: Any, mask: Any, **options: Any) -> tuple[Any, Any]:
        import torch

        tensor = torch.tensor([list(row) for row in ids], device=self._model.device)
        return _run(self._model, cache, mask, input_ids=tensor, **self._options, **options)

    def _ones(self, rows: int, columns: int) -> Any:
        import torch

        return torch.ones((rows, columns), dtype=torch.long, device=self._model.device)


class Seq2SeqSteps(Steps):
    """Rows of a model with an encoder, which reads the prompts padded on the right, and a decoder."""

    logits: Any

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]]) -> None:
        import torch

        settings = model.generation_config
        width = max(len(prompt) for prompt in prompts)
        padding = model.config.pad_token_id or 0
        source = [[*prompt, *[padding] * (width - len(prompt))] for prompt in prompts]
        mask = [[1] * len(prompt) + [0] * (width - len(prompt)) for prompt in prompts]
        self._model, self._mask = model, torch.tensor(mask, device=model.device)
        with torch.inference_mode():
            ids = torch.tensor(source, device=model.device)
            self._encoded = model.get_encoder()(input_ids=ids, attention_mask=self._mask)
        start = settings.decoder_start_token_id
        start = settings.bos_token_id if start is None else start
        self._ids = [[start] for _ in prompts]
        self._cache: Any = None
        self._run(self._ids)
        if settings.forced_bos_token_id is not None:
            self.logits = torch.full_like(self.logits, float("-inf"))
            self.logits[:, settings.forced_bos_token_id] = 0.0

    def advance(self, tokens: Sequence[int]) -> None:
        """Put one token behind each row."""
        self._ids = [[*ids, token] for ids, token in zip(self._ids, tokens, strict=True)]
        self._run(self._ids if self._cache is None else [[token] for token in tokens])

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows only, in this order."""
        import torch
        from transformers.modeling_outputs import BaseModelOutput

        chosen = torch.tensor(rows, device=self._model.device)
        self._encoded = BaseModelOutput(last_hidden_state=self._encoded.last_hidden_state[chosen])
        self.logits, self._mask = self.logits[chosen], self._mask[chosen]
        self._ids = [self._ids[row] for row in rows]
        if self._cache is not None:
            self._cache.batch_select_indices(chosen)

    def _run(self, ids: Sequence[Sequence[int]]) -> None:
        import torch

        tensor = torch.tensor(ids, device=self._model.device)
        inputs = {"decoder_input_ids": tensor, "encoder_outputs": self._encoded}
        self.logits, self._cache = _run(self._model, self._cache, self._mask, **inputs)


def has_plain_cache(model: Any) -> bool:
    """Whether a causal model's cache has the keys and values of every token, and positions can be given to it.

    So it is for GPT-2, Llama, Qwen, SmolLM and the like; not for models with a sliding window or with a state instead.
    """
    from transformers.cache_utils import DynamicLayer

    parameters = _parameters(model)
    if "position_ids" not in parameters or not parameters & {"cache", "past_key_values"}:
        return False
    if getattr(model, "_is_stateful", False):
        return False
    return all(type(layer) is DynamicLayer for layer in _empty_cache(model).layers)


def _empty_cache(model: Any) -> Any:
    from transformers import DynamicCache

    return DynamicCache(config=model.config)


def _parameters(model: Any) -> set[str]:
    return set(inspect.signature(model.forward).parameters)


def _run(model: Any, cache: Any, mask: Any, **inputs: Any) -> tuple[Any, Any]:
    """Run a model once: the logits of each row's last token, and the cache for the next step (None without one)."""
    import torch

    # transformers 5.24 gave the argument and the output another name.
    name = "cache" if "cache" in _parameters(model) else "past_key_values"
    # Not around the caller's loop: a generator that stops inside would leave the caller in inference mode.
    with torch.inference_mode():
        output = model(**inputs, attention_mask=mask, use_cache=True, **{name: cache})
        return output.logits[:, -1], getattr(output, name, None)
