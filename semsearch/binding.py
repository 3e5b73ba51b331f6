"""Which encoder and analyzer an index goes on with: those that it was made with, or none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from semsearch.analysis import Analyzer, get_analyzer
from semsearch.encoding import Encoder, fingerprint, get_encoder
from semsearch.errors import CorruptIndexError, IndexMismatchError, InputError, ModelError

__all__ = ["check_same", "settled_analyzer", "settled_encoder"]

_ELSEWHERE = "or index the documents again into another folder."


def settled_encoder(
    location: str, given: str | Encoder | None, stored: Mapping[str, Any] | None, spec: str | None
) -> Encoder:
    """The encoder of an index: the one that was given or, if none was, the one that is remembered.

    `stored` is the fingerprint that the index is bound to, None while it is to none; `spec` says how to find the
    encoder again. Raises IndexMismatchError for another one, and where it cannot be found.
    """
    if stored is None:
        return get_encoder(given)
    encoder = _remembered(location, str(stored["name"]), spec) if given is None else get_encoder(given)
    own = fingerprint(encoder)
    if own != stored:
        raise IndexMismatchError(
            f"{location} was made with {_described(stored, own)}, opened with {_described(own, stored)}. "
            f"Open it without encoder=, {_ELSEWHERE}"
        )
    return encoder


def _remembered(location: str, name: str, spec: str | None) -> Encoder:
    how = "Pass it: semsearch.Index(location, encoder=...). Keyword search works without: mode='lexical'."
    if spec is None:
        raise IndexMismatchError(f"{location} was made with {name!r}, an encoder object of the user's own. {how}")
    try:
        return get_encoder(spec)
    except ModelError as error:
        raise IndexMismatchError(f"{location} was made with {name!r}, which cannot be loaded: {error} {how}") from error


def settled_analyzer(location: str, given: str | Analyzer | None, stored: str | None) -> Analyzer:
    """The analyzer of an index: the one that was given or, if none was, that for the language that is stored.

    The language binds; other rules for the same language only mean that keywords are made again. Raises
    IndexMismatchError for another language.
    """
    try:
        analyzer = get_analyzer(stored if given is None else given)
    except InputError as error:
        if given is not None:
            raise
        raise CorruptIndexError(f"The database of {location} is damaged: {error} Restore a backup.") from error
    if stored is not None and analyzer.language != stored:
        raise IndexMismatchError(
            f"{location} was made with the analyzer for {stored!r}, opened with that for {analyzer.language!r}. "
            f"Open it without analyzer=, {_ELSEWHERE}"
        )
    return analyzer


def check_same(location: str, own: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    """Raises IndexMismatchError where an encoder in use cannot be replaced by another one, by their fingerprints."""
    if own != other:
        raise IndexMismatchError(
            f"{location} uses {_described(own, other)}; it cannot go on with {_described(other, own)}. "
            f"Open it with that encoder, {_ELSEWHERE}"
        )


def _described(print_: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """A fingerprint in words: the name, and what tells it from the other one."""
    differing = [f"{key} {value}" for key, value in print_.items() if key != "name" and other.get(key) != value]
    if "name" not in print_:
        return ", ".join(differing)
    if print_["name"] != other.get("name"):
        differing = [f"{print_['dimension']} dimensions"]
    return f"{print_['name']} ({', '.join(differing)})"
