"""Roles started by hand, each at an address of its own, find their run on a broker with a
password.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.integration.test_end_to_end import CLI, MINUTES, records

STEPS = 12
SETTINGS = {
    "name": "by-hand", "learner.steps": STEPS, "learner.groups_per_step": 4,
    "sampling.completions": 4,
    "task.held_out": 10, "eval.every_steps": 100, "generator.replicas": 2,
    "learner.checkpoint_every": 2,
    "scorer.name": "mine:even_length",
}  # fmt: skip
MINE = """
import time

# Something to learn from in the nonsense of a small model, at a pace that others keep up with.
def even_length(question, completions, data):
    time.sleep(1)
    return [float(len(text) % 2 == 0) for text in completions]
"""


class Shop:
    """Commands with the same configuration and a scorer that lies beside them, their output in
    files.
    """

    def __init__(self, folder: Path, model: str) -> None:
        self.folder = folder
        self._model = model
        (folder / "mine.py").write_text(MINE)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._url = f"redis://127.0.0.1:{free.getsockname()[1]}"
        self._stack = ExitStack()
        self.processes: dict[str, subprocess.Popen[str]] = {}

    def start(
        self, label: str, *command: str, password: str = "geheim", **settings: object
    ) -> subprocess.Popen[str]:
        given = (
            SETTINGS
            | {"model.name": self._model, "broker.url": self._url}
            | {k.replace("__", "."): v for k, v in settings.items()}
        )
        overrides = [f"--set={key}={value}" for key, value in given.items()]
        log = self._stack.enter_context((self.folder / f"{label}.log").open("a"))
        process = subprocess.Popen(
            [CLI, command[0], "quickstart", *command[1:], *overrides], cwd=self.folder, text=True,
            stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            env=os.environ | {"SPPO_BROKER__PASSWORD": password,
                "SPPO_SCORER__TOKEN": "scorer-token"},
        )  # fmt: skip
        self.processes[label] = process
        return process

    def log(self, label: str) -> str:
        return (self.folder / f"{label}.log").read_text()

    def logs(self) -> str:
        return "\n".join(f"== {label}\n{self.log(label)[-3000:]}" for label in self.processes)

    def wait(self, label: str, text: str, minutes: float = 2) -> None:
        deadline = time.monotonic() + minutes * MINUTES
        while text not in self.log(label):
            assert self.processes[label].poll() is None, self.logs()
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.1)

    def close(self) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._stack.close()


@pytest.fixture
def shop(tmp_path: Path, small_model: str) -> Iterator[Shop]:
    opened = Shop(tmp_path, small_model)
    yield opened
    opened.close()


@pytest.mark.timeout(8 * MINUTES)
def test_roles_by_hand_find_their_run_and_another_configuration_is_refused(shop: Shop) -> None:
    # Given a broker with a password, and roles that come in any order, each at an address of this
    # machine
    shop.start("broker", "broker")
    shop.wait("broker", "serving redis://127.0.0.1:")
    shop.start("scorer", "scorer", scorer__host="127.0.0.4")
    one = shop.start("one", "generator", "--name", "one", generator__host="127.0.0.2")
    two = shop.start(
        "two", "generator", generator__host="127.0.0.3", generator__engine="transformers"
    )
    wrong = shop.start("wrong", "generator", password="falsch")
    assert wrong.wait(MINUTES) == 2
    assert "SPPO_BROKER__PASSWORD" in shop.log("wrong")
    shop.wait("one", "waiting for a learner to open run by-hand")
    learner = shop.start("learner", "learner", "--run-dir", "run")
    shop.wait("scorer", "http://127.0.0.4:")
    # When one comes with other settings, it is told which, and both names of them
    other = shop.start("other", "generator", optimizer__lr="3e-6")
    twin = shop.start("twin", "generator", "--name", "one", generator__engine="transformers")
    assert other.wait(MINUTES) == 2
    assert "optimizer.lr is 3e-06 here and 1e-05 there" in shop.log("other")
    # and so is one that takes another's name
    assert twin.wait(MINUTES) == 2
    assert "another process is at work as generator-one" in shop.log("twin")
    run_dir = shop.folder / "run"
    while len(records(run_dir)) < 2:
        assert learner.poll() is None, shop.logs()
        time.sleep(0.1)
    # When the learner is ended half-way, and comes back
    down = subprocess.run([CLI, "down", str(run_dir)], capture_output=True, text=True)
    assert (down.returncode, down.stdout.splitlines()[-1:]) == (0, ["ended"]), down.stderr
    assert learner.wait(MINUTES) == 0, shop.logs()
    assert "resume with: sppo-cli learner" in shop.log("learner")
    assert one.poll() is two.poll() is None, shop.logs()
    # one generator leaves, with what it has in hand
    one.send_signal(signal.SIGTERM)
    again = shop.start("learner", "learner", "--run-dir", "run", generator__replicas=1)
    assert one.wait(MINUTES) == 0, shop.logs()
    assert again.wait(3 * MINUTES) == 0, shop.logs()
    # Then every step and ticket is there once, both generators have worked, and they end with the
    # run
    lines = records(run_dir)
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    uids = sorted(uid for line in lines for uid in line["tickets"])
    assert uids == [f"train-{i:09d}" for i in range(4 * STEPS)]
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["finished"]
    assert summary["tickets"] == {"issued": 4 * STEPS, "trained": 4 * STEPS, "twice": 0, "dead": 0}
    events = [json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines()]
    assert {"phase", "sync", "parity", "eval", "resume"} <= {event["kind"] for event in events}
    assert events[-1] | {"time": 0} == {"kind": "phase", "phase": "done", "time": 0}
    assert two.wait(MINUTES) == 0, shop.logs()
    assert shop.processes["scorer"].wait(MINUTES) == 0
    shop.processes["broker"].send_signal(signal.SIGINT)
    assert shop.processes["broker"].wait(MINUTES) == 0
