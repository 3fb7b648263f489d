"""A model without weights is the model."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from sppo import families
from sppo.learner.skeleton import skeleton
from tests import makers


def test_names_shapes_ties_and_buffers_are_those_of_the_model(tmp_path: Path) -> None:
    path = makers.tiny_model(tmp_path / "model")
    bare = skeleton(families.read_config(path), families.read(path))
    real = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    shapes = {name: p.shape for name, p in bare.named_parameters()}
    assert shapes == {name: p.shape for name, p in real.named_parameters()}
    assert all(p.is_meta for p in bare.parameters())
    assert bare.get_output_embeddings().weight is bare.get_input_embeddings().weight
    buffers = dict(real.named_buffers())
    assert all(torch.equal(b, buffers[name]) for name, b in bare.named_buffers())
    assert not bare.training


def test_a_model_larger_than_any_machine_takes_no_memory() -> None:
    config = AutoConfig.for_model(
        "llama", vocab_size=10, hidden_size=2**16, intermediate_size=2**28, num_hidden_layers=1,
        num_attention_heads=512, head_dim=128,
    )  # fmt: skip
    bare = skeleton(config, families.of(config, "large"))
    assert all(p.is_meta for p in bare.parameters())
    assert not any(b.is_meta for b in bare.buffers())
