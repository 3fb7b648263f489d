"""Log-probs and gradients of rows against the model's own forward; all families:
tests/integration/test_families.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sppo.learner import masks
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
