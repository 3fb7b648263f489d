"""Every family that is accepted, on tiny models: the learner against plain Transformers, engines
after a sync, and the page that lists them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from sppo import families
from sppo.generators.transformers_engine import TransformersEngine
from sppo.generators.vllm_engine import VllmEngine
from sppo.learner import pieces
from sppo.learner.optim import Optimizer
from sppo.learner.trainer import Trainer
from tests import families as tiny
from tests.makers import training

PAGED = [
    "llama", "qwen2, window", "qwen3_moe", "mistral", "gemma2", "gemma3_text", "cohere2", "gpt2",
    "gpt_oss", "mixtral",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """More of them wait for each other longer than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", tiny.measured())
def test_the_learner_computes_a_family_as_the_model_does(name: str, tmp_path: Path) -> None:
    gap = tiny.learner_gap(tiny.save(name, tmp_path))
    assert gap.logprobs < tiny.LEARNER_NATS
    assert gap.gradients < tiny.LEARNER_GRADIENTS


STEPPED = [
    "llama", "llama, tied", "qwen2", "qwen3", "mistral", "gemma2", "gemma3_text", "granite",
    "mixtral", "lfm2",
]  # fmt: skip


@pytest.mark.parametrize("name", STEPPED)
def test_a_whole_step_is_that_of_plain_transformers(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given several groups in a micro-batch, and segments that are cut into pieces
    monkeypatch.setattr(pieces, "BLOCK", 16)
    path = tiny.save(name, tmp_path, lively=False)
    run = training(
        groups_per_step=3, lr=1e-3, micro_batch_tokens=1000, share_prompt=families.read(path).shares
    )
    gap = tiny.learner_gap(path)
    assert max(gap.logprobs, gap.gradients) < 1e-5
    policies = tiny.learner(path), tiny.Plain(path, temperature=1.0)
    # When each takes an optimizer step
    own, plain = (
        record
        for policy in policies
        for record in Trainer(run, policy, Optimizer(run, policy.master)).train(
            tiny.several(), tiny.VERSION
        )
    )
    # Then figures and weights are the same
    assert own["skipped"] is None
    for figure in ("loss", "grad_norm", "entropy", "mismatch"):
        assert own[figure] == pytest.approx(plain[figure], rel=1e-5, abs=1e-6), figure
    stepped, expected = (flat(policy.module) for policy in policies)
    assert (stepped - expected).norm() <= 1e-5 * expected.norm()
    # AdamW's first step has almost the same size for every entry, whatever its gradient: where that
    # is near zero, rounding turns it.
    moved = expected - flat(tiny.load(path))
    assert (stepped - expected).norm() <= 3e-3 * moved.norm()


def flat(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


@pytest.mark.parametrize("name", PAGED)
def test_transformers_engine_samples_from_the_weights_it_was_sent(
    name: str, tmp_path: Path
) -> None:
    path = tiny.save(name, tmp_path)
    families.check_engine(families.read(path), "transformers", name)
    assert tiny.engine_gap(path, TransformersEngine, engine="transformers") < tiny.ENGINE_NATS


@pytest.mark.timeout(200)
def test_vllm_samples_from_the_experts_it_was_sent(tmp_path: Path) -> None:
    """A CPU repacks experts, and their names and layouts are not those of Transformers."""
    assert tiny.engine_gap(tiny.save("mixtral", tmp_path), VllmEngine) < tiny.ENGINE_NATS


def test_the_page_of_families_is_up_to_date() -> None:
    assert tiny.PAGE.read_text() == tiny.page(), (
        "run `make families`, or `python -m tests.families llama`"
    )
