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
from tests import families as tiny

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
