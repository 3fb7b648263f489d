"""What the model says, kept for whoever wants to read it: a few groups of each step and evaluation.

    RUN/samples.jsonl    one group a line, see `sppo.samples`

The group with the best completion, that with the worst, the one with the most truncated
completions, and `learner.keep_samples` others. The texts are made of the tokens here: groups travel
without them.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sppo.config import RunConfig
from sppo.metrics import JsonLines
from sppo.tasks.tickets import TicketFactory
from sppo.types import Group

TEXT = 20_000
"""Characters of a message or completion."""
COMPLETIONS = 16
"""Completions of a group; the best and the worst are among them."""
MOST_BYTES = 64 << 20
"""Of the file: beyond it every other step is dropped."""


class Samples:
    """Those of one run."""

    def __init__(
        self, config: RunConfig, run_dir: Path, tokenizer: Any, tickets: TicketFactory,
        *, most_bytes: int = MOST_BYTES,
    ) -> None:  # fmt: skip
        self._others = config.learner.keep_samples
        self._tokenizer = tokenizer
        self._tickets = tickets
        self._most_bytes = most_bytes
        self._file = JsonLines(run_dir / "samples.jsonl")

    def resume(self, step: int, evaluated: Sequence[int]) -> None:
        """Drop what belongs to a line of training that was given up: later steps than `step`, and
        evaluations of other steps than `evaluated`.
        """
        self._file.keep(
            lambda sample: (
                sample["step"] in evaluated
                if sample["stream"] == "eval"
                else sample["step"] <= step
            )
        )

    def of_steps(self, steps: Sequence[Mapping[str, Any]], groups: Sequence[Group]) -> None:
        """Keep some groups of each of these steps; `tickets` of its record says which it took."""
        by_uid = {group.uid: group for group in groups}
        for step in steps:
            taken = [by_uid[uid] for uid in step["tickets"] if uid in by_uid]
            self._keep(step["step"], taken)

    def of_evaluation(self, step: int, groups: Sequence[Group]) -> None:
        """Keep some groups of the evaluation of this step."""
        self._keep(step, groups)

    def _keep(self, step: int, groups: Sequence[Group]) -> None:
        if not self._others or not groups:
            return
        chosen = choose(groups, self._others)
        self._file.append(*(self._sample(step, groups[i], why) for i, why in chosen.items()))
        if self._file.path.stat().st_size > self._most_bytes:
            self._thin()

    def _thin(self) -> None:
        steps = sorted({sample["step"] for sample in self._file.read()})
        kept = set(steps[::2])
        self._file.keep(lambda sample: sample["step"] in kept)

    def _sample(self, step: int, group: Group, why: Sequence[str]) -> dict[str, Any]:
        group, completions = _fewer(group), len(group.completions)
        texts = [
            self._tokenizer.decode(c.token_ids.tolist(), skip_special_tokens=True)
            for c in group.completions
        ]
        return {
            "step": step,
            "stream": group.stream,
            "uid": group.uid,
            "why": list(why),
            "messages": [
                {"role": role, "content": _cut(content)}
                for role, content in self._tickets.messages(group.uid)
            ],
            "completions": [_cut(text) for text in texts],
            "of": completions,
            "rewards": _plain(group.rewards),
            "preferences": _plain(group.preferences),
            "details": group.details,
            "lengths": [len(c.token_ids) for c in group.completions],
            "finish_reasons": [c.finish_reason for c in group.completions],
            "versions": [[str(span.version) for span in c.spans] for c in group.completions],
            "generator": group.generator,
        }


def choose(groups: Sequence[Group], others: int) -> dict[int, list[str]]:
    """Positions of the groups to keep, each with the reasons."""
    cut = [sum(c.finish_reason == "length" for c in group.completions) for group in groups]
    found: dict[int, list[str]] = {}
    scores = [scores_K(group) for group in groups]
    known = [i for i, each in enumerate(scores) if not np.isnan(each).all()]
    if known:
        found.setdefault(max(known, key=lambda i: np.nanmax(scores[i])), []).append("best")
        found.setdefault(min(known, key=lambda i: np.nanmin(scores[i])), []).append("worst")
    if any(cut):
        found.setdefault(int(np.argmax(cut)), []).append("truncated")
    rest = [i for i in range(len(groups)) if i not in found]
    return found | {i: ["any"] for i in rest[:others]}


def scores_K(group: Group) -> NDArray[np.float64]:  # noqa: N802 - its shape
    """[K] rewards, or mean preferences over the others that were met; NaN where nobody was."""
    if group.rewards is not None:
        return group.rewards.astype(np.float64)
    assert group.preferences is not None
    if len(group.completions) == 1:
        return np.full(1, math.nan)
    met_KK = group.preferences.astype(np.float64)
    np.fill_diagonal(met_KK, math.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # one that met nobody
        means: NDArray[np.float64] = np.nanmean(met_KK, axis=1)
    return means


def _fewer(group: Group) -> Group:
    """With at most `COMPLETIONS` of its completions, the best and the worst among them."""
    k = len(group.completions)
    if k <= COMPLETIONS:
        return group
    scores = scores_K(group)
    ends = (
        set() if np.isnan(scores).all() else {int(np.nanargmax(scores)), int(np.nanargmin(scores))}
    )
    rest = [i for i in range(k) if i not in ends]
    return group.only(sorted([*ends, *rest[: COMPLETIONS - len(ends)]]))


def _cut(text: str) -> str:
    more = len(text) - TEXT
    return text if more <= 0 else f"{text[:TEXT]}… [{more:,} more characters]"


def _plain(values: NDArray[np.float32] | None) -> Any:
    """Numbers of three more digits than float32 tells apart, as lists; NaN as None."""
    if values is None:
        return None
    if values.ndim > 1:
        return [_plain(row) for row in values]
    return [None if math.isnan(v) else round(v, 6) for v in values.astype(np.float64).tolist()]
