"""Where a life of the learner stands: what it keeps, writes, and goes on from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sppo.config import RunConfig
from sppo.errors import ConfigError, FencedError
from sppo.learner.orders import Keep, Load
from sppo.transport.memory import MemoryBroker
from tests import makers
from tests.unit.learner.fakes import FakeRank, lineage

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
    first.save()
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
    anchor = load.model.replace("model.", "anchor.")
    assert keep == Keep(snapshot="anchor", device="cpu", file=anchor)


def test_a_renewed_reference_is_saved_and_the_base_model_need_not_be(tmp_path: Path) -> None:
    first = lineage(config(), tmp_path, reference=True)
    first.begin()
    first.advance(2)
    first.save()
    first.advance(4)
    first.renew_reference()
    first.advance(6)
    first.save()
    older, newer = sorted(tmp_path.iterdir())
    assert not (older / "reference.safetensors").exists()
    rank = FakeRank()
    second = lineage(config(), tmp_path, rank, reference=True)
    second.resume()
    file = str(newer / "reference.safetensors")
    assert rank.orders[-1] == Keep(snapshot="reference", device="cpu", file=file)
    second.begin()
    second.advance(8)
    second.save()  # and is saved again
    assert (sorted(tmp_path.iterdir())[-1] / "reference.safetensors").exists()


def test_without_a_checkpoint_nothing_is_resumed(tmp_path: Path) -> None:
    line = lineage(config(), tmp_path / "none")
    assert not line.resume()
    assert line.n == 0


def test_a_checkpoint_beyond_the_last_step_is_refused(tmp_path: Path) -> None:
    line = lineage(config(), tmp_path)
    line.begin()
    line.advance(6)
    line.save()
    with pytest.raises(ConfigError, match=r"learner.steps = 4 is below step 6 .*; raise it"):
        lineage(config(steps=4), tmp_path).resume()


def test_a_life_that_was_replaced_writes_no_checkpoint(tmp_path: Path) -> None:
    server = MemoryBroker()
    zombie = lineage(config(), tmp_path, broker=server.session())
    zombie.begin()
    lineage(config(), tmp_path, broker=server.session()).begin()
    with pytest.raises(FencedError):
        zombie.save()
    assert not zombie.saved
    assert not [p for p in tmp_path.iterdir() if p.name.startswith("step")]
