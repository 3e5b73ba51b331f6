"""Loading a generative model of transformers: from a folder, a GGUF file, or by its name.

Only safetensors and GGUF files are read, no code of a model is run, and `HF_HUB_OFFLINE` is honoured.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from semsearch.errors import InputError, MissingExtraError, ModelError
from semsearch.generation import MAX_CONTEXT_TOKENS, MAX_NEW_TOKENS, CausalReader, Seq2SeqReader, check_length
from semsearch.prompts import Template
from semsearch.sampling import Sampling

__all__ = ["open_generative"]


def open_generative(
    name_or_path: str | os.PathLike[str],
    kind: Literal["causal", "seq2seq"] = "causal",
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
    max_context_tokens: int = MAX_CONTEXT_TOKENS,
    template: Template | str | os.PathLike[str] | None = None,
    sampling: Sampling | None = None,
    keep_prompt: bool = True,
    device: str | None = None,
) -> CausalReader | Seq2SeqReader:
    """Load a model of transformers as a reader.

    `name_or_path` is a folder with the model as safetensors, a `.gguf` file (or a folder with one and no
    configuration), or a name on the model hub. `device` is one of torch's, by default a GPU if there is one; on a CPU
    the weights become float32. The other arguments are those of `CausalReader`. Raises ModelError if the model cannot
    be found, is of another kind, has missing weights or only pickled ones; MissingExtraError for a GGUF file without
    the packages that read it; InputError for an option that cannot be.
    """
    import torch

    if kind not in ("causal", "seq2seq"):
        raise InputError(f"kind is 'causal' or 'seq2seq', got {kind!r}.")
    check_length("max_new_tokens", max_new_tokens)
    check_length("max_context_tokens", max_context_tokens)
    wording = None if template is None else Template.of(template)
    name = os.fspath(name_or_path)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    model, tokenizer = _load(name, kind, torch.float32 if device == "cpu" else "auto")
    reader = CausalReader if kind == "causal" else Seq2SeqReader
    return reader(
        name,
        model.to(device),
        tokenizer,
        max_new_tokens=max_new_tokens,
        max_context_tokens=max_context_tokens,
        template=wording,
        sampling=sampling,
        keep_prompt=keep_prompt,
    )


def _load(name: str, kind: str, dtype: Any) -> tuple[Any, Any]:
    """The model and its tokenizer."""
    import transformers

    location, gguf = _locate(name)
    loader = transformers.AutoModelForCausalLM if kind == "causal" else transformers.AutoModelForSeq2SeqLM
    options: dict[str, Any] = {"trust_remote_code": False, "gguf_file": gguf}
    try:
        with _progress_for_people(gguf is not None):
            tokenizer = transformers.AutoTokenizer.from_pretrained(location, **options)
            model, report = loader.from_pretrained(
                location, use_safetensors=True, dtype=dtype, output_loading_info=True, **options
            )
    except Exception as error:  # of any class: each format's parser has its own for a damaged file
        raise ModelError(_cannot_load(name, kind, error)) from error
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise ModelError(
            f"{name} has no weights for {missing[0]} and {len(missing) - 1} others as a {kind} model: it would write "
            "nonsense. Use a model that was trained to generate text, or pass the other kind."
        )
    return model, tokenizer


def _locate(name: str) -> tuple[str, str | None]:
    """What transformers wants to know: the name or folder, and the GGUF file in it."""
    path = Path(name).expanduser()
    files = [path] if path.suffix == ".gguf" else []
    if path.is_dir() and not (path / "config.json").exists():
        files = sorted(path.glob("*.gguf"))
        if len(files) > 1:
            names = ", ".join(file.name for file in files)
            raise ModelError(f"The folder {name} has several GGUF files ({names}). Give the path of one.")
    if not files:
        return (str(path) if path.exists() else name), None
    if not files[0].is_file():
        raise ModelError(f"There is no file {name}. Give the path of a .gguf file, of a folder, or a model's name.")
    for package in ("gguf", "accelerate"):
        if find_spec(package) is None:
            raise MissingExtraError("Reading a GGUF file", package, "gguf")
    return str(files[0].parent), files[0].name


def _cannot_load(name: str, kind: str, error: Exception) -> str:
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "TRUE", "YES", "ON"}
    if Path(name).expanduser().exists():
        reason = (str(error) or repr(error)).strip().splitlines()[0]
    elif offline:
        reason = "there is no such path, no such model in the local cache, and HF_HUB_OFFLINE forbids to download it"
    else:
        reason = "there is no such path, and no such model in the local cache or on the hub (or no network to ask)"
    return (
        f"The {kind} model {name!r} cannot be loaded: {reason}. Give the path of a folder with config.json, the "
        "tokenizer's files and model.safetensors, the path of a .gguf file, or the name of a model on the hub; "
        "pickled weights (.bin) and models with code of their own are not accepted."
    )


@contextmanager
def _progress_for_people(gguf: bool) -> Iterator[None]:
    """Bars while a model loads only where somebody sees them, and wants to by transformers' own setting."""
    import sys

    from transformers.utils import logging

    wanted = logging.is_progress_bar_enabled()
    seen = sys.stderr is not None and sys.stderr.isatty()
    if wanted and not seen:
        logging.disable_progress_bar()
    try:
        with nullcontext() if (wanted and seen) or not gguf else _no_bar_of_gguf():
            yield
    finally:
        if wanted and not seen:
            logging.enable_progress_bar()


@contextmanager
def _no_bar_of_gguf() -> Iterator[None]:
    """The module that reads GGUF files has a bar that does not heed the setting: without it for a while."""
    from transformers import modeling_gguf_pytorch_utils as module

    before = getattr(module, "tqdm", None)
    if before is None or before is _no_bar:  # of another thread, which will put it back
        yield
        return
    module.tqdm = _no_bar
    try:
        yield
    finally:
        module.tqdm = before


def _no_bar(items: Iterable[Any], *_: Any, **__: Any) -> Iterable[Any]:
    return items
