"""Models of a few thousand weights, drawn at random, in the layouts of published ones: to try a
configuration with before the real model is fetched, and for tests.

    python -m examples.scorers.tiny_models pairrm models/tiny-pairrm
    sppo-cli up examples/scorers/pairwise-model.toml
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

TEXT = (
    "what is the sum of one two three four five six answer it i think good bad short a long reply "
    "to be or not USER ASSISTANT user assistant system : . ? +"
)
WORDS = TEXT.split()
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }} {{ m['content'] }}<|im_end|>{% endfor %}"
)


def tokenizer(folder: Path, *, specials: Sequence[str], added: Sequence[str] = (),
              chat: bool = False) -> Any:  # fmt: skip
    """One token a word, in Hugging Face format. `specials` begin with padding and the unknown
    word; with `chat` there is a template and no token is added to a text.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate([*specials, *WORDS])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    if not chat:
        made.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")],
        )  # fmt: skip
    marks = {"eos_token": "<|im_end|>"} if chat else {"cls_token": "[CLS]", "sep_token": "[SEP]"}
    fast = PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", **marks
    )
    fast.add_tokens(list(added))
    if chat:
        fast.chat_template = TEMPLATE
    fast.save_pretrained(str(folder))
    return fast


def pairrm(folder: Path) -> None:
    """The layout of `llm-blender/PairRM-hf`."""
    from transformers import DebertaV2Config

    from sppo.scorer.pairrm import FIRST, SECOND, SOURCE, DebertaV2PairRM

    marks = (SOURCE, FIRST, SECOND, "<|candidate|>")
    fast = tokenizer(folder, specials=["[PAD]", "[UNK]", "[CLS]", "[SEP]"], added=marks)
    source, first, second, candidate = (fast.convert_tokens_to_ids(mark) for mark in marks)
    config = DebertaV2Config(
        vocab_size=len(fast), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=48, max_position_embeddings=512, type_vocab_size=0, pad_token_id=0,
        relative_attention=True, position_biased_input=False, pos_att_type=["p2c", "c2p"],
        position_buckets=256, max_relative_positions=-1, share_att_key=True,
        norm_rel_ebd="layer_norm", initializer_range=0.2,
        source_prefix_id=source, cand1_prefix_id=first, cand2_prefix_id=second,
        cand_prefix_id=candidate, n_tasks=1, drop_out=0.05,
    )  # fmt: skip
    DebertaV2PairRM(config).save_pretrained(str(folder))


def llama(folder: Path, kind: str, **more: Any) -> Any:
    """A Llama of one of transformers' classes, with a tokenizer that knows chats."""
    import transformers

    specials = ["[PAD]", "[UNK]", "<|im_start|>", "<|im_end|>"]
    fast = tokenizer(folder, specials=specials, chat=True)
    config = transformers.LlamaConfig(
        vocab_size=len(fast), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
        pad_token_id=0, eos_token_id=3, initializer_range=0.2, **more,
    )  # fmt: skip
    model = getattr(transformers, kind)(config)
    model.save_pretrained(str(folder))
    return model


def reward_model(folder: Path) -> None:
    """A sequence classifier with one output."""
    llama(folder, "LlamaForSequenceClassification", num_labels=1)


def general_preference(folder: Path) -> None:
    """The layout of `general-preference/GPM-Llama-3.1-8B`, with vectors of four numbers."""
    from safetensors.torch import load_file, save_file

    llama(folder, "LlamaForCausalLM", tie_word_embeddings=False)
    file = str(folder / "model.safetensors")
    heads = {"value_head.weight": torch.randn(4, 32), "prompt_head.weight": torch.randn(2, 32)}
    save_file(load_file(file) | heads, file, metadata={"format": "pt"})


MODELS: dict[str, Callable[[Path], None]] = {
    "pairrm": pairrm,
    "general-preference": general_preference,
    "reward-model": reward_model,
}

if __name__ == "__main__":
    torch.manual_seed(0)
    MODELS[sys.argv[1]](Path(sys.argv[2]))
