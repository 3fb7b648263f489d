"""When a difference between engine and learner is warned of, when it ends a run, and probes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from sppo.errors import ParityError
from sppo.learner.gaps import Gaps
from sppo.learner.orders import Drop, Keep
from sppo.learner.parity import STRIKES, Judge, Parity
from sppo.transport.memory import MemoryBroker
from sppo.types import Group, Version
from tests import makers
from tests.unit.learner.fakes import FakeRank, events, lineage, records

LENGTHS = (40, 3, 80)


def gaps(shape: Any) -> Gaps:
    """Those of completions whose token i of n is off by `shape(i, n)` nats."""
    gap_T = torch.tensor([float(shape(i, n)) for n in LENGTHS for i in range(n)])
    return Gaps.of(gap_T, torch.tensor([0, 40, 43, 123]), torch.ones(123, dtype=torch.bool))


def judge(**changes: Any) -> Judge:
    return Judge(makers.run_config(learner=changes).model_copy(update={"compute": "float32"}))


def test_a_first_batch_that_differs_ends_the_run_with_figures_and_cause() -> None:
    judge().check(gaps(lambda i, n: 0.009))
    with pytest.raises(
        ParityError, match=r"by 0.5 nats a token in float32, .*parity_threshold = 0.01; it is ev"
    ):
        judge().check(gaps(lambda i, n: 0.5))
    with pytest.raises(ParityError, match="nan nats"):
        judge().check(gaps(lambda i, n: float("nan")))


def test_later_ones_warn_and_only_a_third_in_a_row_ends_it() -> None:
    judged, good, bad = judge(parity_threshold=0.2), gaps(lambda i, n: 0.1), gaps(lambda i, n: 0.3)
    assert judged.judge(good, 1) == ""
    for step in (2, 4):  # two in a row, twice
        assert judged.judge(bad, step).startswith(f"step {step}: engine and learner differ by 0.3")
        assert judged.judge(bad, step + 1)
        assert judged.doubtful
        assert judged.judge(Gaps.join([]), step + 1) == ""  # nothing seen says nothing
        assert judged.judge(good, step + 1) == ""
        assert not judged.doubtful
    for step in range(STRIKES - 1):
        judged.judge(bad, step)
    with pytest.raises(ParityError, match="the 3 last times that it was measured"):
        judged.judge(bad, STRIKES)


class Setting:
    """Parity where every measurement gives `gap` nats, of the groups that it was asked about."""

    def __init__(self, folder: Path, gap: float, **changes: Any) -> None:
        config = makers.training(parity_threshold=0.2, groups_per_step=2, **changes)
        self.config = config.model_copy(update={"compute": "float32"})
        self.broker, self.rank, self.gap = MemoryBroker(), FakeRank(), gap
        self.line = lineage(self.config, folder / "c", self.rank)
        self.asked: list[tuple[int, Version, str | None]] = []
        told = records(self.config, self.broker, folder)
        self.parity = Parity(self.config, self.rank, self.measure, told)  # type: ignore[arg-type]

    def measure(
        self, groups: Sequence[Group], version: Version, snapshot: str | None = None
    ) -> Gaps:
        self.asked.append((len(groups), version, snapshot))
        return gaps(lambda i, n: self.gap) if groups else Gaps.join([])


def test_the_first_batch_is_measured_at_the_published_weights(tmp_path: Path) -> None:
    there = Setting(tmp_path, 0.1)
    there.line.advance(2)  # a life that goes on between two snapshots
    there.parity.check_first([makers.group()], there.line)
    assert there.asked == [(1, there.line.published, "anchor")]
    (event,) = events(there.broker, "parity")
    assert (event["threshold"], event["compute"]) == (0.2, "float32")
    with pytest.raises(ParityError):
        Setting(tmp_path, 0.3).parity.check_first([makers.group()], there.line)


def test_a_probe_waits_for_what_was_sampled_with_its_weights(tmp_path: Path) -> None:
    there = Setting(tmp_path, 0.3)
    there.parity.finish_probe([makers.group()], there.line)
    assert there.asked == []  # none is begun
    # Given weights that are kept, and trained on
    version = there.line.version
    there.parity.start_probe(there.line)
    there.line.advance(1)
    there.line.publish()
    there.parity.finish_probe([makers.group()], there.line)  # of another version
    assert there.parity.probe is None
    # When groups of theirs have come in: of three, as many as a batch has
    waiting = [makers.group(f"train-{i:09d}", version=version) for i in range(3)]
    there.parity.finish_probe([makers.group(), *waiting], there.line)
    # Then it is over, and judged
    assert there.asked[-1] == (2, version, "probe")
    assert there.parity.probe == pytest.approx(0.3)
    assert there.rank.orders[-2:] == [
        Keep(snapshot="probe", device="cpu"), Drop(snapshot="probe")
    ]  # fmt: skip
    assert there.parity.doubtful
    assert "step 1: engine and learner differ" in events(there.broker, "warning")[0]["text"]


def test_a_probe_of_the_published_weights_is_left_to_the_steps_to_judge(tmp_path: Path) -> None:
    there = Setting(tmp_path, 0.3)
    there.parity.start_probe(there.line)
    there.parity.finish_probe([makers.group(version=there.line.version)], there.line)
    assert there.parity.probe == pytest.approx(0.3)
    assert not there.parity.doubtful


def test_where_steps_are_at_another_temperature_the_published_snapshot_is_probed_and_judged(
    tmp_path: Path,
) -> None:
    # Given an iteration's anchor, whose steps cannot be compared with the engines
    there = Setting(
        tmp_path, 0.3, anchor="iteration", iteration_steps=4, temperature=0.5, weight="none"
    )
    there.line.advance(2)
    # When a probe is begun
    there.parity.start_probe(there.line)
    there.parity.finish_probe([makers.group(version=there.line.published)], there.line)
    # Then no copy is made: the weights that generators run are kept already; and it is judged
    assert there.asked == [(1, there.line.published, "anchor")]
    assert there.rank.orders == [Keep(snapshot="anchor", device="cpu")]  # by the iteration
    assert there.parity.doubtful
