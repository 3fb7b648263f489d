"""RUN/samples.jsonl: what the model said, a group a line. Written by `sppo.learner.samples`.

step             optimizer step whose batch the group was in, or which was evaluated
stream           `train` or `eval`
uid, why         its ticket; `best`, `worst`, `truncated`, `any`: why it was kept
messages         the prompt: [{"role", "content"}]
completions      [K] texts; `of`: how many the group had
rewards          [K], or null where the scorer compared
preferences      [K][K] probability that the row's is preferred, null where two did not meet; or
                 null. In an evaluation by win rate: the new answer, then the base model's
details          [K] objects, what the scorer said of each; or null
lengths          [K] tokens
finish_reasons   [K] `stop` or `length`
versions         [K] labels of the versions that sampled it, `<life>:<step>`
generator        who sampled it
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sppo.errors import ConfigError
from sppo.metrics import read_lines

SORTS = ("step", "best", "worst", "length")
NAME = "samples.jsonl"

Sample = Mapping[str, Any]


def read(run_dir: Path) -> list[Sample]:
    """Every sample of a run, in the order in which they were written. Raises ConfigError where
    there are none.
    """
    path = run_dir / NAME
    if not path.exists():
        raise ConfigError(
            f"{path}: there is no such file: name the directory of a run that has taken a step, "
            "with learner.keep_samples above 0"
        )
    return list(read_lines(path))


def select(
    samples: Sequence[Sample], *, step: int | None = None, grep: str = "", sort: str = "step"
) -> list[Sample]:
    """Those of a step (negative: counted from the last), and with a text that matches; in order.

    Raises ConfigError for a pattern or an order that is none.
    """
    if sort not in SORTS:
        raise ConfigError(f"--sort {sort}: there are {', '.join(SORTS)}")
    try:
        pattern = re.compile(grep, re.IGNORECASE)
    except re.error as error:
        raise ConfigError(f"--grep {grep!r}: no regular expression: {error}") from error
    steps = sorted({sample["step"] for sample in samples})
    if step is not None and step < 0:
        if -step > len(steps):
            raise ConfigError(f"--step {step}: there are samples of {len(steps)} steps")
        step = steps[step]
    if step is not None and step not in steps:
        raise ConfigError(f"--step {step}: there are samples of {_ranges(steps)}")
    found = [
        s for s in samples if step in (None, s["step"]) and any(map(pattern.search, _texts(s)))
    ]
    if sort == "length":
        return sorted(found, key=lambda s: -max(s["lengths"]))
    if sort in ("best", "worst"):
        return sorted(found, key=lambda s: _end(s, best=sort == "best"))
    return found


def scores(sample: Sample) -> list[float | None]:
    """[K] rewards, or mean preferences over the others that were met."""
    if sample["rewards"] is not None:
        return list(sample["rewards"])
    means: list[float | None] = []
    for i, row in enumerate(sample["preferences"]):
        met = [p for j, p in enumerate(row) if j != i and p is not None]
        means.append(sum(met) / len(met) if met else None)
    return means


def _end(sample: Sample, *, best: bool) -> float:
    found = [score for score in scores(sample) if score is not None]
    if not found:
        return float("inf")
    return -max(found) if best else min(found)


def _texts(sample: Sample) -> Iterator[str]:
    yield from (message["content"] for message in sample["messages"])
    yield from sample["completions"]


def _ranges(steps: Sequence[int]) -> str:
    if not steps:
        return "no step"
    return (
        f"step {steps[0]}" if len(steps) == 1 else f"{len(steps)} steps, {steps[0]} to {steps[-1]}"
    )
