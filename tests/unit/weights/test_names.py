"""Weights under the names and in the layouts of the model's files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from sppo.weights import names
from tests import families as tiny


def in_files(path: str) -> dict[str, tuple[int, ...]]:
    with safe_open(f"{path}/model.safetensors", "pt") as tensors:
        return {key: tuple(tensors.get_slice(key).get_shape()) for key in tensors.keys()}  # noqa: SIM118


def moved(model: Any) -> dict[str, Tensor]:
    torch.manual_seed(3)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p))
    return {name: p.detach() for name, p in model.named_parameters()}


@pytest.mark.parametrize("name", ["qwen3_moe", "mixtral", "gpt_neox", "jamba"])
def test_weights_leave_as_the_files_have_them_and_come_back(name: str, tmp_path: Path) -> None:
    path = tiny.save(name, tmp_path)
    sender, receiver = tiny.load(path), tiny.load(path)
    own = moved(sender)
    sent = dict(names.as_stored(sender, own.items()))
    assert set(sent) != set(own)
    assert {n: tuple(w.shape) for n, w in sent.items()} == in_files(path)
    back = names.as_parameters(receiver, sent.items())
    assert all(torch.equal(back[n], w) for n, w in own.items())


def test_weights_of_most_families_are_sent_without_a_copy(tmp_path: Path) -> None:
    model = tiny.load(tiny.save("llama, tied", tmp_path))
    sent = dict(names.as_stored(model, ((n, p.detach()) for n, p in model.named_parameters())))
    assert all(sent[n].data_ptr() == p.data_ptr() for n, p in model.named_parameters())


def test_a_weight_that_is_missing_or_of_another_model_is_refused(tmp_path: Path) -> None:
    path = tiny.save("qwen3_moe", tmp_path)
    model = tiny.load(path)
    sent = dict(names.as_stored(model, moved(model).items()))
    expert = next(n for n in sent if ".experts.1." in n)
    for changed in (
        {n: w for n, w in sent.items() if n != "lm_head.weight"},
        sent | {"other": torch.zeros(1)},
    ):
        with pytest.raises(ValueError, match="not this model's"):
            names.as_parameters(model, changed.items())
    with pytest.raises((ValueError, RuntimeError)):
        names.as_parameters(model, [(n, w) for n, w in sent.items() if n != expert])


@pytest.mark.parametrize("name", ["llama, tied", "qwen3_moe"])
def test_no_more_than_one_layer_is_in_hand(name: str, tmp_path: Path) -> None:
    model = tiny.load(tiny.save(name, tmp_path))
    taken: list[str] = []

    def weights() -> Iterator[tuple[str, Tensor]]:
        for own, p in model.named_parameters():
            taken.append(own)
            yield own, p.detach()

    beyond = set()
    for sent, _ in names.as_stored(model, weights()):
        if ".layers.0." in sent:
            beyond |= {own for own in taken if ".layers." in own and ".layers.0." not in own}
    assert taken[-1] in ("model.norm.weight", "lm_head.weight")
    assert len(beyond) <= 1  # the one that showed that the layer was over
