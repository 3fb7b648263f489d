"""One run on two machines, each a network namespace with a Ray node: `sppo-cli up` under a slow
link, a cable that comes out, and a machine that dies and is replaced.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import broker
from tests.cluster.machines import Lan, Machine, lan
from tests.cluster.roles import TINY, pace, records, write_scorer

HERE = Path(__file__).parent
CLI = str(Path(sys.executable).with_name("sppo-cli"))
RAY_PORT = 6380
GROUPS, STEPS = 4, 24
LINK_S = 0.05
CUT_S = 4.0
BAR_S = 60.0
ENVIRONMENT = {
    "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a1" * 32, "OMP_NUM_THREADS": "1",
    # How soon Ray believes that a machine is gone: docs/operations.md.
    "RAY_health_check_period_ms": "1000", "RAY_health_check_timeout_ms": "2000",
    "RAY_worker_niceness": "0",
    "SPPO_BROKER__PASSWORD": broker.PASSWORD, "SPPO_SCORER__TOKEN": "scorer-token",
    "PYTHONPATH": os.pathsep.join([str(HERE.parent / "vllm_on_cpus"), str(HERE.parents[1])]),
}  # fmt: skip
SETTINGS = TINY | {
    "name": "machines", "learner.steps": STEPS, "learner.groups_per_step": GROUPS,
    "learner.checkpoint_every": 4, "generator.replicas": 2,
    # A machine of three CPUs holds a generator and one of the learner's two ranks, and is full.
    "generator.cpus": 1, "learner.cpus": 2, "learner.ranks": 2,
}  # fmt: skip


class Site:
    """Machines with Ray on them, a broker, and `up`."""

    def __init__(self, folder: Path, network: Lan, model: str, settings: dict[str, object]) -> None:
        self.folder, self.network = folder, network
        self.run_dir = folder / "run"
        self.settings = SETTINGS | settings | {"model.name": model}
        write_scorer(folder)

    def start(self, other: Machine) -> None:
        """Ray, on the first machine and this one."""
        east = self.network.machines["east"]
        self.join(east, "--head", f"--port={RAY_PORT}", "--include-dashboard=false")
        self.join(other, f"--address={east.address}:{RAY_PORT}")

    def join(self, machine: Machine, *words: str) -> None:
        """A Ray node of three CPUs, and one that calls itself a GPU, on this machine."""
        command = machine.command(
            sys.executable, "-m", "ray.scripts.scripts", "start", "--num-cpus=3", "--num-gpus=1",
            f"--node-ip-address={machine.address}", "--object-store-memory=80000000",
            "--disable-usage-stats", *words,
        )  # fmt: skip
        done = subprocess.run(
            command, cwd=self.folder, env=os.environ | ENVIRONMENT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def up(self, machine: Machine) -> None:
        own = {"launch.ray_address": f"{machine.address}:{RAY_PORT}"}
        given = [f"--set={key}={value}" for key, value in (self.settings | own).items()]
        with (self.folder / "up.log").open("w") as log:
            self.process = subprocess.Popen(
                machine.command(CLI, "up", "quickstart", "--run-dir", str(self.run_dir), *given),
                cwd=self.folder, env=os.environ | ENVIRONMENT, stdout=log,
                stderr=subprocess.STDOUT,
            )  # fmt: skip

    def wait(self, ready: Callable[[], bool], seconds: float = 120) -> float:
        """Until it is so; returns the seconds that this took."""
        began = time.monotonic()
        while not ready():
            assert self.process.poll() is None, self.logs()
            assert time.monotonic() - began < seconds, self.logs()
            time.sleep(0.05)
        return time.monotonic() - began

    def steps(self) -> list[dict[str, Any]]:
        return records(self.run_dir)

    def events(self, kind: str) -> list[dict[str, Any]]:
        path = self.run_dir / "events.jsonl"
        found = [json.loads(line) for line in path.read_text().splitlines()]
        return [event for event in found if event["kind"] == kind]

    def train(self, steps: int, seconds: float = 120) -> float:
        """Wait for so many more steps; returns the seconds that this took."""
        target = len(self.steps()) + steps
        return self.wait(lambda: len(self.steps()) >= target, seconds)

    def at_work(self) -> set[str]:
        """Machines of generators that have sampled."""
        members = json.loads((self.run_dir / "status.json").read_text()).get("members", {})
        return {member["host"] for member in members.values() if member.get("tokens")}

    def said(self) -> str:
        return (self.folder / "up.log").read_text()

    def logs(self) -> str:
        logs = sorted((self.run_dir / "logs").glob("*.log"))
        return "\n".join(f"== {p.name}\n{p.read_text()[-2000:]}" for p in logs) + self.said()

    def close(self) -> None:
        process = getattr(self, "process", None)
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait()


@pytest.fixture
def site(tmp_path: Path, tiny_model: str) -> Iterator[Site]:
    with ExitStack() as stack:
        network = stack.enter_context(lan("east", "west", "south"))
        east = network.add("east")
        at = stack.enter_context(broker.serving(east, tmp_path))
        made = Site(tmp_path, network, tiny_model, at)
        stack.callback(made.close)
        yield made


@pytest.mark.timeout(600)
def test_a_run_on_two_machines_outlives_link_and_machine(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    told: dict[str, float] = {}
    network, east = site.network, site.network.machines["east"]
    began = time.monotonic()
    # Given a Ray node on each of two machines, and a run on both
    west = network.add("west")
    site.start(west)
    site.up(east)
    site.wait(lambda: len(site.steps()) >= 2, 240)
    site.wait(lambda: site.at_work() == {"east", "west"})
    told["from nothing to the second step"] = time.monotonic() - began
    # When each packet takes 50 ms
    network.delay(LINK_S)
    told[f"2 steps at {LINK_S * 1000:.0f} ms each way"] = site.train(2)
    # When the cable of one is out for a while
    network.cut(west)
    time.sleep(CUT_S)
    network.mend(west)
    told[f"the next 2 steps after {CUT_S:.0f} s without a cable"] = site.train(2)
    # Then nobody was started again for that
    assert site.events("restart") == [], site.logs()
    # When one machine dies, and another takes its place
    network.delay(0)
    killed, life = time.monotonic(), site.steps()[-1]["epoch"]
    network.lose(west)
    site.join(network.add("south"), f"--address={east.address}:{RAY_PORT}")
    site.wait(lambda: site.steps()[-1]["epoch"] != life, 240)
    recovered = told["from a killed node to the next trained step"] = time.monotonic() - killed
    site.wait(lambda: site.at_work() == {"east", "south"}, 120)
    told["from a killed node to all roles at work"] = time.monotonic() - killed
    pace(site.folder, 0)
    assert site.process.wait(120) == 0, site.logs()
    told["in all"] = time.monotonic() - began
    with capsys.disabled():
        print(*(f"\n  {what}: {seconds:.1f} s" for what, seconds in told.items()))
    # Then each step and ticket is there once, and what was said names the machine
    lines = site.steps()
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert sorted(uid for line in lines for uid in line["tickets"]) == [
        f"train-{i:09d}" for i in range(GROUPS * STEPS)
    ]
    tickets = json.loads((site.run_dir / "summary.json").read_text())["tickets"]
    issued = GROUPS * STEPS
    assert tickets == {"issued": issued, "trained": issued, "twice": 0, "dead": 0}
    said = [event["text"] for event in site.events("restart")]
    assert any("no heartbeat from west" in text for text in said), said
    assert all(" west" in text or " on east" in text for text in said), said
    assert recovered < BAR_S


@pytest.mark.skipif(os.environ.get("FAULTS") != "long", reason="minutes: make test-faults")
@pytest.mark.timeout(600)
def test_an_engine_on_two_machines_trains_a_learner_and_ends_with_one(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    # Given a Ray node on each of two machines with one GPU, and an engine of two ranks
    east, began = site.network.machines["east"], time.monotonic()
    site.start(site.network.add("west"))
    engine = {
        "name": "across", "learner.steps": 5000, "learner.groups_per_step": 2, "learner.ranks": 1,
        "generator.engine": "vllm", "generator.tensor_parallel": 2, "generator.max_groups": 4,
        "generator.replicas": 1, "generator.kv_cache_gib": 0.05, "scorer.mode": "inline",
        "weights.trusted_network": True,
    }  # fmt: skip
    leader = subprocess.Popen(
        east.command(sys.executable, "-m", "tests.cluster.across", f"{east.address}:{RAY_PORT}"),
        cwd=site.folder, env=os.environ | ENVIRONMENT, text=True, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert leader.stdin is not None
    assert leader.stdout is not None
    leader.stdin.write(json.dumps(site.settings | engine) + "\n")
    leader.stdin.close()
    said, log = [], site.folder / "across" / "logs" / "generator-0.log"
    try:
        for line in leader.stdout:
            said.append(line)
            if line.startswith("trained"):
                # When a learner has trained with it, and the rank on the other machine is killed
                ranks = re.findall(r"ranks of the engine: 0 on (\w+), 1 on (\w+)", log.read_text())
                assert sorted(ranks[0]) == ["east", "west"]
                (rank,) = site.network.machines[ranks[0][1]].ranks()
                os.kill(rank, signal.SIGKILL)
        # Then the engine has ended, on both machines, and another life begins
        assert leader.wait(10) == 0, "".join(said) + log.read_text()[-4000:]
    finally:
        leader.kill()
    kinds = ("trained", "ended", "again")
    assert tuple(word for line in said for word in line.split()[:1] if word in kinds) == kinds
    (ended,) = [line for line in said if line.startswith("ended")]
    assert re.search(r"its engine on (east and west|west and east), ended by itself", ended)
    with capsys.disabled():
        print(f"\n  an engine on both, that ended and came back: {time.monotonic() - began:.1f} s")
