"""A summary in other words: a generative reader writes it from the sentences that stand for the documents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from semsearch.errors import InputError
from semsearch.extraction import Reader
from semsearch.opening import open_reader
from semsearch.prompts import SUMMARY
from semsearch.records import Answer, Hit, Passage
from semsearch.writing import Writing

if TYPE_CHECKING:
    from semsearch.encoding import Encoder
    from semsearch.exploring import Sentence
    from semsearch.generation import GenerativeReader

__all__ = ["write_summary"]


def write_summary(chosen: Sequence[Sentence], reader: str | Path | GenerativeReader, encoder: Encoder) -> Answer:
    """A text that a generative reader writes from the sentences of a summary, with checked citations.

    Not found if there are no sentences, or if they support nothing of what was written. Raises InputError for a reader
    that extracts.
    """
    writer = open_reader(reader)
    if isinstance(writer, Reader):
        raise InputError(f"The reader {writer.name!r} extracts spans; a summary needs one that writes.")
    passages = [
        Passage(number, each.document_id, each.text, each.start, each.end, each.page)
        for number, each in enumerate(chosen, 1)
    ]
    hits = [Hit(passage, each.score, passage.id) for passage, each in zip(passages, chosen, strict=True)]
    return Writing(writer, encoder=lambda: encoder).stream(SUMMARY, hits).answer
