"""`sppo-cli bench objective --train`: every objective of ours for as many steps on one task.

Each is a run of the preset quickstart as a user runs it, with `objective.name` and what that one
needs, one after another, each with the machine for itself. They train on the same questions in the
same order, with the same sampling, optimizer and batch. The peer is `grpo`, which most people come
from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sppo import compute, models
from sppo import config as settings
from sppo.bench.checks import Check, at_least, unjudged
from sppo.bench.sides import OWN, PRESET, Side
from sppo.config.objectives import READS
from sppo.errors import ConfigError, SppoError
from sppo.metrics import read_lines

PEER = "grpo"
STEPS = 60
"""Steps at which the checks are judged: shorter runs have not learned enough to be compared."""
NOISE = 0.05
"""Accuracies of two runs of one seed differ by about this (docs/objective.md)."""
SETTINGS: dict[str, tuple[str, ...]] = {
    "inpo": ("objective.kappa=0.25", "objective.eta=10"),
    "rspo": ("objective.reverse_kl_coef=0.1",),
}
"""What an objective needs besides its name. At η = 1 `inpo` moves no pair further apart than
η/(2κ) = 2 nats, and with that right answers stay rare.
"""
SPENT = ("wait_s", "anchor_s", "step_s", "sync_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """One run."""

    objective: str
    steps: int
    samples: int
    """Completions that were generated for these steps."""
    seconds: float
    """Waiting, training and syncing; start-up and evaluations apart."""
    curve: dict[int, float]
    """Held-out accuracy by optimizer step."""

    @property
    def before(self) -> float:
        """Accuracy of the model that the run began with."""
        return self.curve[min(self.curve)]

    @property
    def after(self) -> float:
        """Accuracy at the end."""
        return self.curve[max(self.curve)]


def measure(
    steps: int,
    overrides: Sequence[str],
    command: Sequence[str],
    folder: Path,
    say: Callable[[str], None],
) -> list[Trained]:
    """Each objective in turn. Everything that the runs write is kept in `folder`.

    `command` is how `sppo-cli` is called. Raises ConfigError for settings that do not fit,
    SppoError where a run does not take its steps.
    """
    for key in (override.partition("=")[0] for override in overrides):
        if key in OWN or key == "objective.name":
            raise ConfigError(f"--set {key}: `bench objective --train` chooses it itself")
    found = []
    for name in READS:
        mine = [*overrides, f"objective.name={name}", *SETTINGS.get(name, ())]
        config = settings.load(PRESET, [*mine, "learner.device=cpu"])
        config = compute.decided(config, cuda=False)
        models.resolve(config.model)  # converted once, before anything is timed
        say(f"{name}, {steps} steps ...")
        Side("sppo", config, mine, command, folder / name).train_evaluated(steps)
        found.append(trained(name, folder / name, config.sampling.completions))
        say(f"  {found[-1].after:.3f} in {found[-1].seconds:.0f} s")
    return found


def trained(name: str, folder: Path, completions: int) -> Trained:
    """What a run of groups of so many completions has written. Raises SppoError if it has no step
    or no evaluation.
    """
    records = list(read_lines(folder / "metrics.jsonl"))
    events = [e for e in read_lines(folder / "events.jsonl") if e["kind"] == "eval"]
    if not records or not events:
        raise SppoError(f"{folder}: no step or no evaluation; see its logs")
    return Trained(
        objective=name,
        steps=len(records),
        samples=completions * sum(len(record["tickets"]) for record in records),
        seconds=round(sum(record[kind] for record in records for kind in SPENT), 1),
        curve={int(e["record"]["step"]): float(e["record"]["accuracy"]) for e in events},
    )


def checks(found: Sequence[Trained]) -> list[Check]:
    """That each learned, and that `sppo` is not behind the peer by more than runs differ."""
    accuracy = {run.objective: run.after for run in found}
    judged = [
        at_least(f"{run.objective}_learned", run.after, run.before + NOISE, "held-out accuracy")
        for run in found
    ]
    bar = accuracy[PEER] - NOISE
    unit = f"held-out accuracy, against {PEER}'s {accuracy[PEER]:.3f} of the same bench"
    judged.append(at_least(f"sppo_vs_{PEER}", accuracy["sppo"], bar, unit))
    long_enough = all(run.steps >= STEPS for run in found)
    return judged if long_enough else [unjudged(check) for check in judged]


def table(found: Sequence[Trained]) -> list[str]:
    """Lines for people."""
    head = f"{'objective':10} {'before':>7} {'after':>7} {'seconds':>8} {'samples':>8} {'per s':>7}"
    return [head] + [
        f"{run.objective:10} {run.before:7.3f} {run.after:7.3f} {run.seconds:8.0f} "
        f"{run.samples:8} {run.samples / run.seconds:7.2f}"
        for run in found
    ]
