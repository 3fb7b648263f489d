"""What a run has written, passed on to one tracker: each step and each evaluation once.

A life of the learner that goes on from an earlier checkpoint trains some steps again. A tracker
that forgets gets them as they are now; one that does not keeps them as they were first.
"""

from __future__ import annotations

import json
import time
import tomllib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

from sppo.config import shown
from sppo.errors import ConfigError
from sppo.track import shape
from sppo.track.lines import Lines
from sppo.track.tracker import About, Tracker

FOLDER = "track"


@dataclass(slots=True)
class Passed:
    """What a tracker has; kept in RUN/track/<tracker>.json."""

    run_id: str
    """The run's name in the broker when it was first tracked."""
    step: int = 0
    """Last step that was passed on."""
    evaluated: int = -1
    """Step of the last evaluation."""
    epochs: list[str] = field(default_factory=list)
    """Lives of the learner whose steps were passed on, in order."""

    @classmethod
    def load(cls, path: Path, run_id: str) -> Passed:
        """As it was kept, or the beginning. A directory whose run begins anew before its first step
        is another run. Raises ConfigError for a file that is damaged.
        """
        if path.exists():
            try:
                passed = cls(**json.loads(path.read_text(encoding="utf-8")))
            except (ValueError, TypeError) as error:
                raise ConfigError(
                    f"{path} is damaged, and says what this tracker has: delete it, and it gets "
                    "all of the run again"
                ) from error
            if passed.run_id == run_id or passed.step:
                return passed
        return cls(run_id)

    def save(self, path: Path) -> None:
        """Whole or not at all."""
        scratch = path.with_suffix(".partial")
        scratch.write_text(json.dumps(asdict(self)), encoding="utf-8")
        scratch.replace(path)


def about(run_dir: Path, run_id: str) -> About:
    """The run of this directory. Raises ConfigError if there is none."""
    path = run_dir / "config.toml"
    if not path.exists():
        raise ConfigError(f"{run_dir}: there is no run here: name the directory of a run")
    config = shown(tomllib.loads(path.read_text(encoding="utf-8")))
    return About(
        id=f"{config['name']}-{run_id}", name=config["name"], config=config,
        toml=tomli_w.dumps(config), run_dir=run_dir,
    )  # fmt: skip


class Follower:
    """Of one run, for one tracker."""

    def __init__(self, run_dir: Path, tracker: Tracker, passed: Passed, kept: Path) -> None:
        self._tracker = tracker
        self._passed = passed
        self._kept = kept
        self._metrics = Lines(run_dir / "metrics.jsonl")
        self._events = Lines(run_dir / "events.jsonl")
        self._samples = Lines(run_dir / "samples.jsonl")
        self._waiting: dict[tuple[str, int], list[dict[str, Any]]] = {}
        """Samples whose step or evaluation is not recorded yet."""
        self._last = 0
        """Last step that the file of metrics has."""

    def round(self) -> None:
        """Pass on what is new. Raises what the tracker raises."""
        steps, events = self._metrics.news(), self._events.news()
        if not steps and not events:
            return
        self._take_samples()  # those of a step are written before its record
        for record in steps:
            self._step(record)
        for step, event in _evaluations(events).items():
            if step > self._passed.evaluated:
                self._pass(step, event["time"], shape.evaluation(event["record"]), "eval")
                self._passed.evaluated = step
                self._keep()
        self._forget_samples()

    def close(self) -> None:
        """Let go of the run's files."""
        for lines in (self._metrics, self._events, self._samples):
            lines.close()

    def _step(self, record: dict[str, Any]) -> None:
        step, epoch, passed = record["step"], record["epoch"], self._passed
        self._last = step
        if step <= passed.step:
            if epoch in passed.epochs or not self._tracker.forgets:
                return
            self._tracker.forget(step)
            passed.step, passed.evaluated = step - 1, min(passed.evaluated, step - 1)
        self._pass(step, record.get("time", time.time()), shape.figures(record), "train")
        passed.step = step
        if epoch not in passed.epochs:
            passed.epochs.append(epoch)
        self._keep()

    def _keep(self) -> None:
        """After each, not after a round: if the next one fails, or this process is ended in it,
        those before it are not passed on twice.
        """
        self._tracker.flush()
        self._passed.save(self._kept)

    def _pass(self, step: int, at: float, figures: dict[str, float], stream: str) -> None:
        self._tracker.figures(step, at, figures)
        if found := self._waiting.pop((stream, step), None):
            self._tracker.samples(step, at, stream, shape.rows(found))

    def _take_samples(self) -> None:
        found = self._samples.news()
        if self._samples.anew:
            self._waiting.clear()
        for sample in found:
            self._waiting.setdefault((sample["stream"], sample["step"]), []).append(sample)

    def _forget_samples(self) -> None:
        """Those of steps that were passed on before."""
        over = {"train": self._last, "eval": min(self._last, self._passed.evaluated)}
        self._waiting = {key: s for key, s in self._waiting.items() if key[1] > over[key[0]]}


def _evaluations(events: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Events of evaluations by their steps, without those that were given up."""
    found: dict[int, dict[str, Any]] = {}
    for event in events:
        if event["kind"] == "eval":
            found[event["record"]["step"]] = event
        elif event["kind"] == "resume":
            found = {step: each for step, each in found.items() if step <= event["step"]}
    return found
