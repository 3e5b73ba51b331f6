"""Text into tokens and tokens into text, piece by piece, as a model reads and writes it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from semsearch.outline import without_surrogates

__all__ = ["added_tokens", "detokenise", "encode", "until_text", "until_token", "without_leading_space"]

# A tokenizer keeps `split_special_tokens` of a call as a setting, which another thread's call would change meanwhile.
_lock = threading.Lock()


def _unlock() -> None:
    global _lock
    _lock = threading.Lock()  # a thread of the parent may have held it


os.register_at_fork(after_in_child=_unlock)


def encode(tokenizer: Any, text: str, *, control: bool = False) -> list[int]:
    """The tokens of `text`. Only with `control` are <|im_start|>, </s> and the like more than their letters."""
    clean = without_surrogates(text)  # tokenizers accept no lone surrogates
    with _lock:
        encoding = tokenizer(clean, add_special_tokens=False, split_special_tokens=not control, verbose=False)
    ids: list[int] = encoding.input_ids
    return ids


def added_tokens(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The special tokens that a tokenizer puts before and after a text."""
    with _lock:
        bare = tokenizer("a", add_special_tokens=False).input_ids
        framed = tokenizer("a").input_ids
    for i in range(len(framed) - len(bare) + 1):
        if framed[i : i + len(bare)] == bare:
            return framed[:i], framed[i + len(bare) :]
    return [], []


def detokenise(tokens: Iterable[int], tokenizer: Any, after: Sequence[int] = ()) -> Iterator[str]:
    """The text of tokens, piece by piece; a character of several tokens comes when it is complete.

    Together the pieces are what the tokenizer makes of all the tokens at once, and with `after`, tokens that stand
    before them, what it adds to the text of these: some tokenizers drop the space before the first word of a text.
    """

    def decode(some: list[int]) -> str:
        text: str = tokenizer.decode(some, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    # Each piece is decoded after the one before it, because a token's text depends on what stands before.
    known = list(after)
    new: list[int] = []
    for token in tokens:
        new.append(token)
        before, now = decode(known), decode(known + new)
        if len(now) > len(before) and not now.endswith("\ufffd"):
            yield now[len(before) :]
            known, new = new, []
    rest = decode(known + new)[len(decode(known)) :]
    if rest:
        yield rest


def without_leading_space(pieces: Iterable[str]) -> Iterator[str]:
    """The pieces, the first without the white space at its beginning, and none that is empty."""
    begun = False
    for piece in pieces:
        text = piece if begun else piece.lstrip()
        if text:
            begun = True
            yield text


def until_token(tokens: Iterable[int], ends: set[int]) -> Iterator[int]:
    """The tokens before the first of the `ends`."""
    for token in tokens:
        if token in ends:
            return
        yield token


def until_text(pieces: Iterable[str], stops: Sequence[str]) -> Iterator[str]:
    """The pieces up to the first of the `stops`; what may be the beginning of one is held back until that is clear."""
    held = ""
    for piece in pieces:
        held += piece
        found = [held.find(stop) for stop in stops if stop in held]
        if found:
            if min(found):
                yield held[: min(found)]
            return
        keep = max((n for stop in stops for n in range(1, len(stop)) if held.endswith(stop[:n])), default=0)
        if len(held) > keep:
            yield held[: len(held) - keep]
            held = held[len(held) - keep :]
    if held:
        yield held
