"""Small real objects for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sppo.config import LearnerConfig, ObjectiveConfig, OptimizerConfig, RunConfig
from sppo.types import Completion, Group, SamplingParams, Ticket, Version, VersionSpan

TRAINING = {
    "objective": ObjectiveConfig.model_fields,
    "optimizer": OptimizerConfig.model_fields,
    "learner": LearnerConfig.model_fields,
}
V0 = Version(epoch="e1", n=0)


def ticket(uid: str = "train-000000000", *, min_version: int = 0, **changes: Any) -> Ticket:
    values: dict[str, Any] = {
        "uid": uid,
        "stream": "eval" if uid.startswith("eval") else "train",
        "prompt_ids": (1, 2, 3),
        "question": "Calculate 1 + 1.",
        "scorer_data": {"answer": "2", "metadata": {"digits": [1, 1]}},
        "sampling": SamplingParams(completions=2, temperature=0.7, max_tokens=4, seed=5),
        "min_version": min_version,
        "messages": (("system", "Be brief."), ("user", "what is 1 + 1?")),
    }
    return Ticket(**(values | changes))


def completion(tokens: list[int], *, version: Version = V0, logprob: float = -1.0) -> Completion:
    return Completion(
        token_ids=np.asarray(tokens, np.int32),
        behavior_logprobs=np.full(len(tokens), logprob, np.float32),
        spans=(VersionSpan(version=version, start=0, end=len(tokens)),),
        finish_reason="stop",
    )


def group(
    uid: str = "train-000000000",
    *,
    gid: str | None = None,
    size: int = 2,
    version: Version = V0,
    preferences: list[list[float]] | None = None,
) -> Group:
    return Group(
        gid=gid or f"{uid}.g.1",
        uid=uid,
        stream="eval" if uid.startswith("eval") else "train",
        prompt_ids=np.asarray([1, 2, 3], np.int32),
        completions=tuple(completion([4 + i] * (i + 1), version=version) for i in range(size)),
        rewards=np.arange(size, dtype=np.float32) if preferences is None else None,
        preferences=None if preferences is None else np.asarray(preferences, np.float32),
        generator="generator-0",
    )


def big_group(uid: str, *, nbytes: int, version: Version = V0) -> Group:
    """A group of two completions whose frame has about `nbytes`, 4 for a token and 4 for its
    log-prob.
    """
    length = nbytes // 16
    return Group(
        gid=f"{uid}.g.1",
        uid=uid,
        stream="train",
        prompt_ids=np.asarray([1, 2, 3], np.int32),
        completions=tuple(completion([7] * length, version=version) for _ in range(2)),
        rewards=np.arange(2, dtype=np.float32),
        generator="generator-0",
    )


def random_groups(
    rng: np.random.Generator,
    count: int,
    *,
    vocabulary: int,
    version: Version = V0,
    size: int | None = None,
) -> list[Group]:
    """Groups of unequal sizes (or all of `size`) with prompts and completions of unequal
    lengths.
    """
    groups = []
    for g in range(count):
        k = size or int(rng.integers(2, 5))
        completions = []
        for _ in range(k):
            length = int(rng.integers(1, 6))
            completions.append(
                Completion(
                    token_ids=rng.integers(0, vocabulary, length).astype(np.int32),
                    behavior_logprobs=-rng.random(length).astype(np.float32) * 5,
                    spans=(VersionSpan(version=version, start=0, end=length),),
                    finish_reason="stop",
                )
            )
        groups.append(
            Group(
                gid=f"train-{g:09d}.g.1",
                uid=f"train-{g:09d}",
                stream="train",
                prompt_ids=rng.integers(0, vocabulary, int(rng.integers(2, 8))).astype(np.int32),
                completions=tuple(completions),
                rewards=rng.random(k).astype(np.float32),
                generator="generator-0",
            )
        )
    return groups


class WordTokenizer:
    """One token per character; enough of the tokenizer's interface for tickets."""

    def apply_chat_template(self, chats: list[list[dict[str, str]]], **_: Any) -> list[str]:
        return ["".join(message["content"] for message in chat) for chat in chats]

    def __call__(self, texts: list[str], **_: Any) -> dict[str, list[list[int]]]:
        return {"input_ids": [[ord(c) % 97 for c in text] for text in texts]}


def tiny_model(folder: Path, *, vocabulary: int = 61, **changes: Any) -> str:
    """A Llama of two layers with random weights, saved in Hugging Face format."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    given: dict[str, Any] = {
        "vocab_size": vocabulary, "dtype": torch.float32,
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 128, "tie_word_embeddings": True,
    }  # fmt: skip
    config = LlamaConfig(**given | changes)
    LlamaForCausalLM(config).to(config.dtype).save_pretrained(str(folder))
    return str(folder)


def run_config(**given: dict[str, Any]) -> RunConfig:
    return RunConfig(name="test", **given)


def training(**settings: Any) -> RunConfig:
    """A run with these settings of [objective], [optimizer] and [learner]."""
    return run_config(**sections(**settings))


def sections(**settings: Any) -> dict[str, dict[str, Any]]:
    """Settings of [objective], [optimizer] and [learner], each in its section."""
    found: dict[str, dict[str, Any]] = {}
    for name, value in settings.items():
        section = next(s for s, fields in TRAINING.items() if name in fields)
        found.setdefault(section, {})[name] = value
    return found


def tiny_tokenizer(folder: Path, *, vocabulary: int) -> None:
    """A tokenizer of the words w0, w1, ... with a chat template, saved beside a tiny model."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(vocabulary)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w1", unk_token="w0")
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    tokenizer.save_pretrained(str(folder))
