"""Turns a PyTorch model into a small folder that runs on onnxruntime and tokenizers alone.

    compile_encoder("BAAI/bge-small-en-v1.5")      →  ./bge-small-en-v1.5/
    Index("indexes/handbook", encoder="./bge-small-en-v1.5")

The folder holds

    model.onnx        the graph; matrices and embeddings are 8-bit integers, one scale per output channel
    tokenizer.json    the tokenizer, without truncation and padding
    semsearch.json    name, kind, dimension, max_tokens, pooling, prompts, where the weights come from, checksums

Pooling and normalisation are part of the graph. An encoder has the outputs `sentence_embedding` (batch, dimension),
unit length, and `token_vectors` (batch, sequence, width); a reader has `start_logits` and `end_logits` (batch,
sequence). The inputs are int64 (batch, sequence): `input_ids`, `attention_mask` and, where the model has them,
`token_type_ids`.

Quantisation is dynamic: activations get one scale for the whole run, so a text's vector depends on what else is in the
run. `semsearch.encoding` therefore gives each run one text. Weights are quantised per output channel, which on
all-MiniLM-L6-v2 keeps a cosine of 0.995 to float32 (0.94 with one scale a matrix). Method: Jacob et al., "Quantization
and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference" (2018). In a reader a few channels of
the activations are ten times as large as the rest, and one scale for all would leave the rest few steps: there, the
activations are smoothed first (Xiao et al., "SmoothQuant", 2023).
"""

from __future__ import annotations

import inspect
import json
import logging
import os
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semsearch.encoding import load_sentence_transformer
from semsearch.errors import InputError, MissingExtraError, ModelError
from semsearch.runtime import FORMAT, MODEL_FILE, SETTINGS_FILE, TOKENIZER_FILE, create_session, sha256_of

__all__ = ["compile_encoder", "compile_reader"]

Feed = Mapping[str, NDArray[np.int64]]
Float32 = NDArray[np.float32]

_OPSET = 20  # the first with Gelu as one operator; onnxruntime 1.17 and later know it
_MINIMUM_AGREEMENT = 0.95  # a graph that is further from its float32 original than this is refused
# How much of the range of an activation goes over to the weights. On questions kept apart from training, the logits of
# the shipped reader are off by 0.18 without (root of the mean square), 0.11 with 0.65 or 0.75; 857 of them lose 0.8 F1
# without (standard error 0.5), 0.15 with 0.75.
_SMOOTHING = 0.75
# Models that take a mask of (batch, 1, 1, sequence): long runs are faster with it than with the mask that transformers
# makes (29 and 33 ms for 256 tokens). Models that attend to a window, or in a way of their own, need the latter.
_ADDITIVE = {"albert", "bert", "camembert", "distilbert", "electra", "mpnet", "roberta", "xlm-roberta"}
_MODEL_FILES = (MODEL_FILE, TOKENIZER_FILE, "config.json", "modules.json")  # a folder with one of them holds a model
_SAMPLES = (
    (
        "When are late fees charged?",
        "Books that come back after the due date cost ten cents a day, up to five dollars.",
    ),
    ("What does the function return?", "def area(width, height):\n    return width * height"),
    (
        "Where was the treaty signed?",
        "The treaty was signed in Münster and Osnabrück in 1648 and ended thirty years of war.",
    ),
    (
        "Which enzyme is inhibited?",
        "Aspirin irreversibly inhibits cyclooxygenase, and so the synthesis of prostaglandins.",
    ),
    ("How far does it read?", "Some models attend to no more than a window of their text. " * 40),
)


def compile_encoder(
    name_or_path: str | os.PathLike[str], destination: str | os.PathLike[str] | None = None, *, name: str | None = None
) -> Path:
    """Compile a sentence-transformers model to 8-bit ONNX, and return the folder, which `get_encoder` takes as a name.

    `name_or_path` is anything of the BERT family that sentence-transformers loads and whose first module is a
    Transformer (BERT, RoBERTa, DistilBERT, MPNet, ... with mean, cls or max pooling; Dense and Normalize may follow).
    `destination` defaults to a folder in the current directory that is called like the model: "BAAI/bge-small-en-v1.5"
    becomes "bge-small-en-v1.5". Compiling again into the same folder replaces the three files. `name` is what the
    encoder is called from then on; the last part of `name_or_path` by default.

    Raises MissingExtraError without the packages of the extra "compile", ModelError if the model cannot be loaded,
    exported, or stays too far from its float32 original, and InputError if the destination is something else, such as
    a folder with another model.

        >>> compile_encoder("BAAI/bge-small-en-v1.5")  # doctest: +SKIP
        PosixPath('bge-small-en-v1.5')
    """
    _require_extra()
    name = name or Path(name_or_path).name
    target = _destination(name_or_path, destination, name)
    model = load_sentence_transformer(os.fspath(name_or_path), device="cpu")
    transformer = _transformer_module(model, name)
    graph = _encoder_graph(model, transformer)
    inputs = _input_names(model.tokenizer, transformer)
    prompts = getattr(model, "prompts", {})
    settings = {
        "kind": "encoder",
        "name": name,
        "dimension": int(model.get_embedding_dimension()),
        "max_tokens": int(model.max_seq_length or transformer.config.max_position_embeddings),
        "pooling": _pooling(model),
        "normalize": True,
        "lower_case": bool(getattr(model[0], "do_lower_case", False)),
        "prompts": {"query": prompts.get("query", ""), "passage": prompts.get("document", "")},
    }
    texts: list[str | tuple[str, str]] = [text for pair in _SAMPLES for text in pair]
    outputs = ("sentence_embedding", "token_vectors")
    return _compile(graph, model.tokenizer, inputs, outputs, texts, settings, os.fspath(name_or_path), target)


def compile_reader(
    name_or_path: str | os.PathLike[str], destination: str | os.PathLike[str] | None = None, *, name: str | None = None
) -> Path:
    """Compile an extractive question-answering model to 8-bit ONNX, and return the folder.

    `name_or_path` is anything of the BERT family that transformers' AutoModelForQuestionAnswering loads from
    safetensors. `destination`, `name` and the errors are those of `compile_encoder`, and ModelError for a model that
    lacks some of its weights, as one without a question-answering head does.
    """
    _require_extra()
    name = name or Path(name_or_path).name
    target = _destination(name_or_path, destination, name)
    model, tokenizer = _load_reader(os.fspath(name_or_path))
    settings = {
        "kind": "reader",
        "name": name,
        "max_tokens": int(min(model.config.max_position_embeddings, tokenizer.model_max_length)),
    }
    inputs = _input_names(tokenizer, model)
    outputs = ("start_logits", "end_logits")
    graph = _reader_graph(model)
    return _compile(graph, tokenizer, inputs, outputs, list(_SAMPLES), settings, os.fspath(name_or_path), target)


def _load_reader(name: str) -> tuple[Any, Any]:
    from transformers import AutoModelForQuestionAnswering, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        model, loading = AutoModelForQuestionAnswering.from_pretrained(
            name, trust_remote_code=False, use_safetensors=True, dtype="float32", output_loading_info=True
        )
    except Exception as error:  # the libraries below raise OSError, ValueError, RuntimeError, hub errors, ...
        lines = str(error).strip().splitlines() or ["no reason given"]
        raise ModelError(
            f"The reader {name!r} cannot be loaded: {lines[0]} ({type(error).__name__}). Pass the path of a folder, or "
            "a name on the hub, of an extractive question-answering model with safetensors weights."
        ) from error
    if missing := sorted(loading["missing_keys"]):  # transformers would go on with random numbers
        raise ModelError(
            f"The reader {name!r} has no weights for {', '.join(missing[:3])}, without which it finds no spans. Use a "
            "model fine-tuned for question answering."
        )
    return model, tokenizer


def _require_extra() -> None:
    for package in ("onnx", "onnxscript"):
        if find_spec(package) is None:
            raise MissingExtraError("Compiling a model", package, "compile")


def _destination(source: str | os.PathLike[str], destination: str | os.PathLike[str] | None, name: str) -> Path:
    target = Path(name if destination is None else destination)
    if target.exists() and not target.is_dir():
        raise InputError(f"The destination {str(target)!r} is a file. Pass a folder that may be created.")
    if target.exists() and target.resolve() == Path(source).resolve():
        raise InputError(f"The destination {str(target)!r} is the model itself. Pass another folder as destination.")
    foreign = [file for file in _MODEL_FILES if (target / file).exists()]
    if foreign and not (target / SETTINGS_FILE).exists():
        raise InputError(
            f"The destination {str(target)!r} holds a {foreign[0]} that was not compiled here. Pass another folder."
        )
    return target


def _transformer_module(model: Any, name: str) -> Any:
    """The transformers model inside of a sentence-transformers model."""
    transformer = getattr(model[0], "auto_model", None)
    if transformer is None:
        raise ModelError(
            f"{name!r} starts with {type(model[0]).__name__}, not with a Transformer, so there is nothing to compile. "
            "Use it by its name, without compiling it."
        )
    if any(getattr(module, "include_prompt", True) is False for module in model):
        raise ModelError(
            f"{name!r} leaves its prompt out of the pooling, which a compiled encoder cannot. Use its name."
        )
    return transformer


def _pooling(model: Any) -> str:
    modes = [str(mode) for module in model if (mode := getattr(module, "pooling_mode", None))]
    return modes[0] if modes else "none"


def _input_names(tokenizer: Any, model: Any) -> list[str]:
    accepted = set(inspect.signature(model.forward).parameters) & set(tokenizer.model_input_names)
    return [name for name in ("input_ids", "attention_mask", "token_type_ids") if name in accepted]


def _mask(attention_mask: Any, *, additive: bool) -> Any:
    """The mask (batch, sequence) itself, or (batch, 1, 1, sequence) of 0 and -10000 for the models in _ADDITIVE."""
    return (1.0 - attention_mask[:, None, None, :].float()) * -1e4 if additive else attention_mask


def _encoder_graph(model: Any, transformer: Any) -> Any:
    import torch

    class EncoderGraph(torch.nn.Module):  # type: ignore[misc]  # torch is not followed by mypy
        """Token ids → unit vectors of the texts, and vectors of the tokens."""

        def __init__(self) -> None:
            super().__init__()
            self.transformer = transformer
            self.rest = torch.nn.ModuleList(list(model)[1:])
            self.additive = transformer.config.model_type in _ADDITIVE

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any = None) -> Any:
            types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
            mask = _mask(attention_mask, additive=self.additive)
            states = self.transformer(input_ids, attention_mask=mask, **types)[0]
            features = {"token_embeddings": states, "attention_mask": attention_mask}
            for module in self.rest:
                features = module(features)
            return torch.nn.functional.normalize(features["sentence_embedding"], dim=-1), states

    return EncoderGraph()


def _reader_graph(model: Any) -> Any:
    import torch

    class ReaderGraph(torch.nn.Module):  # type: ignore[misc]  # torch is not followed by mypy
        """Token ids of question and text → how well each token starts and ends an answer."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model
            self.additive = model.config.model_type in _ADDITIVE

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any = None) -> Any:
            types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
            mask = _mask(attention_mask, additive=self.additive)
            output = self.model(input_ids, attention_mask=mask, **types)
            return output.start_logits, output.end_logits

    return ReaderGraph()


def _compile(
    graph: Any,
    tokenizer: Any,
    inputs: Sequence[str],
    outputs: Sequence[str],
    samples: Sequence[str | tuple[str, str]],
    settings: dict[str, Any],
    source: str,
    target: Path,
) -> Path:
    """Export, quantise, compare with the original, and only then put the three files in place."""
    tokens = getattr(tokenizer, "backend_tokenizer", None)
    if tokens is None:
        raise ModelError(f"{settings['name']!r} has a tokenizer written in Python; only those of `tokenizers` compile.")
    graph = graph.eval().float()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".compiling-") as name:
        work = Path(name)
        tokens.no_padding()
        tokens.no_truncation()
        tokens.save(str(work / TOKENIZER_FILE), pretty=False)
        feeds = [_feed(tokens, inputs, sample, settings["max_tokens"]) for sample in samples]
        # An encoder's vectors lie beside stored ones in indexes: its graph stays what it is.
        smoothed = settings["kind"] == "reader"
        with _quiet():
            _export(graph, inputs, outputs, work / "float32.onnx")
            if smoothed:
                _smooth(work / "float32.onnx", feeds)
            _quantise(work / "float32.onnx", work / MODEL_FILE)
        cosine = _agreement(graph, work / MODEL_FILE, outputs[0], feeds)
        if not cosine >= _MINIMUM_AGREEMENT:  # NaN is refused, too
            raise ModelError(
                f"Compiled to 8 bits, {settings['name']!r} has a cosine of only {cosine:.3f} to its float32 original "
                f"(at least {_MINIMUM_AGREEMENT} is asked for). Use it by its name, without compiling it."
            )
        about = {
            "format": FORMAT,
            **settings,
            "quantization": "dynamic int8, one scale per output channel" + ", smoothed activations" * smoothed,
            "cosine_to_float32": round(cosine, 4),
            "source": settings["name"] if Path(source).exists() else source,
            "source_sha256": _weights_sha256(source),
            "model_sha256": sha256_of(work / MODEL_FILE),
            "made_with": {
                name: version(name) for name in ("torch", "transformers", "onnx", "onnxscript", "onnxruntime")
            },
        }
        (work / SETTINGS_FILE).write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        target.mkdir(exist_ok=True)
        for name in (MODEL_FILE, TOKENIZER_FILE, SETTINGS_FILE):
            (work / name).replace(target / name)
    return target


def _export(graph: Any, inputs: Sequence[str], outputs: Sequence[str], path: Path) -> None:
    import torch

    ids = torch.arange(5, 37).reshape(2, 16)
    ones, zeros = torch.ones_like(ids), torch.zeros_like(ids)
    example = {"input_ids": ids, "attention_mask": ones, "token_type_ids": zeros}
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence")}
    try:
        program = torch.onnx.export(
            graph,
            kwargs={name: example[name] for name in inputs},
            dynamo=True,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes={name: axes for name in inputs},
            opset_version=_OPSET,
            verbose=False,
        )
    except Exception as error:  # torch.onnx raises many kinds, most of them without a common base
        reason = str(error).strip().splitlines()
        raise ModelError(
            f"The model cannot be exported to ONNX: {reason[0] if reason else 'no reason given'} "
            f"({type(error).__name__}). Use it by its name, without compiling it."
        ) from error
    program.save(str(path))


def _quantise(source: Path, target: Path) -> None:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(source)
    _strip(model)
    quantize_dynamic(model, target, per_channel=True, weight_type=QuantType.QInt8)
    quantised = onnx.load(target)
    _strip(quantised)
    onnx.save(quantised, target)


def _strip(model: Any) -> None:
    """Drop names of source files and stack traces: they differ from machine to machine."""
    graph = model.graph
    for part in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer, graph, model):
        del part.metadata_props[:]
        part.doc_string = ""


def _smooth(path: Path, feeds: Sequence[Feed]) -> None:
    """Divide the large channels of what goes into a matrix, and multiply the rows of the matrix by as much.

    The graph says the same as before, but for rounding; the divisors come from what the activations are on `feeds`.
    """
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(path)
    graph = model.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    used = Counter(name for node in graph.node for name in node.input)
    groups: dict[str, list[Any]] = {}
    for node in graph.node:
        # A matrix that several layers share has no one input to be scaled for.
        if node.op_type == "MatMul" and node.input[1] in stored and used[node.input[1]] == 1:
            groups.setdefault(node.input[0], []).append(node)
    ranges = _ranges(model, list(groups), feeds, path.with_suffix(".ranges"))
    nodes = list(graph.node)
    for name, group in groups.items():
        tensors = [stored[node.input[1]] for node in group]
        matrices = [numpy_helper.to_array(tensor) for tensor in tensors]
        scale = _divisors(ranges[name], np.max([np.abs(matrix).max(axis=1) for matrix in matrices], axis=0))
        for node, tensor, matrix in zip(group, tensors, matrices, strict=True):
            tensor.CopyFrom(numpy_helper.from_array(matrix * scale[:, None], tensor.name))
            node.input[0] = f"{name}_smoothed"
        graph.initializer.append(numpy_helper.from_array(1 / scale, f"{name}_divisors"))
        division = helper.make_node("Mul", [name, f"{name}_divisors"], [f"{name}_smoothed"], name=f"{name}_smoothing")
        nodes.insert(nodes.index(group[0]), division)
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.save(model, path)


def _ranges(model: Any, names: Sequence[str], feeds: Sequence[Feed], path: Path) -> dict[str, Float32]:
    """Of each of these values of the graph, the largest size of each channel over all feeds, (channels,)."""
    import onnx

    wider = onnx.ModelProto()
    wider.CopyFrom(model)
    wider.graph.output.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names)
    onnx.save(wider, path)
    session = create_session(path)
    found = [session.run(list(names), dict(feed)) for feed in feeds]
    return {
        name: np.max([np.abs(values[i]).reshape(-1, values[i].shape[-1]).max(axis=0) for values in found], axis=0)
        for i, name in enumerate(names)
    }


def _divisors(activations: Float32, weights: Float32) -> Float32:
    """What to divide each channel by, (channels,), from the largest sizes there of activations and of weights."""
    # A few samples do not show how large a quiet channel can get: none counts as quieter than the middle one.
    middle = max(float(np.median(activations)), 1e-3)
    divisors = np.maximum(activations, middle) ** _SMOOTHING / np.maximum(weights, 1e-3) ** (1 - _SMOOTHING)
    return np.asarray(divisors / np.exp(np.mean(np.log(divisors))), dtype=np.float32)


def _feed(tokens: Any, inputs: Sequence[str], sample: str | tuple[str, str], max_tokens: int) -> Feed:
    encoded = tokens.encode(*sample) if isinstance(sample, tuple) else tokens.encode(sample)
    arrays = {"input_ids": encoded.ids, "attention_mask": encoded.attention_mask, "token_type_ids": encoded.type_ids}
    return {name: np.array([arrays[name][:max_tokens]], dtype=np.int64) for name in inputs}


def _agreement(graph: Any, path: Path, output: str, feeds: Sequence[Feed]) -> float:
    """The mean cosine between the first output of the original and of the compiled graph, one sample a run."""
    import torch

    session = create_session(path)
    graph.additive = False  # the original is what transformers makes of it
    cosines = []
    for feed in feeds:
        with torch.inference_mode():
            expected = graph(**{name: torch.from_numpy(value) for name, value in feed.items()})[0].numpy().ravel()
        actual = session.run([output], dict(feed))[0].ravel()
        cosines.append(float(expected @ actual / (np.linalg.norm(expected) * np.linalg.norm(actual))))
    return float(np.mean(cosines))


def _weights_sha256(source: str) -> str | None:
    """The sha256 of the file that the weights came from; None if they are in several files."""
    from transformers.utils.hub import cached_file

    try:
        path = cached_file(source, "model.safetensors")
    except OSError:
        return None
    return None if path is None else sha256_of(Path(path))


@contextmanager
def _quiet() -> Iterator[None]:
    """Exporter and quantiser warn about what they themselves do."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
