"""From what a user gives as a reader to one that reads: a name, a path, a server, an object, or nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from semsearch.errors import InputError, ModelError
from semsearch.extraction import OnnxReader, Reader, TransformersReader
from semsearch.generation import GenerativeReader

if TYPE_CHECKING:
    from semsearch.prompts import Template

__all__ = ["open_reader"]

_SERVER = "openai:"


def open_reader(
    reader: str | Path | Reader | GenerativeReader | None, template: Template | str | os.PathLike[str] | None = None
) -> Reader | GenerativeReader:
    """The reader for a name, a path, "openai:MODEL@http://host", or the object itself; the shipped one for None.

    `template` is the wording for one that writes. Raises InputError for an object that is no reader, and for a template
    that nothing would be done with; ModelError for a model that cannot be found or cannot answer.
    """
    opened = _opened(reader, template)
    if template is not None and (isinstance(opened, Reader) or not isinstance(reader, (str, Path))):
        raise InputError(
            f"A template is the wording of a prompt for a model that is named, and {opened.name!r} is not such a one. "
            "Give the template to the object itself, or leave it out."
        )
    return opened


def _opened(reader: object, template: Template | str | os.PathLike[str] | None) -> Reader | GenerativeReader:
    if reader is None:
        return OnnxReader()
    if isinstance(reader, str) and reader.startswith(_SERVER):
        from semsearch.remote import open_remote

        return open_remote(reader, template=template)
    if isinstance(reader, (str, Path)):
        return _named(str(reader), template)
    if not hasattr(reader, "read") and not hasattr(reader, "stream"):
        raise InputError(
            "A reader is a name, a path, or an object with read(question, texts) or stream(question, passages), "
            f"got {type(reader).__name__}."
        )
    if not isinstance(getattr(reader, "name", None), str):
        raise InputError(f"The reader {type(reader).__name__} has no name. Give it one: name = '...'")
    return reader  # type: ignore[return-value]


def _named(name: str, template: Template | str | os.PathLike[str] | None) -> Reader | GenerativeReader:
    """The kind of reader that the files or the model's own configuration ask for."""
    folder = Path(name).expanduser()
    name = str(folder) if name.startswith("~") else name
    if (folder / "model.onnx").is_file():
        return OnnxReader(folder)
    gguf = name.endswith(".gguf") or (any(folder.glob("*.gguf")) and not (folder / "config.json").is_file())
    kind = "causal" if gguf else kind_of_model(name)
    if kind == "extractive":
        return TransformersReader(name)
    from semsearch.pretrained import open_generative

    return open_generative(name, kind, template=template)


def kind_of_model(name: str) -> Literal["extractive", "causal", "seq2seq"]:
    """How the model of that name or path answers, by its configuration. Raises ModelError if it does not."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    except Exception as error:  # of any class, for a configuration that is damaged
        raise ModelError(f"Reader {name!r} cannot be loaded: {error}") from error
    named = config.architectures
    architectures = [one for one in named if isinstance(one, str)] if isinstance(named, list) else []
    if any(a.endswith("ForQuestionAnswering") for a in architectures):
        return "extractive"
    if config.is_encoder_decoder and any(a.endswith("ForConditionalGeneration") for a in architectures):
        return "seq2seq"
    if any(a.endswith(("ForCausalLM", "LMHeadModel")) for a in architectures):
        return "causal"
    raise ModelError(
        f"Reader {name!r} is a {', '.join(architectures) or 'model of unknown architecture'}, which cannot answer. "
        "Use a model for question answering, a causal one or a sequence-to-sequence one."
    )
