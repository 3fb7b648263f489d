r"""The plot of the README: a run's curves, and how many completions it had trained by when, beside
TRL's.

    python -m tests.bench.curves examples/records/quickstart --trl examples/records/trl \
      --out docs/quickstart.png

The first is the directory of a run; the folder of TRL is one that `sppo-cli bench loop --out`
leaves (`trl-1`, or `trl-accuracy`, whose evaluations are drawn as well). Seconds are counted from
the first batch on, evaluations included.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sppo.metrics import JsonLines

WINDOW = 5
"""Steps over which rewards are averaged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """One run. Seconds are from the end of its first evaluation, or from its first batch."""

    steps: list[int]
    seconds: list[float]
    rewards: list[float]
    """Empty where the run wrote none."""
    evaluations: list[tuple[float, float, float, float]]
    """Seconds, accuracy, and the ends of its interval (equal to it where none was written)."""


def read(folder: Path) -> Curves:
    """What `folder` says. Of ours a step has ended when its weights were out, of TRL's when its
    callback says so.
    """
    metrics = JsonLines(folder / "metrics.jsonl").read()
    events = JsonLines(folder / "events.jsonl").read()
    began = next(e["time"] for e in events if e.get("phase") == "waiting for the first batch")
    published = {e["step"]: e["time"] - began for e in events if e["kind"] == "sync"}
    return Curves(
        steps=[m["step"] for m in metrics],
        seconds=[published.get(m["step"], m["wall_s"]) for m in metrics],
        rewards=[m["reward_mean"] for m in metrics if "reward_mean" in m],
        evaluations=[
            (max(0.0, e["time"] - began), *_figures(e["record"]))
            for e in events
            if e["kind"] == "eval"
        ],
    )


def _figures(record: dict[str, Any]) -> tuple[float, float, float]:
    accuracy = record["accuracy"]
    low, high = record.get("interval") or (accuracy, accuracy)
    return accuracy, low, high


def smooth(values: list[float]) -> list[float]:
    """The mean of up to `WINDOW` values that end with each."""
    parts = [values[max(0, i + 1 - WINDOW) : i + 1] for i in range(len(values))]
    return [sum(part) / len(part) for part in parts]


def draw(ours: Curves, trl: Curves | None, completions: int, path: Path) -> None:
    """Accuracy and reward by seconds on the left, completions trained by seconds on the right."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    _learning(left, ours, "C0", "sppo")
    right.plot(
        ours.seconds, [completions * s for s in ours.steps], "C0", label="sppo-cli up quickstart"
    )
    if trl is not None:
        _learning(left, trl, "C1", "TRL")
        right.plot(
            trl.seconds, [completions * s for s in trl.steps], "C1", label="TRL 1.16, GRPOTrainer"
        )
    left.set_ylabel("share of right answers")
    left.legend(fontsize=8, loc="lower right")
    right.set_ylabel("completions trained")
    right.legend(fontsize=8, loc="upper left")
    for axes in (left, right):
        axes.set_xlabel("seconds from the first batch")
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def _learning(axes: Axes, run: Curves, color: str, name: str) -> None:
    if run.rewards:
        label = f"{name}: reward in training, mean of {WINDOW} steps"
        axes.plot(run.seconds, smooth(run.rewards), color, alpha=0.5, label=label)
    if run.evaluations:
        at, accuracy, low, high = zip(*run.evaluations, strict=True)
        spread = [[a - b for a, b in zip(accuracy, low, strict=True)],
                  [b - a for a, b in zip(accuracy, high, strict=True)]]  # fmt: skip
        label = f"{name}: 200 held-out questions, greedy"
        axes.errorbar(at, accuracy, yerr=spread, fmt="o", color=color, capsize=3, label=label)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--trl", type=Path)
    parser.add_argument("--completions", type=int, default=64, help="of a step")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    draw(read(given.run), read(given.trl) if given.trl else None, given.completions, given.out)


if __name__ == "__main__":
    main()
