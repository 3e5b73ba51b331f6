"""BERT models with random weights, in the layouts of sentence-transformers and transformers, made in a moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

WORDS = [
    *(
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "late",
        "fee",
        "##s",
        "are",
        "charged",
        "when",
        "library",
        "?",
        ".",
    ),
    *"abcdefghijklmnopqrstuvwxyz",
    *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"),
]
LENGTH = 40  # positions of the models
DIMENSION = 32


def encoder(folder: Path, *, pooling: str = "mean") -> Path:
    """A sentence-transformers model; its queries have the prompt "when "."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertModel

    source = _save(BertModel, folder / "source")
    modules = [Transformer(str(source), max_seq_length=LENGTH), Pooling(DIMENSION, pooling_mode=pooling)]
    model = SentenceTransformer(modules=modules, device="cpu", prompts={"query": "when ", "document": ""})
    model.save(str(folder / "tiny"))
    return folder / "tiny"


def reader(folder: Path, seed: int = 0) -> Path:
    """A BertForQuestionAnswering."""
    from transformers import BertForQuestionAnswering

    return _save(BertForQuestionAnswering, folder / "tiny-reader", seed)


def _save(model: Any, folder: Path, seed: int = 0) -> Path:
    import torch
    from transformers import BertConfig, BertTokenizer

    torch.manual_seed(seed)
    shape = {"hidden_size": DIMENSION, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = BertConfig(vocab_size=len(WORDS), max_position_embeddings=LENGTH, initializer_range=0.2, **shape)
    model(config).save_pretrained(folder)
    BertTokenizer(vocab={word: id for id, word in enumerate(WORDS)}, model_max_length=LENGTH).save_pretrained(folder)
    return folder
