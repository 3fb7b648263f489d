"""Settings of a run as small as can be, and a scorer that sets its pace."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TINY: dict[str, object] = {
    "learner.device": "cpu", "learner.threads": 1, "compute": "float32",
    "sampling.completions": 4, "sampling.max_tokens": 8, "task.max_prompt_tokens": 96,
    "task.held_out": 0, "eval.every_steps": 1000, "generator.engine": "transformers",
    "generator.threads": 1, "generator.host": "auto", "weights.host": "auto",
    "weights.trusted_network": "true", "scorer.host": "auto", "scorer.name": "mine:even_length",
}  # fmt: skip
SCORER = """
import fcntl, time
from pathlib import Path

# One group at a time over all machines, at the pace that the test sets.
def even_length(question, completions, data):
    with open({folder!r} + "/turn", "w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        time.sleep(float(Path({folder!r}, "pace").read_text()))
    return [float(len(text) % 2 == 0) for text in completions]
"""


def write_scorer(folder: Path) -> None:
    """`mine.py`, to be found by roles that start in this folder."""
    (folder / "mine.py").write_text(SCORER.format(folder=str(folder)))
    pace(folder, 0.05)


def pace(folder: Path, seconds: float) -> None:
    """For each group from now on."""
    (folder / "pace.new").write_text(str(seconds))
    (folder / "pace.new").rename(folder / "pace")


def records(run_dir: Path) -> list[dict[str, Any]]:
    """What was written of each step."""
    path = run_dir / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
