"""A run directory as a run leaves it, and a tracker that remembers what it was told."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from sppo.metrics import JsonLines
from sppo.track.shape import Row
from sppo.track.tracker import About


class Written:
    """Writes what a run writes, in the same order."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.metrics = JsonLines(run_dir / "metrics.jsonl")
        self.samples = JsonLines(run_dir / "samples.jsonl")
        self.events = JsonLines(run_dir / "events.jsonl")
        (run_dir / "run_id").write_text("abc")
        (run_dir / "config.toml").write_text('name = "mine"\n[learner]\nsteps = 3\n')

    def step(self, n: int, epoch: str = "A", loss: float = 0.5) -> None:
        self.samples.append(sample(n, "train", f"{epoch}{n}"))
        record = {"step": n, "time": 1000.0 + n, "epoch": epoch, "loss": loss, "reward_mean": None}
        self.metrics.append(record)

    def evaluation(self, n: int, accuracy: float = 0.25) -> None:
        self.samples.append(sample(n, "eval", f"eval{n}"))
        record = {"step": n, "accuracy": accuracy, "win_rate": None, "interval": [0.1, 0.4], "n": 9}
        self.events.append({"time": 2000.0 + n, "kind": "eval", "record": record})

    def back_to(self, n: int) -> None:
        """A new life goes on after step `n`."""
        self.events.append({"time": 3000.0, "kind": "resume", "step": n})
        self.metrics.keep_until(n)
        self.samples.keep_until(n)


def sample(step: int, stream: str, text: str) -> dict[str, Any]:
    return {
        "step": step, "stream": stream, "uid": f"{stream}-{step}", "why": ["best"],
        "messages": [{"role": "user", "content": "1 + 1?"}], "completions": [text, "3"], "of": 2,
        "rewards": [1.0, 0.0], "preferences": None, "details": None, "lengths": [1, 1],
        "finish_reasons": ["stop", "length"], "versions": [["A:0"], ["A:0"]],
        "generator": "generator-0",
    }  # fmt: skip


class Memory:
    """See `sppo.track.tracker.Tracker`."""

    def __init__(self, about: About | None = None, *, forgets: bool = False) -> None:
        self.forgets = forgets
        self.told: list[tuple[int, dict[str, float]]] = []
        self.texts: list[tuple[int, str, str]] = []
        self.flushed = 0
        self.fails: Exception | None = None
        self.fails_at = 0
        """The step at which the network is gone."""
        self.closed = 0

    def forget(self, step: int) -> None:
        assert self.forgets
        self.told = [each for each in self.told if each[0] < step]
        self.texts = [each for each in self.texts if each[0] < step]

    def figures(self, step: int, time: float, figures: Mapping[str, float]) -> None:
        if self.fails is not None:
            raise self.fails
        if step == self.fails_at and self.fails_at:
            raise OSError("no network")
        self.told.append((step, dict(figures)))

    def samples(self, step: int, time: float, stream: str, rows: Sequence[Row]) -> None:
        self.texts.append((step, stream, str(rows[0][3])))

    def flush(self) -> None:
        self.flushed += 1

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return Written(tmp_path)


def about(run_dir: Path) -> About:
    toml = (run_dir / "config.toml").read_text()
    return About(id="mine-abc", name="mine", config=json.loads('{"name": "mine", "learner": '
                 '{"steps": 3, "kernels": "auto"}}'), toml=toml, run_dir=run_dir)  # fmt: skip
