"""Small generative models with random weights, a causal one with and without a chat template, a T5 and a BART."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from semsearch.prompts import CHAT, COMPLETION, SEQ2SEQ
from semsearch.records import Hit, Passage

TEXTS = (
    "Late fees. A late book costs 20 cents a day, at most 8 euros. Children are never charged.",
    "The library opens at 10:00 on Monday. It is closed on Sundays.",
    "Books may be borrowed for three weeks, 逾期图书每天罚款, and films for one week 🎬.",
)
QUESTION = "How much does a late book cost?"
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEMPLATES = {"gpt2": COMPLETION, "chat": CHAT, "t5": SEQ2SEQ, "bart": SEQ2SEQ}
KINDS = {"gpt2": "causal", "chat": "causal", "t5": "seq2seq", "bart": "seq2seq"}
WINDOW = 640
LENGTH = 24


def passages(*texts: str) -> list[Passage]:
    return [Passage(i, f"{i}.md", text, 100, 100 + len(text)) for i, text in enumerate(texts or TEXTS, start=1)]


def hits(*texts: str) -> list[Hit]:
    return [Hit(passage, 1.0, passage.id) for passage in passages(*texts)]


# --- Small models ----------------------------------------------------------------------------------------------------


def byte_tokenizer(chat: bool) -> PreTrainedTokenizerFast:
    """GPT-2's kind: byte-level BPE, so that some characters are of several tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([*TEXTS, CHAT.prompt, CHAT.passage, COMPLETION.prompt, QUESTION], trainer)
    end = special[2] if chat else special[0]
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=end, bos_token=special[0], extra_special_tokens=special[1:]
    )
    if chat:
        wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads cost more than they bring for matrices this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def piece_tokenizer(bart: bool) -> PreTrainedTokenizerFast:
    """T5's kind: pieces that carry the space before them, without line breaks, and with </s> at the end."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    # Written down rather than trained: training gives another vocabulary in each process.
    text = " ".join([*TEXTS, SEQ2SEQ.prompt, SEQ2SEQ.passage, QUESTION])
    words = sorted({f"\u2581{word}" for word in text.split()})[:150]
    letters = sorted({*text, *map(chr, range(33, 127))} - {" ", "\n"})
    letters += [f"\u2581{letter}" for letter in letters]
    special = ["<pad>", "</s>", "<unk>", "<s>"]
    pieces = [(each, 0.0) for each in special] + [(each, -9.0) for each in letters] + [(each, -5.0) for each in words]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
    tokenizer.add_special_tokens(special)
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("\n", " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    frame = "<s> $A </s>" if bart else "$A </s>"
    tokenizer.post_processor = processors.TemplateProcessing(single=frame, special_tokens=[("</s>", 1), ("<s>", 3)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", bos_token="<s>"
    )


def small_model(name: str, vocabulary: int) -> Any:
    from transformers import (
        BartConfig,
        BartForConditionalGeneration,
        GPT2Config,
        GPT2LMHeadModel,
        LlamaConfig,
        LlamaForCausalLM,
        T5Config,
        T5ForConditionalGeneration,
    )

    torch.manual_seed(3)
    # Wide initial weights, so that the likeliest token changes from step to step.
    if name == "gpt2":
        return GPT2LMHeadModel(
            GPT2Config(
                vocab_size=vocabulary, n_positions=WINDOW, n_embd=32, n_layer=2, n_head=2, initializer_range=0.4,
                bos_token_id=0, eos_token_id=0,
            )
        )  # fmt: skip
    if name == "chat":
        return LlamaForCausalLM(
            LlamaConfig(
                vocab_size=vocabulary, max_position_embeddings=WINDOW, hidden_size=32, intermediate_size=64,
                num_hidden_layers=2, num_attention_heads=2, initializer_range=0.4, bos_token_id=0, eos_token_id=2,
            )
        )  # fmt: skip
    if name == "t5":
        return T5ForConditionalGeneration(
            T5Config(
                vocab_size=vocabulary, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, dropout_rate=0.0,
                initializer_factor=6.0, decoder_start_token_id=0, pad_token_id=0, eos_token_id=1,
            )
        )  # fmt: skip
    return BartForConditionalGeneration(
        BartConfig(
            vocab_size=vocabulary, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
            decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=WINDOW,
            init_std=0.4, decoder_start_token_id=1, forced_bos_token_id=3,
            pad_token_id=0, bos_token_id=3, eos_token_id=1,
            forced_eos_token_id=None,
        )
    )  # fmt: skip


def save_models(root: Path) -> dict[str, Path]:
    """A folder with each small model, as `save_pretrained` writes it."""
    for name in KINDS:
        tokenizer = byte_tokenizer(name == "chat") if name in ("gpt2", "chat") else piece_tokenizer(name == "bart")
        if name == "t5":
            tokenizer.model_max_length = WINDOW
        model = small_model(name, len(tokenizer)).eval()
        model.save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    return {name: root / name for name in KINDS}
