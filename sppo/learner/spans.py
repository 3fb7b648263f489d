"""When each trained group was where: RUN/spans.jsonl, a line for each step (see `sppo.spans`).

Times are seconds since 1970 by the clock of the machine where it happened: the learner's, and the
generator's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sppo import spans
from sppo.metrics import JsonLines
from sppo.types import Group

MOST_BYTES = 32 << 20
"""Of the file: beyond it every other step is dropped."""


class Spans:
    """Those of one run."""

    def __init__(
        self, run_dir: Path, *, clock: Callable[[], float] = time.time, most_bytes: int = MOST_BYTES
    ) -> None:
        self._file = JsonLines(run_dir / spans.NAME)
        self._clock = clock
        self._most_bytes = most_bytes

    def resume(self, step: int) -> None:
        """Drop later steps: they belong to a line of training that was given up."""
        self._file.keep_until(step)

    def of_steps(self, steps: Sequence[Mapping[str, Any]], groups: Sequence[Group]) -> None:
        """These steps, of which the last has just ended, were taken with these groups."""
        by_uid = {group.uid: group for group in groups}
        end, lines = self._clock(), []
        for step in reversed(steps):
            begin = end - step["step_s"] - step["anchor_s"]
            taken = [by_uid[uid] for uid in step["tickets"] if uid in by_uid]
            lines.append(
                {
                    "step": step["step"],
                    "trained": [round(begin, 3), round(end, 3)],
                    "groups": [_line(group) for group in taken],
                }
            )
            end = begin
        self._file.append(*reversed(lines))
        if self._file.path.stat().st_size > self._most_bytes:
            kept = {line["step"] for line in self._file.read()[::2]}
            self._file.keep(lambda line: line["step"] in kept)


def _line(group: Group) -> dict[str, Any]:
    return {
        "uid": group.uid,
        "generator": group.generator,
        "completions": len(group.completions),
        "tokens": group.tokens,
        "times": [round(t, 3) for t in group.times],
    }
