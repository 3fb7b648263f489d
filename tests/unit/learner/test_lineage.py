"""Where a life of the learner stands: what it keeps, writes, and goes on from."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from sppo.config import RunConfig
from sppo.errors import ConfigError, FencedError
from sppo.learner.orders import Keep, Load
from sppo.transport.memory import MemoryBroker
from tests import makers
from tests.unit.learner.fakes import FakeRank, lineage, saved

ITERATION = {"anchor": "iteration", "iteration_steps": 4, "steps": 8}


def config(**changes: Any) -> RunConfig:
    return makers.training(**{"steps": 8} | changes)


def test_only_kept_anchors_and_references_cost_a_snapshot(tmp_path: Path) -> None:
    for settings, kept in (
        (config(), []),
        (config(snapshot="host"), ["reference"]),
        (config(**ITERATION), ["anchor"]),
    ):
        rank = FakeRank()
        line = lineage(settings, tmp_path, rank, reference=kept == ["reference"])
        assert rank.orders == [Keep(snapshot=name, device="cpu") for name in kept]
        # From here on the published weights are another snapshot's, where one is kept
        line.advance(2)
        assert line.snapshot == "anchor"
        line.publish()
        assert line.snapshot is None
        assert len(rank.orders) == len(kept) + ("anchor" in kept)


def test_a_later_life_goes_on_from_what_was_saved(tmp_path: Path) -> None:
    # Given a life that was saved between two publications
    first = lineage(config(**ITERATION), tmp_path)
    first.begin()
    first.ledger.use([f"train-{first.ledger.issue():09d}"])
    first.synced(2.0)
    first.synced(4.0)
    first.advance(4)
    first.publish()
    first.evaluations.append({"step": 4, "accuracy": 0.5})
    first.advance(6)
    assert not first.saved
    saved(first)
    assert first.saved
    # When another begins
    rank = FakeRank()
    second = lineage(config(**ITERATION), tmp_path, rank)
    assert second.resume()
    # Then it stands where the first did, under an epoch of its own
    assert (second.n, second.published.n) == (6, 4)
    assert second.version.epoch == second.published.epoch != first.version.epoch
    assert second.ledger.state() == first.ledger.state()
    assert second.evaluated
    life = second.life()
    assert (life["syncs"], life["sync_s"], life["sync_max_s"]) == (2, 6.0, 4.0)
    assert life["wall_s"] > 0
    # and its snapshot is the one that generators ran
    load, keep = rank.orders[-2:]
    assert isinstance(load, Load)
    assert keep == Keep(snapshot="anchor", device="cpu", folder=load.folder)


def test_a_renewed_reference_is_saved_and_the_base_model_need_not_be(tmp_path: Path) -> None:
    first = lineage(config(), tmp_path, reference=True)
    first.begin()
    first.advance(2)
    saved(first)
    first.advance(4)
    first.renew_reference()
    first.advance(6)
    saved(first)
    older, newer = sorted(tmp_path.iterdir())
    assert not (older / "reference").exists()
    rank = FakeRank()
    second = lineage(config(), tmp_path, rank, reference=True)
    second.resume()
    assert rank.orders[-1] == Keep(snapshot="reference", device="cpu", folder=str(newer))
    second.begin()
    second.advance(8)
    saved(second)  # and is saved again
    assert (sorted(tmp_path.iterdir())[-1] / "reference").exists()


def test_without_a_checkpoint_nothing_is_resumed(tmp_path: Path) -> None:
    line = lineage(config(), tmp_path / "none")
    assert not line.resume()
    assert line.n == 0


def test_a_checkpoint_beyond_the_last_step_is_refused(tmp_path: Path) -> None:
    line = lineage(config(), tmp_path)
    line.begin()
    line.advance(6)
    saved(line)
    with pytest.raises(ConfigError, match=r"learner.steps = 4 is below step 6 .*; raise it"):
        lineage(config(steps=4), tmp_path).resume()


def test_a_life_that_was_replaced_writes_no_checkpoint(tmp_path: Path) -> None:
    server = MemoryBroker()
    zombie = lineage(config(), tmp_path, broker=server.session())
    zombie.begin()
    lineage(config(), tmp_path, broker=server.session()).begin()
    with pytest.raises(FencedError):
        saved(zombie)
    assert not [p for p in tmp_path.iterdir() if p.name.startswith("step")]


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path: Path) -> None:
    # Given a checkpoint that becomes visible only when it is let through
    server, let = MemoryBroker(), threading.Event()
    line = lineage(config(), tmp_path, FakeRank(1.0), broker=server)
    ours = threading.current_thread()

    def confirm() -> None:
        if threading.current_thread() is not ours:
            let.wait(30)

    line._broker.confirm_epoch = confirm  # type: ignore[method-assign]
    line.begin()
    line.ledger.use([f"train-{line.ledger.issue():09d}"])
    line.advance(2)
    line.save()
    # When a step more is taken meanwhile
    line.ledger.use([f"train-{line.ledger.issue():09d}"])
    line.evaluations.append({"step": 4})
    line.advance(4)
    assert line.durable() is None
    assert not list(tmp_path.glob("step-*"))
    let.set()
    # Then what becomes durable is as it was
    while (found := line.durable(1.0)) is None:
        pass
    assert found.writing.step == 2
    assert [found.ledger.settled(f"train-{i:09d}") for i in (0, 1)] == [True, False]
    assert not line.saved
    assert (line.durable(), line.saving) == (None, None)
    second = lineage(config(), tmp_path, broker=server)
    second.resume()
    assert (second.n, second.ledger.trained, second.evaluations) == (2, 1, [])
    life = line.life()
    assert life["saves"] == 1
    assert 0 < life["held_s"] < life["written_s"]


def test_a_checkpoint_of_another_model_is_refused_before_any_rank_loads_it(
    tmp_path: Path,
) -> None:
    line = lineage(config(), tmp_path)
    line.begin()
    saved(line)
    rank = FakeRank()
    rank.policy.master = {"v": torch.zeros(2)}
    with pytest.raises(ConfigError, match=r"another model than model.name: its 'v' is absent"):
        lineage(config(), tmp_path, rank).resume()
    assert rank.orders == []
