"""An engine with two copies of a mixture, its experts shared out over them: vLLM's data and expert
parallelism, on a CPU.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import psutil
import pytest

from sppo.generators.vllm_engine import VllmEngine
from tests import families, parallel

CHANGED = Path(__file__).parents[1] / "vllm_on_cpus"
COPIES = {"data_parallel_size": 2}


async def asked(engine: VllmEngine) -> None:
    """Whether it lives, as a generator asks, until it does not."""
    while True:
        await engine.ping()
        await asyncio.sleep(0.1)


@pytest.mark.timeout(300)
def test_both_copies_take_every_sync_and_one_that_dies_ends_the_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(CHANGED), prepend=os.pathsep)
    path = families.save("mixtral", tmp_path)
    engine = VllmEngine(parallel.settings(vllm=COPIES), path, transport="gloo", on_cpu=True)

    async def life() -> parallel.Seen:
        await engine.start()
        try:
            seen = await parallel.life(engine, path)
            # When one copy is killed
            family = psutil.Process().children(recursive=True)
            copies = [p for p in family if "EngineCore_DP" in " ".join(p.cmdline())]
            assert len(copies) == 2, [p.cmdline() for p in family]
            copies[1].kill()
            with pytest.raises(Exception, match=r"EngineCore encountered an issue"):
                await asyncio.wait_for(asked(engine), 60)
            return seen
        finally:
            await engine.close()

    seen = asyncio.run(life())
    # Then completions in flight went on under the new weights in both, and what was sampled before
    # and after has the log-probs of the weights by whose version it is labelled
    assert [0, 1] in seen.versions
    assert seen.after == {1}
    assert max(*seen.gaps["before"], *seen.gaps["after"]) < families.ENGINE_NATS
