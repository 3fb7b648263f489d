"""Log-probs and gradients of rows against the model's own forward; all families:
tests/integration/test_families.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sppo.learner import masks
from sppo.learner.layers import decoder_layers
from sppo.learner.model import trunk
from sppo.learner.pieces import Pieces
from tests import families as tiny


@pytest.mark.parametrize(
    "name",
    [
        "mistral",
        "gemma2",
        "gemma3_text",
        "llama4_text",
        "gpt_oss",
        "gpt2",
        "qwen3, window",
        "bloom",
        "lfm2",
    ],
)
def test_windows_caps_sinks_and_recurrent_layers_are_the_models_own(
    name: str, tmp_path: Path
) -> None:
    gap = tiny.learner_gap(tiny.save(name, tmp_path))
    assert gap.logprobs < 2e-5
    assert gap.gradients < 1e-3


def test_a_family_of_one_row_a_completion_does_not_take_shared_rows(tmp_path: Path) -> None:
    policy = tiny.learner(tiny.save("lfm2", tmp_path))
    shared = tiny.batch(tiny.group(), rows="packed")
    with pytest.raises(ValueError, match="lfm2 takes rows of completion, not packed"):
        policy.logprobs(shared)


def test_outside_of_a_row_transformers_masks_as_ever(tmp_path: Path) -> None:
    found, model = tiny.group(), tiny.load(tiny.save("mistral", tmp_path))
    before = tiny.plain(model, found).detach()
    with masks.rows(tiny.batch(found, rows="packed"), flex=False):
        pass
    assert torch.equal(tiny.plain(model, found).detach(), before)


@pytest.mark.parametrize(("name", "kinds"), [("gemma3_text", 2), ("llama", 1), ("falcon", 1)])
def test_a_mask_is_made_once_for_each_kind_of_layer(name: str, kinds: int, tmp_path: Path) -> None:
    policy = tiny.learner(tiny.save(name, tmp_path))
    batch = tiny.batch(*tiny.several(), rows=policy.family.rows(True))
    length, given = batch.tokens_BL.shape[1], []

    def keep(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given.append(next(x for x in [*args, *kwargs.values()] if is_mask(x)))

    def is_mask(x: Any) -> bool:
        square = isinstance(x, Tensor) and x.shape[2:] == (length, length)
        return square or isinstance(x, Pieces)

    for layer in decoder_layers(policy.module, trunk(policy.module), setting=""):
        layer.register_forward_pre_hook(keep, with_kwargs=True)
    policy.logprobs(batch)
    assert len(given) == 4
    assert len({id(mask) for mask in given}) == kinds
    if name == "falcon":  # one for all heads, to be added, in the computing dtype
        assert given[0].shape == (3, 1, length, length)
        assert given[0].dtype == torch.float32
