"""A model without weights is the model."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

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
