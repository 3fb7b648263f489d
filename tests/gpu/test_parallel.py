"""Engines of several ranks, each of which takes every weight sync: copies of a mixture, stages of a
pipeline, and one engine on two nodes of Ray.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.gpu.conftest import ROOT, Figures

PARITY = 0.1
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "two copies that share experts": (
        "mixtral", {"vllm": {"data_parallel_size": 2, "enable_expert_parallel": True}},
    ),
    "two stages": ("llama", {"vllm": {"pipeline_parallel_size": 2}}),
    "two slices": ("llama", {"tensor_parallel": 2}),
}  # fmt: skip
"""Family, and settings of the generator."""


def check(seen: dict[str, Any], figures: Figures) -> None:
    """Versions are right, and log-probs are those of the weights."""
    assert [0, 1] in seen["versions"]
    assert list(seen["after"]) == [1]
    for when in ("before", "after"):
        mean, largest = seen["gaps"][when]
        figures.add(f"engine against model, {when} a sync", mean, f"nats, at most {largest:.3f}")
        assert mean < PARITY < seen["gaps"]["stale"][0]


@pytest.mark.gpus(2)
@pytest.mark.timeout(200)
@pytest.mark.parametrize("kind", KINDS)
def test_every_rank_of_an_engine_takes_a_sync(kind: str, tmp_path: Path, figures: Figures) -> None:
    """Start vLLM on two GPUs (copies of a mixture with shared experts, stages, slices), sample,
    pause in flight, sync over gloo, and compare log-probs before and after.
    """
    from dataclasses import asdict

    from sppo.generators.vllm_engine import VllmEngine
    from tests import families, parallel

    family, given = KINDS[kind]
    path = families.save(family, tmp_path)
    run = parallel.settings(compute="bfloat16", **given)
    engine = VllmEngine(run, path, transport="gloo", on_cpu=False)

    async def whole() -> parallel.Seen:
        await engine.start()
        try:
            return await parallel.life(engine, path)
        finally:
            await engine.close()

    check(asdict(asyncio.run(whole())), figures)


@pytest.mark.gpus(2)
@pytest.mark.timeout(200)
def test_an_engine_on_two_nodes_of_ray_takes_a_sync(tmp_path: Path, figures: Figures) -> None:
    """Start two raylets with a GPU each, have vLLM put one engine on both through Ray, and do the
    same with it.
    """
    done = subprocess.run(
        [sys.executable, "-m", "tests.gpu.across", str(tmp_path), "cuda"],
        cwd=ROOT, capture_output=True, text=True, timeout=190,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    check(json.loads(done.stdout.splitlines()[-1]), figures)
