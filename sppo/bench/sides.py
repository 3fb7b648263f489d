"""The two sides of `sppo-cli bench loop` as processes, and what they have written.

Both write a run directory's `metrics.jsonl` (a line a step, with `wall_s`) and `events.jsonl`
(phases, evaluations).
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sppo import config as settings
from sppo import stop
from sppo.bench import trl_peer
from sppo.config import RunConfig
from sppo.errors import ConfigError, SppoError
from sppo.metrics import read_lines

Name = Literal["sppo", "trl"]
TITLES: dict[Name, str] = {"sppo": "sppo-cli up", "trl": "TRL's GRPOTrainer"}

PRESET = "quickstart"
ACCURACY = 0.35
WARM_UP = 2
"""First steps of each side, which are not counted."""
EVALUATE_EVERY = 5
"""Steps between the evaluations of a run to `ACCURACY`."""
BEGINS = "waiting for the first batch"
"""The phase at which start-up is over: models are loaded, and nothing is generated yet."""
OWN = ("learner.steps", "learner.checkpoint_every", "learner.device", "eval.every_steps")
"""Settings that the benchmark chooses itself."""
NEVER = 1_000_000
"""Steps: longer than any run here."""
SILENT_S = 1800.0
"""So long without a step, a side is taken for stuck."""
STOP_S = 180.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """A run to `ACCURACY`. Evaluations are a part of its seconds, start-up is not."""

    side: Name
    seconds: float | None
    """From the first batch on; None if `ACCURACY` was not reached."""
    step: int
    """The step of the last evaluation."""
    accuracy: float


class Side:
    """One run of one side.

    run = Side("trl", config, overrides, command, folder)
    run.train(10)                          # or: run.train_to_accuracy(60)
    run.startup_s, run.counted(8)          # or: run.reached()
    """

    def __init__(
        self,
        name: Name,
        config: RunConfig,
        overrides: Sequence[str],
        command: Sequence[str],
        folder: Path,
    ) -> None:
        """`config` is what the preset and `overrides` come to, `command` how `sppo-cli` is
        called.
        """
        self._name: Name = name
        self._config = config
        self._overrides = overrides
        self._command = list(command)
        self._folder = folder
        self._began = 0.0

    def train(self, steps: int) -> None:
        """Take so many steps, without evaluations. Raises SppoError if it fails or is stuck."""
        self._run(self._commanded(steps, evaluate=False), until=None)

    def train_evaluated(self, steps: int) -> None:
        """Take so many steps, with evaluations. Raises SppoError as `train`."""
        self._run(self._commanded(steps, evaluate=True), until=None)

    def train_to_accuracy(self, steps: int) -> None:
        """Take at most so many steps, with evaluations, and stop at `ACCURACY`. Raises SppoError as
        `train`.
        """
        self._run(self._commanded(steps, evaluate=True), until=ACCURACY)

    @property
    def startup_s(self) -> float:
        """Seconds from the command to the first batch."""
        return round(self._first_batch() - self._began, 1)

    def counted(self, steps: int) -> list[float]:
        """Seconds of the `steps` steps after the first `WARM_UP`, each from the end of the one
        before.
        """
        ends = [float(record["wall_s"]) for record in read_lines(self._folder / "metrics.jsonl")]
        seconds = [
            after - before
            for before, after in zip(ends[WARM_UP - 1 :], ends[WARM_UP:], strict=False)
        ]
        if len(seconds) < steps:
            raise SppoError(
                f"{self._folder}: {len(ends)} steps instead of {WARM_UP + steps}; see its logs"
            )
        return [round(s, 3) for s in seconds[:steps]]

    def reached(self) -> Reached:
        """What a run to `ACCURACY` came to."""
        begun = self._first_batch()
        events = read_lines(self._folder / "events.jsonl")
        found = [e for e in events if e["kind"] == "eval" and e["record"]["step"] > 0]
        if not found:
            raise SppoError(f"{self._folder}: no evaluation after a step; see its logs")
        last = next((e for e in found if e["record"]["accuracy"] >= ACCURACY), found[-1])
        accuracy = float(last["record"]["accuracy"])
        return Reached(
            side=self._name,
            seconds=round(last["time"] - begun, 1) if accuracy >= ACCURACY else None,
            step=int(last["record"]["step"]),
            accuracy=accuracy,
        )

    def _first_batch(self) -> float:
        """Unix time. Raises SppoError if it never came so far."""
        for event in read_lines(self._folder / "events.jsonl"):
            if event["kind"] == "phase" and event["phase"] == BEGINS:
                return float(event["time"])
        raise SppoError(f"{self._folder}: it never began to train; see its logs")

    # processes ------------------------------------------------------------------------------------
    def _run(self, command: list[str], until: float | None) -> None:
        log = self._folder / "output.log"
        self._began = time.time()
        with log.open("w", encoding="utf-8") as file:
            process = subprocess.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
            )
        try:
            with stop.interrupting():
                try:
                    code = self._watch(process, log, until)
                finally:
                    _end(process)
        finally:
            for large in ("checkpoints", "export"):  # gigabytes that nobody will look at
                shutil.rmtree(self._folder / large, ignore_errors=True)
        if code:
            error = ConfigError if code == ConfigError.exit_code else SppoError
            how = f"exit code {code}" if code > 0 else signal.Signals(-code).name
            raise error(f"{TITLES[self._name]} ended with {how}; its last lines:\n{_tail(log)}")

    def _watch(self, process: subprocess.Popen[bytes], log: Path, until: float | None) -> int:
        """Wait for its end, and return the exit code, or 0 once `until` is reached."""
        seen, at = -1, time.monotonic()
        while (code := process.poll()) is None:
            written = len(list(read_lines(self._folder / "metrics.jsonl")))
            if written != seen:
                seen, at = written, time.monotonic()
            if time.monotonic() - at > SILENT_S:
                raise SppoError(
                    f"{TITLES[self._name]}: no step in {SILENT_S:.0f} s; its output: {log}"
                )
            if until is not None and self._best_accuracy() >= until:
                return 0
            time.sleep(0.5)
        return code

    def _best_accuracy(self) -> float:
        events = read_lines(self._folder / "events.jsonl")
        return max(
            (float(e["record"]["accuracy"]) for e in events if e["kind"] == "eval"), default=0.0
        )

    def _commanded(self, steps: int, *, evaluate: bool) -> list[str]:
        self._folder.mkdir(parents=True, mode=0o700)  # as `up` makes it
        return (
            self._ours(steps, evaluate) if self._name == "sppo" else self._theirs(steps, evaluate)
        )

    def _ours(self, steps: int, evaluate: bool) -> list[str]:
        own = {
            "learner.steps": steps,
            "learner.checkpoint_every": NEVER,
            "learner.device": "cpu",
            "eval.every_steps": EVALUATE_EVERY if evaluate else NEVER,
            "compute": self._config.compute,
        } | ({} if evaluate else {"task.held_out": 0})
        sets = [*self._overrides, *(f"{key}={value}" for key, value in own.items())]
        return [
            *self._command,
            "up",
            PRESET,
            "--run-dir",
            str(self._folder),
            *(f"--set={s}" for s in sets),
        ]

    def _theirs(self, steps: int, evaluate: bool) -> list[str]:
        config = self._config
        if not evaluate:
            config = config.model_copy(
                update={"task": config.task.model_copy(update={"held_out": 0})}
            )
        job = trl_peer.Job(
            config=settings.to_json(config),
            steps=steps,
            every_steps=EVALUATE_EVERY if evaluate else NEVER,
        )
        trl_peer.write(job, self._folder / "job.json")
        return [sys.executable, "-m", trl_peer.__name__, str(self._folder)]


def _end(process: subprocess.Popen[bytes]) -> None:
    """Stop it if it is up, and wait for all that it started."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _tail(path: Path, lines: int = 15) -> str:
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
