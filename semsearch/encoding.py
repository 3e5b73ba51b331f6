"""Texts → unit vectors.

    encoder = get_encoder(None)                          # all-MiniLM-L6-v2, which ships with the package
    encoder.encode(["a passage", "another"])             # (2, 384) float32, each row of length 1
    encoder.encode(["a question"], kind="query")

`get_encoder` takes the name of the shipped encoder, a folder made by `compile_encoder`, any name or path that
sentence-transformers knows, or an object of yours with the `Encoder` protocol.

A vector depends on its text alone, never on the batch that it came in. 8-bit graphs scale their activations by what is
in the run, so `OnnxEncoder` gives each run one text; runs are single-threaded, and one per core works through the
texts, longest first. That is also the fastest way on CPUs, because nothing is padded.
"""

from __future__ import annotations

import hashlib
import os
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from semsearch.errors import EncoderError, InputError, ModelError
from semsearch.runtime import SETTINGS_FILE, PerProcess, in_threads, read_settings, replace_surrogates

__all__ = [
    "Encoder",
    "OnnxEncoder",
    "SentenceTransformerEncoder",
    "TokenVectors",
    "fingerprint",
    "get_encoder",
    "spec_of",
]

Kind = Literal["passage", "query"]
Vectors = npt.NDArray[np.float32]
Fingerprint = dict[str, str | int | bool]

SHIPPED = "all-MiniLM-L6-v2"
SHIPPED_FOLDER = Path(__file__).parent / "models" / "encoder"
_LONG_TEXT = 20_000  # characters of a text that are tokenized at first, where only max_tokens of it are used
_BATCH_TOKENS = {"cpu": 4_096, "other": 32_768}  # of SentenceTransformerEncoder, padding included


class TokenVectors(NamedTuple):
    """The tokens of a text: where they are (n, 2), so that each is `text[start:end]`, and unit vectors (n, width)."""

    offsets: npt.NDArray[np.int64]
    vectors: Vectors


@runtime_checkable
class Encoder(Protocol):
    """What an encoder must offer. An object of your own needs no more than this.

    It may also have `max_tokens: int` and `count_tokens(texts) -> list[int]` (special tokens included), by which
    passages are cut to fit; `token_vectors(texts) -> list[TokenVectors]`, by which hits explain themselves;
    `unknown_share(text) -> float`, the share of letters in scripts that it cannot read; and `fingerprint`, a mapping
    that changes whenever its vectors do.
    """

    @property
    def name(self) -> str:
        """What the index remembers it by."""

    @property
    def dimension(self) -> int:
        """The width of its vectors."""

    def encode(self, texts: Sequence[str], *, kind: Kind = "passage") -> Vectors:
        """(len(texts), dimension) float32, each row of length 1; a row of zeros or NaN is kept out of dense search."""


def get_encoder(spec: str | os.PathLike[str] | Encoder | None) -> Encoder:
    """The encoder that a user means by `spec`.

    None or "all-MiniLM-L6-v2" is the one that ships. A folder with a semsearch.json is a compiled one
    (`compile_encoder`). Another string is a name or a path for sentence-transformers. An object with `name`,
    `dimension` and `encode` is returned as it is.

    Raises ModelError if there is no such model, and InputError if an object lacks a part of the protocol.

        >>> get_encoder(None).dimension
        384
    """
    if spec is None or (isinstance(spec, str) and spec in (SHIPPED, f"sentence-transformers/{SHIPPED}")):
        return OnnxEncoder(SHIPPED_FOLDER)
    if isinstance(spec, (str, os.PathLike)):
        if not os.fspath(spec).strip():
            raise InputError("encoder='' names no model. Pass None for the encoder that ships.")
        folder = Path(spec).expanduser()
        if _is_folder(folder) and (folder / SETTINGS_FILE).is_file():
            return OnnxEncoder(folder)
        return SentenceTransformerEncoder(os.fspath(spec))
    missing = [name for name in ("name", "dimension", "encode") if not hasattr(spec, name)]
    if missing:
        raise InputError(
            f"{type(spec).__name__!r} object is not an encoder: it has no {', '.join(missing)}. Pass a model's name, a "
            "folder made by compile_encoder, or an object with name, dimension and encode(texts, *, kind)."
        )
    return spec


def fingerprint(encoder: Encoder) -> Fingerprint:
    """What an index stores to recognise the encoder by: two encoders with the same one give the same vectors.

    The encoder's own `fingerprint` if it has one, else its name and dimension. Raises EncoderError if it holds anything
    but strings, integers and booleans.
    """
    own = getattr(encoder, "fingerprint", None)
    values: Fingerprint = {"name": encoder.name, "dimension": int(encoder.dimension)} if own is None else dict(own)
    bad = {key: value for key, value in values.items() if not (isinstance(key, str) and isinstance(value, (str, int)))}
    if bad:
        raise EncoderError(
            f"The fingerprint of {encoder.name!r} may hold strings, integers and booleans only, not {bad!r}."
        )
    return values


def spec_of(encoder: object) -> str | None:
    """How to find an encoder again later: its absolute path or its name; None for an object."""
    if isinstance(encoder, (str, os.PathLike)):
        return str(Path(encoder).absolute()) if Path(encoder).exists() else os.fspath(encoder)
    return None


class OnnxEncoder:
    """An encoder in a folder that `compile_encoder` wrote, run by onnxruntime; torch is never imported.

    The model is loaded at the first use. Any number of threads may use one encoder, and a forked child loads its own.

    It runs on the CPU where there is a GPU, too: onnxruntime has no GPU kernels for 8-bit graphs that scale their
    activations as they run, so each layer would go back and forth. `SentenceTransformerEncoder` is for the GPU.
    """

    def __init__(self, folder: str | os.PathLike[str] = SHIPPED_FOLDER) -> None:
        """Raises ModelError if the folder does not hold a compiled encoder."""
        self._folder = Path(folder)
        settings = read_settings(self._folder, "encoder")
        try:
            self.name: str = settings["name"]
            self.dimension: int = settings["dimension"]
            self.max_tokens: int = settings["max_tokens"]
            self._prompts: dict[str, str] = settings["prompts"]
            self._lower_case: bool = settings["lower_case"]
            self._sha256: str = settings["model_sha256"]
            self.fingerprint: Fingerprint = {
                "name": self.name,
                "revision": self._sha256[:16],
                "dimension": self.dimension,
                "pooling": settings["pooling"],
                "normalize": settings["normalize"],
                "max_tokens": self.max_tokens,
                "query_prompt": self._prompts["query"],
                "passage_prompt": self._prompts["passage"],
            }
        except KeyError as error:
            raise ModelError(
                f"{str(self._folder / SETTINGS_FILE)!r} lacks {error}. Compile the model again."
            ) from error
        self._runtimes = PerProcess(self._folder, self._sha256)
        self._cut_off = _CutOff()

    def __repr__(self) -> str:
        return f"OnnxEncoder({self.name!r}, dimension={self.dimension})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process loads the model itself; the one that ships, from where it is installed there."""
        return get_encoder, (None if self._folder == SHIPPED_FOLDER else self._folder,)

    def encode(self, texts: Sequence[str], *, kind: Kind = "passage") -> Vectors:
        """(len(texts), dimension) float32, each row of length 1.

        A text of more than `max_tokens` is cut off there; the first time that happens, a UserWarning says so.
        """
        runtime = self._runtimes.get()
        prompt = self._prompts["query" if _is_query(kind) else "passage"]
        texts = _checked(texts)
        rows = np.empty((len(texts), self.dimension), dtype=np.float32)
        too_long: list[tuple[int, bool]] = []

        def work(index: int) -> None:
            encoding, tokens, more = self._tokenize(prompt + texts[index])
            rows[index] = runtime.run(["sentence_embedding"], encoding.ids)[0][0]
            if tokens > self.max_tokens:
                too_long.append((tokens, more))

        in_threads(work, sorted(range(len(texts)), key=lambda index: -len(texts[index])))
        if too_long:
            self._cut_off.warn(kind, self.name, self.max_tokens, *max(too_long))
        return rows

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has, special tokens and the longest prompt included, nothing cut off."""
        tokenizer = self._runtimes.get().tokenizer
        extra = tokenizer.num_special_tokens_to_add(False) + self._prompt_tokens
        return [len(tokenizer.encode(self._clean(text), add_special_tokens=False)) + extra for text in _checked(texts)]

    def token_vectors(self, texts: Sequence[str]) -> list[TokenVectors]:
        """The vectors of the tokens in each text, as the model sees them in their context, for at most `max_tokens`."""
        runtime = self._runtimes.get()
        results = []
        for text in _checked(texts):
            encoding, _, _ = self._tokenize(text)
            results.append(_token_vectors(encoding, runtime.run(["token_vectors"], encoding.ids)[0][0]))
        return results

    def unknown_share(self, text: str) -> float:
        """The share (0 to 1) of the letters that are in scripts which the vocabulary does not cover."""
        return 0.0 if text.isascii() else self._scripts.share(text)

    @cached_property
    def _scripts(self) -> _UnknownScripts:
        return _UnknownScripts(self._runtimes.get().tokenizer)

    @cached_property
    def _prompt_tokens(self) -> int:
        tokenizer = self._runtimes.get().tokenizer
        return max(len(tokenizer.encode(prompt, add_special_tokens=False)) for prompt in self._prompts.values())

    def _clean(self, text: str) -> str:
        return replace_surrogates(text.lower() if self._lower_case else text)

    def _tokenize(self, text: str) -> tuple[Any, int, bool]:
        """At most `max_tokens` tokens of a text with the special ones; how many it has; whether it may have more."""
        tokenizer = self._runtimes.get().tokenizer
        special = tokenizer.num_special_tokens_to_add(False)
        room, text, length = self.max_tokens - special, self._clean(text), _LONG_TEXT
        encoding = tokenizer.encode(text[:length], add_special_tokens=False)
        while len(encoding) <= room and length < len(text):  # only white space has so few tokens
            length *= 8
            encoding = tokenizer.encode(text[:length], add_special_tokens=False)
        tokens = len(encoding) + special
        encoding.truncate(room)
        return tokenizer.post_process(encoding), tokens, length < len(text)


class SentenceTransformerEncoder:
    """Any model that sentence-transformers loads from safetensors, on a GPU if there is one.

    `name` is a name on the hub (from the local cache if HF_HUB_OFFLINE is set) or the path of a folder; `device` is one
    of torch's, such as "cpu" or "cuda:1", None for a GPU if there is one. Code that comes with a model is never run.
    Prompts for queries and documents are the model's own. In a forked child torch works with one thread, since its
    thread pool does not survive a fork.
    """

    def __init__(self, name: str, *, device: str | None = None) -> None:
        """Raises ModelError if there is no such model or it cannot be loaded."""
        self._model = load_sentence_transformer(name, device=device)
        self._given = (str(Path(name).expanduser().absolute()) if _is_folder(Path(name).expanduser()) else name), device
        self._pid = os.getpid()
        self._cut_off = _CutOff()
        self.name: str = Path(name).name if _is_folder(Path(name).expanduser()) else name
        dimension = self._model.get_embedding_dimension()
        if not dimension:
            raise ModelError(f"{name!r} does not say how wide its vectors are, so it cannot be used as an encoder.")
        self.dimension: int = int(dimension)
        length = getattr(self._model, "max_seq_length", None)
        self.max_tokens: int | None = int(length) if length and length < 1_000_000 else None

    def __repr__(self) -> str:
        return f"SentenceTransformerEncoder({self.name!r}, dimension={self.dimension})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process loads the model itself."""
        name, device = self._given
        return partial(SentenceTransformerEncoder, device=device), (name,)

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """Name, dimension, pooling, prompts, length, and as revision the start of a sha256 over all weights."""
        prompts: Mapping[str, str] = self._model.prompts or {}
        modes = [str(mode) for module in self._model if (mode := getattr(module, "pooling_mode", None))]
        return {
            "name": self.name,
            "revision": _weights_digest(self._model)[:16],
            "dimension": self.dimension,
            "pooling": ",".join(modes) or "none",
            "normalize": True,
            "max_tokens": self.max_tokens or 0,
            "query_prompt": prompts.get("query", ""),
            "passage_prompt": prompts.get("document", ""),
        }

    def encode(self, texts: Sequence[str], *, kind: Kind = "passage") -> Vectors:
        """(len(texts), dimension) float32, each row of length 1, in batches of a bounded number of tokens.

        A text of more than `max_tokens` is cut off there; the first time that happens, a UserWarning says so.
        """
        self._after_fork()
        encode = self._model.encode_query if _is_query(kind) else self._model.encode_document
        clean = [replace_surrogates(text) for text in _checked(texts)]
        lengths = self.count_tokens(clean)
        if self.max_tokens is not None:
            self._cut_off.warn(kind, self.name, self.max_tokens, max(lengths, default=0))
            lengths = [min(length, self.max_tokens) for length in lengths]
        budget = _BATCH_TOKENS["cpu" if self._model.device.type == "cpu" else "other"]
        rows = np.empty((len(clean), self.dimension), dtype=np.float32)
        for batch in _batches(lengths, budget):
            rows[batch] = encode(
                [clean[index] for index in batch],
                batch_size=len(batch),
                show_progress_bar=False,
                convert_to_numpy=True,
                normalize_embeddings=True,
            )
        return rows

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has, special tokens and the longest prompt included, nothing cut off."""
        tokenizer, extra = self._tokenizer, self._prompt_tokens
        return [len(tokenizer.encode(replace_surrogates(text))) + extra for text in _checked(texts)]

    def token_vectors(self, texts: Sequence[str]) -> list[TokenVectors]:
        """The vectors of the tokens in each text. Raises EncoderError for a model without, such as a static one."""
        self._after_fork()
        results = []
        for text in _checked(texts):
            clean = replace_surrogates(text)
            try:
                states = self._model.encode([clean], output_value="token_embeddings", show_progress_bar=False)[0]
            except KeyError as error:
                raise EncoderError(f"{self.name!r} has no vectors of single tokens.") from error
            encoding = _truncated(self._tokenizer, clean, len(states))
            results.append(_token_vectors(encoding, states.float().cpu().numpy()))
        return results

    def unknown_share(self, text: str) -> float:
        """The share (0 to 1) of the letters that are in scripts which the vocabulary does not cover."""
        return 0.0 if text.isascii() else self._scripts.share(text)

    @cached_property
    def _scripts(self) -> _UnknownScripts:
        return _UnknownScripts(self._tokenizer)

    @cached_property
    def _tokenizer(self) -> Any:
        """The model's tokenizer without truncation and padding; a copy, because those are settings of the object."""
        from tokenizers import Tokenizer

        own = self._model.tokenizer
        copy = Tokenizer.from_str(getattr(own, "backend_tokenizer", own).to_str())
        copy.no_padding()
        copy.no_truncation()
        return copy

    @cached_property
    def _prompt_tokens(self) -> int:
        prompts = [prompt for prompt in (self._model.prompts or {}).values() if prompt]
        return max((len(self._tokenizer.encode(prompt, add_special_tokens=False)) for prompt in prompts), default=0)

    def _after_fork(self) -> None:
        if self._pid == os.getpid():
            return
        import torch

        if self._model.device.type == "cuda":
            raise ModelError(
                f"{self.name!r} is on a GPU, which a forked process cannot use. Start processes with the method "
                "'spawn', or load the encoder in the child."
            )
        torch.set_num_threads(1)
        self._pid = os.getpid()


def load_sentence_transformer(name: str, *, device: str | None = None) -> Any:
    """A SentenceTransformer from safetensors, without code of its own. Raises ModelError, never anything else."""
    folder = Path(name).expanduser()
    looks_like_path = name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name
    if looks_like_path and not _is_folder(folder):
        raise ModelError(f"There is no folder {name!r} with a model in it. {_WAYS_OUT}")
    local = _is_folder(folder)
    try:
        from sentence_transformers import SentenceTransformer

        with _no_progress_bar():
            return SentenceTransformer(
                str(folder) if local else name,
                device=device,
                trust_remote_code=False,
                local_files_only=local or not _hub_answers(name),
                model_kwargs={"use_safetensors": True, "dtype": "float32"},
            )
    except Exception as error:  # the libraries below raise OSError, ValueError, RuntimeError, hub errors, ...
        lines = str(error).strip().splitlines() or ["no reason given"]
        raise ModelError(
            f"The encoder {name!r} cannot be loaded: {lines[0]} ({type(error).__name__}). {_WAYS_OUT}"
        ) from error


def _hub_answers(name: str) -> bool:
    """Whether the hub can be asked at all. Without this an unknown name costs a minute of retries where it cannot."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        HfApi().model_info(name, timeout=5)
    except HfHubHTTPError:  # an answer, though it may be that there is no such model
        return True
    except Exception:  # offline by choice or for want of a network; the cache is what is left
        return False
    return True


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """transformers draws a bar for loading weights, which takes milliseconds."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


_WAYS_OUT = (
    f"Pass None for {SHIPPED!r}, which ships with the package and needs no network; the path of a folder that "
    "sentence-transformers or compile_encoder wrote; or a model's name on the hub, which must be in the local cache if "
    "there is no network or HF_HUB_OFFLINE is set. Weights are read from safetensors only."
)


class _CutOff:
    """Warns once that a text was cut off."""

    def __init__(self) -> None:
        self._warned = False

    def warn(self, kind: Kind, name: str, limit: int, tokens: int, more: bool = False) -> None:
        if self._warned or tokens <= limit:
            return
        self._warned = True
        warnings.warn(
            f"A {kind} has {'more than ' if more else ''}{tokens} tokens, but {name} reads {limit}: the rest of it "
            "is not in its vector. Texts that are too long are cut off like this without another warning.",
            UserWarning,
            stacklevel=3,
        )


class _UnknownScripts:
    """Tells which letters of a text are in scripts that a vocabulary does not cover.

    A script counts as covered if at least 100 pieces of the vocabulary hold several letters of it, or at least 1,000
    hold one. A share of [UNK] would not do: the vocabulary of BERT has the single letters of Russian, Arabic and
    Korean, so that their texts have no unknown token, but no words made of them. Scripts are told apart by the first
    word of a letter's Unicode name: LATIN, CYRILLIC, CJK, HIRAGANA, ...
    """

    def __init__(self, tokenizer: Any) -> None:
        single: Counter[str] = Counter()
        several: Counter[str] = Counter()
        for token in range(tokenizer.get_vocab_size()):
            counts = Counter(_scripts(tokenizer.decode([token])))
            single.update(counts.keys())
            several.update(script for script, letters in counts.items() if letters > 1)
        self.known = {script for script in single if several[script] >= 100 or single[script] >= 1_000}

    def share(self, text: str) -> float:
        """The share of letters in other scripts, among the first 10,000 characters."""
        scripts = _scripts(text[:10_000])
        return sum(script not in self.known for script in scripts) / len(scripts) if scripts else 0.0


def _scripts(text: str) -> list[str]:
    """The script of each letter."""
    letters = [letter for letter in unicodedata.normalize("NFC", text) if letter.isalpha()]
    return ["LATIN" if letter.isascii() else unicodedata.name(letter, "UNKNOWN").split()[0] for letter in letters]


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that is too long for the file system
        return False


def _checked(texts: Sequence[str]) -> Sequence[str]:
    if isinstance(texts, str):
        raise InputError(f"encode takes a list of texts, not the single text {texts[:40]!r}. Pass [text].")
    for text in texts:
        if not isinstance(text, str):
            raise InputError(f"A text to encode is a {type(text).__name__}, not a string: {str(text)[:40]!r}.")
    return texts


def _is_query(kind: Kind) -> bool:
    if kind not in ("passage", "query"):
        raise InputError(f"kind={kind!r} is not known. It is 'passage' or 'query'.")
    return kind == "query"


def _truncated(tokenizer: Any, text: str, limit: int) -> Any:
    """The tokens of `text` with the special ones, at most `limit`."""
    encoding = tokenizer.encode(text, add_special_tokens=False)
    encoding.truncate(limit - tokenizer.num_special_tokens_to_add(False))
    return tokenizer.post_process(encoding)


def _token_vectors(encoding: Any, states: npt.NDArray[np.float32]) -> TokenVectors:
    content = np.array(encoding.special_tokens_mask) == 0
    vectors = states[content]
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    offsets = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)[content]
    return TokenVectors(offsets, vectors / np.maximum(lengths, np.finfo(np.float32).tiny))


def _batches(lengths: Sequence[int], budget: int) -> Iterable[list[int]]:
    """Indices of texts of similar length, longest first; a batch has at most `budget` tokens, padding included."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if batch and lengths[batch[0]] * (len(batch) + 1) > budget:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _weights_digest(model: Any) -> str:
    """A sha256 over names, types and bytes of all weights, the same wherever the files lie."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
