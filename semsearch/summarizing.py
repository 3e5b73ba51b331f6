"""A summary in other words: a generative reader writes it from the sentences that stand for the documents."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
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
    from semsearch.prompts import Template

__all__ = ["open_writer", "write_summary"]


def open_writer(
    reader: str | Path | GenerativeReader | None, template: Template | str | PathLike[str] | None
) -> GenerativeReader:
    """The reader that is to write a summary, with the wording of its prompt.

    Raises InputError for one that extracts, and for a template that nothing would be done with.
    """
    writer = open_reader(reader, template)
    if isinstance(writer, Reader):
        raise InputError(f"The reader {writer.name!r} extracts spans; a summary needs one that writes.")
    return writer


def write_summary(
    chosen: Sequence[Sentence], writer: GenerativeReader, encoder: Encoder, *, strict: bool = False
) -> Answer:
    """A text that a generative reader writes from the sentences of a summary, with checked citations.

    With `strict` it has supported sentences only. Not found if there are no sentences, or if they support nothing of
    what was written.
    """
    passages = [
        Passage(number, each.document_id, each.text, each.start, each.end, each.page)
        for number, each in enumerate(chosen, 1)
    ]
    hits = [Hit(passage, each.score, passage.id) for passage, each in zip(passages, chosen, strict=True)]
    return Writing(writer, strict=strict, encoder=lambda: encoder).stream(SUMMARY, hits).answer
