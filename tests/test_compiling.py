"""Compiling: the graph says what the model says, and nothing of the machine that made it stays in the files."""

from __future__ import annotations

import builtins
import importlib.util
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny_bert

from semsearch import compiling
from semsearch.compiling import compile_encoder, compile_reader
from semsearch.encoding import OnnxEncoder, SentenceTransformerEncoder, get_encoder
from semsearch.errors import InputError, MissingExtraError, ModelError
from semsearch.runtime import Runtime, create_session, sha256_of

TEXTS = ["late fees are charged", "library.", "a b c d e f g", "", "fees " * 60]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert.encoder(tmp_path_factory.mktemp("source"), pooling="cls")


@pytest.fixture(scope="module")
def compiled(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled to where it goes by default: a folder of the current one that is called like the model."""
    current = tmp_path_factory.mktemp("current")
    (current / "tiny").mkdir()
    (current / "tiny" / "LICENSE").write_text("mine")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(current)
        assert compile_encoder(source) == Path("tiny")
        assert isinstance(get_encoder("tiny"), OnnxEncoder)  # a folder goes before a name on the hub
    return current / "tiny"


def test_a_compiled_encoder_agrees_with_its_original(source: Path, compiled: Path) -> None:
    original, ours = SentenceTransformerEncoder(str(source)), get_encoder(compiled)
    assert isinstance(ours, OnnxEncoder)
    assert (ours.name, ours.dimension, ours.max_tokens) == ("tiny", 32, 40)
    assert (
        ours.count_tokens(TEXTS) == original.count_tokens(TEXTS) == [8, 5, 10, 3, 123]
    )  # with [CLS], [SEP] and "when"
    for kind in ("passage", "query"):
        with pytest.warns(UserWarning, match="more than|tokens, but"):
            expected, actual = original.encode(TEXTS, kind=kind), ours.encode(TEXTS, kind=kind)
        assert (expected * actual).sum(1) == pytest.approx(np.ones(5), abs=5e-3)
        original, ours = SentenceTransformerEncoder(str(source)), OnnxEncoder(compiled)  # warn once each
    query = ours.encode(["late fees"], kind="query")
    assert np.array_equal(query, ours.encode(["when late fees"], kind="passage"))
    assert float((query @ ours.encode(["late fees"]).T).item()) < 0.999


def test_token_vectors_of_both_kinds_of_encoder(source: Path, compiled: Path) -> None:
    original, ours = SentenceTransformerEncoder(str(source)), OnnxEncoder(compiled)
    for encoder in (original, ours):
        offsets, vectors = encoder.token_vectors(["late fees\udc00 xyz " + "are " * 60])[0]
        assert offsets[:6].tolist() == [[0, 4], [5, 8], [8, 9], [11, 12], [12, 13], [13, 14]]
        assert len(offsets) == 38  # 40 positions, two for [CLS] and [SEP]
        assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(38), abs=1e-5)
    expected, actual = (encoder.token_vectors(["late fees"])[0].vectors for encoder in (original, ours))
    assert (expected * actual).sum(1) == pytest.approx(np.ones(3), abs=5e-3)


def test_files_of_a_compiled_model(source: Path, compiled: Path) -> None:
    settings = json.loads((compiled / "semsearch.json").read_text(encoding="utf-8"))
    assert settings["source_sha256"] == sha256_of(source / "model.safetensors")
    assert settings["model_sha256"] == sha256_of(compiled / "model.onnx")
    assert settings["pooling"] == "cls"
    assert settings["prompts"] == {"query": "when ", "passage": ""}
    assert 0.99 < settings["cosine_to_float32"] <= 1
    assert [path.name for path in compiled.parent.iterdir()] == ["tiny"]  # no drafts are left
    assert (compiled / "LICENSE").read_text() == "mine"
    home = str(Path(__file__).resolve().parent.parent).encode()
    for path in compiled.iterdir():
        assert home not in path.read_bytes()
        assert str(source.parent).encode() not in path.read_bytes()


def test_the_fingerprint_follows_the_model(source: Path, compiled: Path) -> None:
    original, ours = SentenceTransformerEncoder(str(source)).fingerprint, OnnxEncoder(compiled).fingerprint
    assert original == SentenceTransformerEncoder(str(source)).fingerprint
    differing = {key for key in original if original[key] != ours[key]}
    assert differing == {"revision"}
    assert original.keys() == ours.keys()


def test_a_compiled_reader_agrees_with_its_original(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForQuestionAnswering, AutoTokenizer

    source = tiny_bert.reader(tmp_path)
    folder = compile_reader(source, tmp_path / "compiled", name="mine")
    settings = json.loads((folder / "semsearch.json").read_text(encoding="utf-8"))
    assert (settings["kind"], settings["name"], settings["max_tokens"]) == ("reader", "mine", 40)
    tokenizer = AutoTokenizer.from_pretrained(source)
    model = AutoModelForQuestionAnswering.from_pretrained(source).eval()
    batch = tokenizer(["late fees?", "library"], ["when are fees charged", "a b"], padding=True, return_tensors="pt")
    with torch.inference_mode():
        expected = model(**batch)
    session = Runtime(folder, settings["model_sha256"]).session
    start, end = session.run(["start_logits", "end_logits"], {name: value.numpy() for name, value in batch.items()})
    mask = batch["attention_mask"].numpy() == 1
    assert start[mask] == pytest.approx(expected.start_logits.numpy()[mask], abs=0.1)
    assert end[mask] == pytest.approx(expected.end_logits.numpy()[mask], abs=0.1)
    assert np.ptp(expected.start_logits.numpy()[mask]) > 1  # a tolerance of 0.1 means something
    with pytest.raises(ModelError, match="holds a compiled reader, not a compiled encoder"):
        get_encoder(folder)


def test_smoothing_divides_the_large_channels() -> None:
    # Three channels of 1 and one of 16: 16^0.75 = 8 times as much, and divisors have a geometric mean of 1: 8^(1/4).
    small = 8**-0.25
    ones = np.ones(4, dtype=np.float32)
    found = compiling._divisors(np.array([1, 1, 1, 16], dtype=np.float32), ones)
    assert found == pytest.approx([small, small, small, 8 * small])
    # Quieter than the middle counts as the middle; where the weights are 16 times as large, 16^0.25 = 2 times less.
    found = compiling._divisors(np.array([0, 2, 2, 2], dtype=np.float32), ones)
    assert found == pytest.approx(ones)
    found = compiling._divisors(ones, np.array([16, 1, 1, 1], dtype=np.float32))
    assert found == pytest.approx(np.array([0.5, 1, 1, 1]) * 2**0.25)


def test_smoothing_leaves_what_the_graph_says_and_matrices_of_several_layers(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    own, shared = (random.normal(size=(4, 4)).astype(np.float32) for _ in range(2))
    node = onnx.helper.make_node
    nodes = [
        node("Gather", ["table", "input_ids"], ["x"]),
        node("MatMul", ["x", "own"], ["a"]),
        node("MatMul", ["a", "shared"], ["b"]),
        node("MatMul", ["b", "shared"], ["c"]),
    ]
    table = np.diag([1, 2, 3, 400]).astype(np.float32)
    stored = [onnx.numpy_helper.from_array(v, n) for n, v in (("own", own), ("shared", shared), ("table", table))]
    ids = onnx.helper.make_tensor_value_info("input_ids", onnx.TensorProto.INT64, [1, 4])
    result = onnx.helper.make_tensor_value_info("c", onnx.TensorProto.FLOAT, [1, 4, 4])
    opset = [onnx.helper.make_opsetid("", 20)]
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", [ids], [result], stored), opset_imports=opset)
    model.ir_version = 10
    onnx.save(model, tmp_path / "model.onnx")

    compiling._smooth(tmp_path / "model.onnx", [{"input_ids": np.array([[0, 1, 2, 3]])}])

    smoothed = onnx.load(tmp_path / "model.onnx")
    kept = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in smoothed.graph.initializer}
    assert [node.op_type for node in smoothed.graph.node] == ["Gather", "Mul", "MatMul", "MatMul", "MatMul"]
    assert np.array_equal(kept["shared"], shared)
    assert kept["own"] * kept["x_divisors"][:, None] == pytest.approx(own, rel=1e-5)
    assert kept["x_divisors"][3] < kept["x_divisors"][:3].min() / 10
    found = create_session(tmp_path / "model.onnx").run(["c"], {"input_ids": np.array([[0, 1, 2, 3]])})[0][0]
    assert found == pytest.approx(table @ own @ shared @ shared, rel=1e-4, abs=1e-3)


def test_channels_that_are_much_larger_than_the_rest_cost_a_reader_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from transformers import AutoModelForQuestionAnswering, AutoTokenizer

    source = tiny_bert.reader(tmp_path)
    model = AutoModelForQuestionAnswering.from_pretrained(source).eval()
    with torch.no_grad():
        for layer in model.bert.encoder.layer:
            layer.intermediate.dense.weight[:7] *= 60.0
            layer.output.dense.weight[:, :7] /= 60.0
    model.save_pretrained(source)
    tokenizer = AutoTokenizer.from_pretrained(source)
    batch = tokenizer(["late fees?"], ["when are fees charged at the library"], return_tensors="pt")
    with torch.inference_mode():
        expected = model(**batch).start_logits.numpy()
    feed = {name: value.numpy() for name, value in batch.items()}

    def error(folder: Path) -> float:
        return float(np.abs(create_session(folder / "model.onnx").run(["start_logits"], feed)[0] - expected).mean())

    smoothed = error(compile_reader(source, tmp_path / "smoothed"))
    monkeypatch.setattr(compiling, "_smooth", lambda path, feeds: None)
    monkeypatch.setattr(compiling, "_MINIMUM_AGREEMENT", -1)
    assert smoothed < error(compile_reader(source, tmp_path / "plain")) / 3


def test_destinations_that_are_something_else_are_left_alone(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="is a file"):
        compile_encoder(source, tmp_path / "file")
    with pytest.raises(InputError, match="is the model itself"):
        compile_encoder(source, source)
    (tmp_path / "model.onnx").write_text("mine")
    with pytest.raises(InputError, match="was not compiled here"):
        compile_encoder(source, tmp_path)
    assert (tmp_path / "model.onnx").read_text() == "mine"


@pytest.mark.parametrize("file", ["tokenizer.json", "config.json", "modules.json"])
def test_another_model_s_folder_is_left_alone(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / file).write_text("mine")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"'tiny' holds a {file} that was not compiled here"):
        compile_encoder(source)  # by default to a folder of this name
    assert [(path.name, path.read_text()) for path in Path("tiny").iterdir()] == [(file, "mine")]


def test_models_that_cannot_be_compiled(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no folder './nowhere'"):
        compile_encoder("./nowhere", tmp_path / "a")
    with pytest.raises(ModelError, match="cannot be loaded"):
        compile_reader(tmp_path, tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_a_head_that_finds_spans_is_not_compiled(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no weights for qa_outputs\.bias, qa_outputs\.weight, without which"):
        compile_reader(source, tmp_path / "reader")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr("semsearch.compiling.find_spec", lambda name: None if name == "onnxscript" else found(name))
    imported = builtins.__import__

    def refuse(name: str, *rest: object, **more: object) -> object:
        assert name != "sentence_transformers", "the extra is looked for before anything heavy is loaded"
        return imported(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtraError, match=r"'onnxscript', which is not installed.*semsearch\[compile\]"):
        compile_encoder("anything", tmp_path / "c")
