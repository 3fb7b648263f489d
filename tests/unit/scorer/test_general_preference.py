"""General preference models: embeddings and their skew-symmetric product, by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from examples.scorers import tiny_models
from sppo.errors import ConfigError
from tests.unit.scorer.asking import ANSWERS, QUESTION, made, request, scorer

TARGET = "sppo.scorer.pairwise_model:PairwiseModel"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return made(tmp_path_factory.mktemp("models") / "gpm", tiny_models.general_preference)


@torch.no_grad()
def vectors(path: str, texts: tuple[str, ...]) -> list[tuple[list[float], list[float]]]:
    """(vector, λ) of each conversation, one forward each, by the whole causal model."""
    weights = load_file(f"{path}/model.safetensors")
    model = AutoModelForCausalLM.from_pretrained(path).eval()
    tokenizer = AutoTokenizer.from_pretrained(path)
    prompt = [{"role": "user", "content": QUESTION}]
    end = len(tokenizer(tokenizer.apply_chat_template(prompt, tokenize=False))["input_ids"]) - 1
    found = []
    for text in texts:
        whole = [*prompt, {"role": "assistant", "content": text}]
        ids = tokenizer(tokenizer.apply_chat_template(whole, tokenize=False))["input_ids"]
        ids[-1] = tokenizer.eos_token_id
        states_LH = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1][0]
        value = (weights["value_head.weight"] @ states_LH[-1]).tolist()
        length = math.sqrt(sum(v * v for v in value))
        share = [0.0, 0.0]
        if "prompt_head.weight" in weights:
            raw = [math.exp(x) for x in (weights["prompt_head.weight"] @ states_LH[end]).tolist()]
            share = [x / sum(raw) for x in raw]
        found.append(([v / length for v in value], share))
    return found


def by_hand(path: str, texts: tuple[str, ...], tau: float, *, scaled: bool) -> np.ndarray:  # type: ignore[type-arg]
    told = vectors(path, texts)
    table = np.full((len(texts), len(texts)), 0.5)
    for i, (v, share) in enumerate(told):
        for j, (u, _) in enumerate(told):
            logit = sum(
                (share[k] if scaled else 1.0) * (v[2 * k] * u[2 * k + 1] - v[2 * k + 1] * u[2 * k])
                for k in range(2)
            )
            table[i, j] = 1 / (1 + math.exp(-logit / tau))
    return table


def test_a_group_is_compared_as_by_hand(path: str) -> None:
    found = np.array(scorer(TARGET, model=path).score(request()))
    assert np.allclose(found, by_hand(path, ANSWERS, 0.1, scaled=True), atol=1e-4)
    assert abs(found - 0.5).max() > 0.05
    assert np.allclose(found + found.T, 1)


def test_without_a_prompt_head_every_plane_counts_alike(path: str, tmp_path: Path) -> None:
    for file in Path(path).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    file = tmp_path / "model.safetensors"
    kept = {k: v for k, v in load_file(file).items() if k != "prompt_head.weight"}
    save_file(kept, file, metadata={"format": "pt"})
    found = np.array(scorer(TARGET, model=str(tmp_path), temperature=0.5).score(request()))
    assert np.allclose(found, by_hand(str(tmp_path), ANSWERS, 0.5, scaled=False), atol=1e-4)


def test_padding_and_other_groups_make_no_difference(path: str) -> None:
    alone, together = scorer(TARGET, model=path, rows=1), scorer(TARGET, model=path)
    other = request("bad", "good", uid="v", question="to be or not ?")
    found = together.score([request(), other])
    assert np.allclose(found[0], alone.score(request()), atol=1e-4)
    assert np.allclose(found[1], alone.score(other), atol=1e-4)


def test_a_conversation_that_is_too_long_is_cut_at_its_end(path: str) -> None:
    short = scorer(TARGET, model=path, max_tokens=14)
    found = np.array(short.score(request("it is five one", "it is five two four")))
    assert found[0, 1] == pytest.approx(0.5, abs=1e-5)


def test_a_plain_language_model_is_refused(tmp_path: Path) -> None:
    plain = made(tmp_path / "llama", lambda p: tiny_models.llama(p, "LlamaForCausalLM") and None)
    with pytest.raises(ConfigError, match=r"scorer.options.model.*neither a PairRM"):
        scorer(TARGET, model=plain)
