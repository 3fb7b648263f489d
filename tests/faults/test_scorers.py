"""Scorers that die, and scorers that take their time: real services, real processes, SIGKILL."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path
from typing import Any

from sppo.metrics import read_lines
from sppo.scorer.client import HttpScorer
from sppo.types import ScoreRequest
from tests.faults.rig import CONTEXT, TOKEN, Rig
from tests.faults.scorers import JUDGE_S

GROUPS = 200
LEASE_S = 1.0
SCORERS = "tests.faults.scorers"


def serve(port: int) -> None:
    from sppo.scorer.service import Service

    service = Service(f"{SCORERS}:waits", token=TOKEN, port=port)
    service.start()
    while service.alive:
        time.sleep(0.1)


def start(port: int) -> Any:
    process = CONTEXT.Process(target=serve, args=(port,), daemon=True)
    process.start()
    return process


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def test_a_service_that_is_killed_under_load_and_comes_again_loses_no_group() -> None:
    # Given a service with 200 groups at a time
    port = free_port()
    processes = [start(port)]

    async def load() -> list[list[float]]:
        scorer = HttpScorer(lambda: [f"http://127.0.0.1:{port}"], token=TOKEN, timeout_s=30)

        async def one(n: int) -> list[float]:
            texts = [str(n), str(n + 1)]
            request = ScoreRequest(uid=f"g{n}", question="q", completions=texts, data={})
            found = (await scorer.score(request)).rewards
            assert found is not None
            return [float(x) for x in found]

        async def kill() -> None:
            processes[0].kill()
            await asyncio.to_thread(processes[0].join)
            processes.append(start(port))

        await one(0)  # it is up
        asked = [asyncio.create_task(one(n)) for n in range(GROUPS)]
        await asyncio.wait(asked, timeout=0.15)
        # When it is killed while they wait, and started again
        assert not all(task.done() for task in asked)
        await kill()
        found = await asyncio.gather(*asked)
        await scorer.close()
        return found

    try:
        found = asyncio.run(load())
    finally:
        for process in processes:
            process.kill()
            process.join()
    # Then each group has its own scores
    assert found == [[float(n), float(n + 1)] for n in range(GROUPS)]


def test_a_judge_that_takes_longer_than_a_lease_costs_time_and_nothing_else(
    model: str, tmp_path: Path
) -> None:
    # Given two generators, so that a lease that expires is taken by the other
    with Rig(tmp_path, model, generators=2, steps=2, lookahead_steps=1, keep_samples=8) as rig:
        sections = {
            "scorer": {"name": f"{SCORERS}:Judge"},
            "task": {"held_out": 0},
            "broker": {"lease_s": LEASE_S},
        }
        rig.config = rig.config.model_copy(
            update={
                name: getattr(rig.config, name).model_copy(update=changes)
                for name, changes in sections.items()
            }
        )
        assert JUDGE_S > 2 * LEASE_S
        # When they train
        rig.run()
        # Then every group was sampled while others were judged, and asked about once
        found = rig.audit()
        assert (found.twice, found.lost, found.dead, found.leftovers) == ([], [], {}, [])
        assert found.trained == found.issued == 4
        samples = list(read_lines(rig.run_dir / "samples.jsonl"))
        said = {sample["uid"]: sample["details"][0] for sample in samples}
        assert len(said) == 4
        assert {each["asked"] for each in said.values()} == {1}, rig.logs()
        assert max(each["beside"] for each in said.values()) == 4
