"""The policy: what it makes of logits, and its snapshots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sppo.config import LearnerConfig, RunConfig
from sppo.errors import ConfigError
from sppo.learner import batching
from sppo.learner.model import Logprobs, Policy
from sppo.types import Group
from tests import families, makers
from tests.unit.learner.tiny import (
    VOCABULARY,
    moved,
    one_by_one,
    policy,
)


def test_kernels_that_do_not_run_here_are_refused_with_the_mend(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    run = RunConfig(learner=LearnerConfig(kernels="triton"))
    with pytest.raises(
        ConfigError, match=r"learner.kernels: backend 'triton' .* on cpu: .* use 'auto' or 'torch'"
    ):
        Logprobs.of(run, "cpu")
    with pytest.raises(ValueError, match="kernels = 'triton' needs a GPU, not device = 'cpu'"):
        LearnerConfig(kernels="triton", device="cpu")


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("Granite", {"logits_scaling": 8.0}),
        ("Cohere", {"logit_scale": 0.25}),
        ("Gemma2", {"head_dim": 8}),
    ],
)
def test_what_a_family_does_to_its_logits_is_done(
    family: str, options: dict[str, Any], groups: list[Group], tmp_path: Path
) -> None:
    import transformers

    torch.manual_seed(0)
    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
    }
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0}
    config = getattr(transformers, f"{family}Config")(**sizes, **heads, **options)
    made = getattr(transformers, f"{family}ForCausalLM")(config)
    made.get_output_embeddings().weight.data *= 50  # logits that a soft cap of 30 changes
    made.save_pretrained(str(tmp_path))
    model = policy(str(tmp_path))
    whole = [batching.Part(0, 0, len(groups[0].completions))]
    batch = batching.collate(groups, whole, rows="completion", device="cpu")
    expected_T = torch.cat(one_by_one(model, groups[0]))
    assert torch.allclose(model.logprobs(batch)[0], expected_T, atol=1e-4)


def test_computing_with_a_snapshot_leaves_the_weights_as_they_were(
    path: str, groups: list[Group]
) -> None:
    model = policy(path)
    model.keep("anchor", device="cpu")
    moved(model)
    before = {k: p.clone() for k, p in model.weights()}
    with model.using("anchor"):
        assert any(not torch.equal(p, before[k]) for k, p in model.weights())
    assert all(torch.equal(p, before[k]) for k, p in model.weights())


def test_hidden_states_in_float32_meet_a_head_in_bf16(tmp_path: Path) -> None:
    """As a Mamba leaves them, which adds its layers up in float32."""
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_config(families.tiny("mamba")).save_pretrained(str(tmp_path))
    how = Logprobs(temperature=1.0)
    policy = Policy(str(tmp_path), device="cpu", logprobs=how, compute=torch.bfloat16)
    groups = makers.random_groups(np.random.default_rng(0), 1, vocabulary=61)
    (parts,) = batching.plan(groups, 10**6, "completion")
    batch = batching.collate(groups, parts, rows="completion", device="cpu")
    with torch.no_grad():
        assert bool(policy.logprobs(batch)[0].isfinite().all())
