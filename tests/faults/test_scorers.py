"""A scorer's service that is killed with groups in hand and started again: each group gets its own
answer, and in a run each ticket is trained once.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sppo.bench import scorer as bench
from sppo.metrics import read_lines
from tests.faults.rig import Rig
from tests.unit.scorer.judge.fake import Fake, judges, longer, serve

AT_ONCE = 200
KILLS = 2
JUDGE_S = 2.2
"""Of each call: longer than a lease of the rig."""
PLACES = 16


@pytest.mark.timeout(120)
def test_groups_in_hand_of_a_service_that_is_killed_get_their_own_answers() -> None:
    # Given a scorer that waits and one that computes, both behind the service
    found = bench.measure(at_once=AT_ONCE, rounds=1, computed=8, say=lambda _: None)
    # When it is killed with all groups in hand
    assert found.killed_in_hand == AT_ONCE
    # Then none is lost, or gets another's answer
    assert found.lost == 0
    assert found.p99_s >= found.p50_s > found.waits_s


def test_a_run_whose_scorer_is_killed_again_and_again_trains_each_ticket_once(
    model: str, tmp_path: Path
) -> None:
    with Rig(tmp_path, model, steps=6) as rig:
        for name in ("scorer-0", "generator-0", "learner-0"):
            rig.start(name)
        deadline = time.monotonic() + 90
        killed: set[str] = set()  # lives: the heartbeat of one outlives it
        while rig.step():
            assert time.monotonic() < deadline, rig.logs()
            for member in rig.broker.registry.members():
                fresh = member.name == "scorer-0" and member.life not in killed
                if fresh and member.progress > 1 and len(killed) < KILLS:
                    # When it has scored, and groups are likely to be in hand
                    os.kill(rig.pid("scorer-0"), signal.SIGKILL)
                    killed.add(member.life)
            time.sleep(0.05)
        # Then
        assert rig.deaths["scorer-0"] >= 1
        found = rig.audit()
        assert (found.twice, found.lost, found.dead, found.leftovers) == ([], [], {}, []), (
            rig.logs()
        )
        assert found.trained == found.issued == 12


@contextmanager
def slow_judge() -> Iterator[Fake]:
    """An endpoint that takes its time for each call, served beside the test."""
    there, over = threading.Event(), threading.Event()
    found: list[Fake] = []

    async def live() -> None:
        async with serve(judges(longer, JUDGE_S)) as fake:
            found.append(fake)
            there.set()
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=lambda: asyncio.run(live()), daemon=True)
    thread.start()
    assert there.wait(10)
    try:
        yield found[0]
    finally:
        over.set()
        thread.join(10)


def test_a_judge_that_is_slow_is_waited_for_and_nothing_else_stands_still(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a judge of 16 calls at a time, each longer than a lease, and 12 calls for each group
    groups, sampled_meanwhile, attempts = 4, 0, set[bytes]()
    with slow_judge() as fake:
        judge = {"url": fake.url, "model": "m", "max_concurrency": PLACES}
        scorer = {"name": "llm-judge", "judge": judge}
        with Rig(
            tmp_path, model, scorer=scorer, completions=4, steps=2, groups_per_step=groups
        ) as rig:
            for name in ("scorer-0", "generator-0", "learner-0"):
                rig.start(name)
            deadline = time.monotonic() + 90
            server = rig.broker.registry._server
            while rig.step():
                assert time.monotonic() < deadline, rig.logs()
                members = {m.name: m for m in rig.broker.registry.members()}
                if "generator-0" in members:
                    sampled_meanwhile = max(sampled_meanwhile, members["generator-0"].scoring)
                attempts |= set(server.client.hvals(server.key("attempts")))
                time.sleep(0.05)
            # When the run is over, then each ticket was lent once: no lease has expired
            found = rig.audit()
            assert (found.twice, found.lost, found.dead, found.leftovers) == ([], [], {}, [])
            assert rig.deaths.total() == 0, rig.logs()
            assert attempts == {b"1"}
            # and groups were sampled while others were with the judge, up to what is let out
            assert sampled_meanwhile >= groups
            assert fake.most_at_once == PLACES
            # and the learner waited, said for whom, and synced weights meanwhile
            said = (rig.run_dir / "logs" / "learner-0.log").read_text(encoding="utf-8")
            assert re.search(r"has waited .* groups: .*with the scorer llm-judge", said), said
            steps = list(read_lines(rig.run_dir / "metrics.jsonl"))
            assert all(step["sync_s"] < JUDGE_S for step in steps)
            assert steps[-1]["wait_s"] > JUDGE_S
            assert steps[-1]["scorer_counts"]["calls"] >= 12 * groups
