"""Whether engine and learner agree about the same tokens under the same weights, judged all along.

The first batch that was sampled at the learner's own weights must agree, or the run ends. Later a
mean above the threshold is a warning, and the third in a row ends the run, with the likely cause by
where in completions it lies. Where groups are stale no step sees a completion of its own version:
weights are kept now and then, as a probe, until what the generators sampled with them has come in.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

from sppo.config import RunConfig
from sppo.errors import ParityError
from sppo.learner.gaps import Gaps, likely_cause
from sppo.learner.lineage import Lineage
from sppo.learner.model import Snapshot
from sppo.learner.objectives import anchors
from sppo.learner.orders import Drop, Keep, Rank
from sppo.learner.records import Records
from sppo.types import Group, Version
from sppo.watch.said import Finding
from sppo.watch.steps import PARITY_NATS

log = logging.getLogger(__name__)

STRIKES = 3
"""Warnings in a row that end a run."""


class Measure(Protocol):
    """`sppo.learner.step.Trainer.mismatch`."""

    def __call__(
        self, groups: Sequence[Group], version: Version, snapshot: Snapshot | None = None
    ) -> Gaps:
        """|engine − learner| of the tokens that `version` sampled, whose weights are the
        snapshot's, or the policy's own.
        """


class Judge:
    """What follows from the gaps of one life of the learner."""

    def __init__(self, config: RunConfig) -> None:
        self.threshold = config.learner.parity_threshold or PARITY_NATS[config.compute]
        self._compute = config.compute
        self._strikes = 0

    def check(self, gaps: Gaps) -> None:
        """Raises ParityError for a first batch on which engine and learner do not agree."""
        if (mean := gaps.mean) is not None and not mean <= self.threshold:
            raise ParityError(self._words(gaps, mean))

    def judge(self, gaps: Gaps, step: int) -> str:
        """What to warn of, or nothing. Raises ParityError at the third warning in a row."""
        mean = gaps.mean
        if mean is None:
            return ""
        if mean <= self.threshold:
            self._strikes = 0
            return ""
        self._strikes += 1
        words = f"step {step}: {self._words(gaps, mean)}"
        if self._strikes >= STRIKES:
            raise ParityError(f"{words} (the {STRIKES} last times that it was measured)")
        return words

    @property
    def doubtful(self) -> bool:
        """Whether the last measurement was a warning."""
        return self._strikes > 0

    def _words(self, gaps: Gaps, mean: float) -> str:
        return (
            f"engine and learner differ by {mean:.3g} nats a token in {self._compute}, above "
            f"learner.parity_threshold = {self.threshold:g}; {likely_cause(gaps)}"
        )


class Parity:
    """Measures, and has it judged. Raises ParityError where the run must end."""

    def __init__(self, config: RunConfig, rank: Rank, measure: Measure, records: Records) -> None:
        self._judge = Judge(config)
        self._compute = config.compute
        self._most = config.learner.groups_per_step
        self._rank = rank
        self._measure = measure
        self._records = records
        self._kept = anchors.make(config.objective.anchor, config.objective.iteration_steps).keeps
        self._steps_compare = config.policy_temperature == config.sampling.temperature
        self._probing: Version | None = None
        self.probe: float | None = None
        """Nats a token by the newest probe that is done."""

    @property
    def doubtful(self) -> bool:
        """Whether the last measurement was a warning."""
        return self._judge.doubtful

    def check_first(self, groups: list[Group], lineage: Lineage) -> None:
        """On the first batch, before it is trained."""
        self._records.phase("checking parity")
        gaps = self._measure(groups, lineage.published, lineage.snapshot)
        if gaps.mean is None:
            log.info(
                "parity: no completion of the first batch was sampled at this version; not checked"
            )
            return
        threshold = self._judge.threshold
        self._records.event(
            "parity", mismatch=gaps.mean, threshold=threshold, compute=self._compute
        )
        log.info(
            "parity: mean |engine − learner| log-prob %.2g nats (threshold %g)",
            gaps.mean, threshold,
        )  # fmt: skip
        self._judge.check(gaps)

    def judge(self, gaps: Gaps, step: int) -> None:
        """Warn of what a step or a probe saw."""
        warning = self._judge.judge(gaps, step)
        if gaps.mean is not None:
            found = Finding("parity", warning, gaps.mean) if warning else None
            self._records.judged("parity", found)

    def start_probe(self, lineage: Lineage) -> None:
        """Remember these weights, so that parity can be measured on what generators sample with
        them meanwhile; where the published weights are kept anyway, with those.
        """
        if not self._kept:
            self._rank.do(Keep(snapshot="probe", device="cpu"))
        self._probing = lineage.version

    def finish_probe(self, waiting: Sequence[Group], lineage: Lineage) -> None:
        """Measure on what has come in of the remembered version, if anything has."""
        version = self._probing
        if version is None:
            return
        if self._kept:
            version = lineage.published
        if not (groups := [g for g in waiting if version in g.versions()]):
            return
        with self._records.usage.on("probe"):
            snapshot = lineage.snapshot if self._kept else "probe"
            gaps = self._measure(groups[: self._most], version, snapshot)
        if gaps.mean is None:
            return
        self.probe, self._probing = gaps.mean, None
        if not self._kept:
            self._rank.do(Drop(snapshot="probe"))
        log.info(
            "probe: mean |engine − learner| log-prob %.2g nats at step %d", gaps.mean, version.n
        )
        # Else the step sees the same tokens, and is judged by them.
        if version != lineage.published or not self._steps_compare:
            self.judge(gaps, lineage.n)
