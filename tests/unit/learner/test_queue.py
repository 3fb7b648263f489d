"""The learner's queue over the in-memory broker: admission, dedup, settlement, and resume after a
crash.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sppo.config import BrokerConfig
from sppo.errors import FencedError
from sppo.learner.ledger import Ledger
from sppo.learner.queue import GroupQueue
from sppo.learner.spool import Spool
from sppo.tasks.questions import Question, Questions
from sppo.tasks.tickets import TicketFactory
from sppo.transport.broker import PushResult
from sppo.transport.memory import MemoryBroker
from sppo.transport.memory_tickets import Work
from sppo.types import Version
from tests import makers

QUESTIONS = Questions(
    train=tuple(
        Question(source=f"train {i}", text=f"train {i}", data={"answer": i}) for i in range(40)
    ),
    held_out=tuple(
        Question(source=f"held out {i}", text=f"held out {i}", data={"answer": i}) for i in range(3)
    ),
)


class Life:
    """One life of a learner on a shared broker."""

    def __init__(
        self, server: MemoryBroker, epoch: str, ledger: Ledger | None = None, *,
        folder: Path | None = None,
        limits: BrokerConfig | None = None,
    ) -> None:  # fmt: skip
        self.broker = server.session()
        self.ledger = ledger or Ledger()
        tickets = TicketFactory(makers.run_config(), QUESTIONS, makers.WordTokenizer())
        self.queue = GroupQueue(
            self.broker,
            tickets,
            self.ledger,
            Spool(folder or Path(tempfile.mkdtemp())),
            limits=limits or BrokerConfig(),
            vocabulary=100,
        )
        self.version = Version(epoch=epoch, n=0)
        self.broker.tickets.open_epoch(epoch)

    def generate(self, count: int) -> list[str]:
        """What a generator does with `count` tickets."""
        done = []
        for _ in range(count):
            lease = self.broker.leases.lease(self.version)
            if lease is None:
                break
            self.broker.leases.push(makers.group(lease.ticket.uid, version=self.version))
            done.append(lease.ticket.uid)
        return done

    def step(self, groups: int) -> list[str]:
        self.queue.receive(0)
        batch = self.queue.batch(groups)
        assert batch is not None
        self.queue.use(batch)
        return [g.uid for g in batch]


@pytest.fixture
def server() -> MemoryBroker:
    return MemoryBroker(BrokerConfig(lease_s=60))


def test_admission_counts_tickets_not_yet_used(server: MemoryBroker) -> None:
    life = Life(server, "a")
    life.queue.admit(4, 0)
    assert len(life.generate(10)) == 4  # the cap
    life.queue.admit(4, 0)
    assert life.generate(10) == []  # generated is still outstanding
    life.step(2)
    life.queue.admit(4, 1)
    assert len(life.generate(10)) == 0  # these want weights of step 1
    life.version = Version(epoch="a", n=1)
    assert len(life.generate(10)) == 2


def test_groups_are_used_oldest_first_and_never_twice(server: MemoryBroker) -> None:
    life = Life(server, "a")
    life.queue.admit(6, 0)
    life.generate(6)
    assert life.step(2) == ["train-000000000", "train-000000001"]
    life.queue.receive(0)
    assert life.step(4) == [f"train-{i:09d}" for i in (2, 3, 4, 5)]
    assert life.queue.batch(1) is None


def test_settlement_follows_the_checkpoint(server: MemoryBroker) -> None:
    life = Life(server, "a")
    life.queue.admit(2, 0)
    life.generate(2)
    life.step(2)
    assert server.depths()["queued"] == 2  # in memory only: a crash must find them again
    life.queue.settle(life.ledger)
    assert server.depths() == {
        "todo": 0,
        "eval": 0,
        "leased": 0,
        "queued": 0,
        "dead": 0,
        "bytes": 0,
    }


def test_what_was_used_since_the_checkpoint_began_is_not_settled(server: MemoryBroker) -> None:
    life = Life(server, "a")
    life.queue.admit(3, 0)
    life.generate(3)
    life.step(2)
    then = Ledger.restore(life.ledger.state())
    life.step(1)
    life.queue.settle(then)
    assert server.depths()["queued"] == 1
    life.queue.settle(life.ledger)
    assert server.depths()["queued"] == 0


def test_a_crash_after_the_checkpoint_trains_again_exactly_what_it_does_not_cover(
    server: MemoryBroker,
) -> None:
    # Given a learner that used 2 groups, saved, used 4 more, and died with 2 generated and 2
    # waiting
    first = Life(server, "a")
    first.queue.admit(6, 0)
    first.generate(6)
    covered = first.step(2)
    state = first.ledger.state()
    first.queue.settle(first.ledger)
    first.queue.admit(6, 0)
    first.generate(1)
    lost = first.step(4)
    first.queue.admit(6, 9)
    # When another life resumes from that checkpoint
    second = Life(server, "b", Ledger.restore(state))
    second.queue.reconcile(0)
    second.queue.admit(6, 0)
    used: list[str] = []
    while len(used) < 8:
        second.generate(10)
        used += second.step(2)
        second.queue.settle(second.ledger)
        second.queue.admit(6, 0)
    # Then everything after the checkpoint is trained once, nothing before it again, and nothing is
    # missing
    assert set(lost) <= set(used)
    assert not set(covered) & set(used)
    assert len(used) == len(set(used))
    assert used == [f"train-{i:09d}" for i in range(2, 10)]


def test_groups_of_a_life_that_is_over_wait_until_their_ticket_is_issued_again(
    server: MemoryBroker,
) -> None:
    first = Life(server, "a")
    first.queue.admit(4, 0)
    first.generate(4)
    second = Life(server, "b")  # nothing was saved: its ledger is empty
    second.queue.reconcile(0)
    assert second.queue.batch(1) is None
    second.queue.admit(2, 0)
    assert second.step(2) == ["train-000000000", "train-000000001"]
    assert second.queue.batch(1) is None


def test_a_broker_that_lost_everything_gets_the_open_tickets_again() -> None:
    first = Life(MemoryBroker(), "a")
    first.queue.admit(4, 0)
    first.generate(2)
    first.step(2)
    state = first.ledger.state()
    second = Life(MemoryBroker(), "b", Ledger.restore(state))
    second.queue.reconcile(0)
    second.queue.admit(4, 0)
    assert second.generate(10) == [f"train-{i:09d}" for i in (2, 3, 4, 5)]


def test_a_zombie_learner_is_fenced(server: MemoryBroker) -> None:
    zombie = Life(server, "a")
    zombie.queue.admit(2, 0)
    zombie.generate(2)
    zombie.step(2)
    Life(server, "b")
    with pytest.raises(FencedError):
        zombie.queue.settle(zombie.ledger)


def test_a_dead_letter_makes_room_and_is_counted(server: MemoryBroker) -> None:
    life = Life(server, "a")
    life.queue.admit(2, 0)
    for attempt in range(3):
        lease = life.broker.leases.lease(life.version)
        assert lease is not None
        other = life.broker.leases.lease(life.version)
        assert other is not None
        life.broker.leases.release(other.ticket.uid, other.ticket.stream)
        life.broker.leases.fail(
            min(lease.ticket.uid, other.ticket.uid), "train", f"try {attempt}", "refused"
        )
        life.broker.leases.release(lease.ticket.uid, lease.ticket.stream)
    life.queue.receive(0)
    assert life.ledger.dead == 1
    life.queue.admit(2, 0)
    assert life.ledger.next_index == 3


def test_an_evaluation_ends_when_every_question_came_or_died(server: MemoryBroker) -> None:
    life = Life(server, "a")
    life.queue.held_out.start("a-0", 0)
    assert life.queue.finish_evaluation() is None
    assert len(life.generate(2)) == 2
    for _ in range(3):
        lease = life.broker.leases.lease(life.version)
        assert lease is not None
        life.broker.leases.fail(
            lease.ticket.uid, lease.ticket.stream, f"try {lease.attempt}", "refused"
        )
    life.queue.receive(0)
    groups = life.queue.finish_evaluation()
    assert groups is not None
    assert len(groups) == 2
    assert life.ledger.outstanding == 0  # outside admission
    assert server.depths()["queued"] == 0  # settled when recorded


def test_a_broker_that_restarted_and_lost_everything_is_filled_again_while_learning() -> None:
    life = Life(MemoryBroker(), "a")
    life.queue.reconcile(0)
    life.queue.admit(6, 0)
    life.generate(3)
    assert life.step(1) == ["train-000000000"]  # two more are claimed and only in memory
    life.queue.held_out.start("a-0", 0)
    # When the server comes back empty
    life.broker.work.__dict__.update(Work(BrokerConfig()).__dict__)
    life.broker.tickets.open_epoch("a")  # RedisBroker does this by itself
    life.queue.receive(0)
    # Then what is not in memory is offered again, training and evaluation, and nothing is used
    # twice
    again = life.generate(20)
    assert sorted(u for u in again if u.startswith("train")) == [
        f"train-{i:09d}" for i in (3, 4, 5)
    ]
    assert len([u for u in again if u.startswith("eval")]) == 3
    assert life.step(5) == [f"train-{i:09d}" for i in (1, 2, 3, 4, 5)]
    assert life.queue.finish_evaluation() is not None
    life.queue.settle(life.ledger)
    assert life.broker.depths()["queued"] == 0


def test_a_group_made_again_after_a_rollback_is_dropped_while_the_first_is_in_use(
    server: MemoryBroker,
) -> None:
    life = Life(server, "a")
    life.queue.admit(2, 0)
    life.generate(2)
    life.queue.receive(0)
    # Given a server whose log was cut off before the pushes: the tickets are open, and made again
    for uid in ("train-000000000", "train-000000001"):
        server.work.state.pop(uid)
        server.work.todo["train"].append(uid)
    assert life.step(1) == ["train-000000000"]
    for i in range(2):
        lease = life.broker.leases.lease(life.version)
        assert lease is not None
        assert (
            life.broker.leases.push(makers.group(lease.ticket.uid, gid=f"again-{i}"))
            is PushResult.OK
        )
    life.queue.receive(0)
    assert life.step(1) == ["train-000000001"]
    assert life.queue.batch(1) is None
    life.queue.settle(life.ledger)
    assert server.depths() == {
        "todo": 0,
        "eval": 0,
        "leased": 0,
        "queued": 0,
        "dead": 0,
        "bytes": 0,
    }


def test_what_would_fill_the_broker_moves_to_the_disk_and_survives_a_crash(
    server: MemoryBroker, tmp_path: Path
) -> None:
    small = BrokerConfig(max_groups=4)
    first = Life(server, "a", folder=tmp_path, limits=small)
    first.queue.admit(5, 0)
    first.generate(3)
    assert first.step(2) == ["train-000000000", "train-000000001"]
    assert server.depths()["queued"] == 0  # three of at most four groups: over half
    assert len(list((tmp_path / "spool").iterdir())) == 3
    state = Ledger().state()
    # A life whose checkpoint covers none of them finds them there, and only asks for the rest
    second = Life(
        server, "b", Ledger.restore(state | {"next_index": 5}), folder=tmp_path, limits=small
    )
    second.queue.reconcile(0)
    assert second.step(3) == [f"train-{i:09d}" for i in range(3)]
    assert second.generate(10) == ["train-000000003", "train-000000004"]
    second.queue.settle(second.ledger)  # the checkpoint
    assert list((tmp_path / "spool").iterdir()) == []
    assert second.step(2) == ["train-000000003", "train-000000004"]


def test_groups_that_moved_to_the_disk_before_their_ticket_was_issued_are_not_made_again(
    server: MemoryBroker, tmp_path: Path
) -> None:
    first = Life(server, "a")
    first.queue.admit(5, 0)
    first.generate(5)
    # A life with no checkpoint claims all five, and moves them away before it has issued five.
    second = Life(server, "b", folder=tmp_path, limits=BrokerConfig(max_groups=4))
    second.queue.reconcile(0)
    second.queue.admit(2, 0)
    assert second.step(2) == ["train-000000000", "train-000000001"]
    assert len(list((tmp_path / "spool").iterdir())) == 5
    second.queue.admit(3, 0)
    assert second.generate(10) == []
    assert second.step(3) == [f"train-{i:09d}" for i in (2, 3, 4)]


def test_a_poison_frame_is_quarantined_and_its_ticket_given_up_after_three(
    server: MemoryBroker, tmp_path: Path
) -> None:
    life = Life(server, "a", folder=tmp_path)
    life.queue.admit(1, 0)
    for attempt in range(3):
        lease = life.broker.leases.lease(life.version)
        assert lease is not None
        group = makers.group(lease.ticket.uid, gid=f"poison-{attempt}")
        ids = np.asarray([10**6], np.int32)  # would index far outside the embedding
        life.broker.leases.push(replace(group, prompt_ids=ids))
        life.queue.receive(0)
        assert life.queue.batch(1) is None
    life.queue.receive(0)
    assert life.ledger.dead == 1
    (letter,) = server.tickets.dead_letters()
    assert "vocabulary of 100" in letter.reason
    assert len(list((tmp_path / "quarantine").iterdir())) == 3


def test_a_ticket_given_up_after_lost_writes_is_not_trained_too(server: MemoryBroker) -> None:
    life = Life(server, "a")
    life.queue.admit(2, 0)
    life.generate(2)
    life.queue.receive(0)
    # Given a server that lost the pushes, where one ticket is then refused for good
    server.work.queue.clear()
    server.work.state.clear()
    for attempt in range(3):
        life.broker.leases.fail("train-000000000", "train", f"try {attempt}", "refused")
    life.queue.receive(0)
    assert life.ledger.dead == 1
    assert life.step(1) == ["train-000000001"]
    assert life.queue.batch(1) is None


def test_a_group_too_old_to_train_is_made_again_and_trained_once(
    server: MemoryBroker, tmp_path: Path
) -> None:
    life = Life(server, "a", folder=tmp_path)
    life.queue.admit(3, 0)
    life.generate(3)
    life.queue.receive(0)
    (old, *_) = life.queue.batch(3) or []
    # Given one that the learner would rather have younger
    life.queue.again([old], 4)
    assert life.queue.batch(3) is None
    assert life.ledger.outstanding == 3
    assert life.generate(1) == []  # these weights are too old
    life.version = Version(epoch="a", n=4)
    assert life.generate(3) == [old.uid]
    # Then it is trained once, in its turn, and nothing is left of the other
    assert life.step(3) == [f"train-{i:09d}" for i in range(3)]
    life.queue.settle(life.ledger)
    assert server.depths()["queued"] == 0
    assert (life.ledger.trained, life.ledger.dead) == (3, 0)


def test_a_group_made_again_is_not_found_on_the_disk_by_the_next_life(
    server: MemoryBroker, tmp_path: Path
) -> None:
    small = BrokerConfig(max_groups=2)
    first = Life(server, "a", folder=tmp_path, limits=small)
    first.queue.admit(2, 0)
    first.generate(2)
    first.queue.receive(0)  # moves both to the disk
    first.queue.again(first.queue.batch(1) or [], 0)
    ledger = Ledger.restore(first.ledger.state())
    second = Life(server, "b", ledger, folder=tmp_path, limits=small)
    second.queue.reconcile(0)
    assert second.queue.batch(2) is None
    assert second.generate(2) == ["train-000000000"]
    assert second.step(2) == ["train-000000000", "train-000000001"]


@pytest.mark.parametrize("spilled", [False, True])
def test_a_group_that_could_not_be_trained_is_a_dead_letter_once_with_its_reason(
    server: MemoryBroker, tmp_path: Path, spilled: bool
) -> None:
    limits = BrokerConfig(max_groups=2 if spilled else 64)
    life = Life(server, "a", folder=tmp_path, limits=limits)
    life.queue.admit(2, 0)
    life.generate(2)
    life.queue.receive(0)
    (bad, good) = life.queue.batch(2) or []
    life.queue.use([good])
    life.queue.bury({bad.uid: "step 7: the gradient norm is nan"})
    (letter,) = server.tickets.dead_letters()
    assert (letter.uid, letter.reason) == (bad.uid, "step 7: the gradient norm is nan")
    assert (life.ledger.trained, life.ledger.dead, life.ledger.outstanding) == (1, 1, 0)
    assert life.generate(1) == []
    life.queue.settle(life.ledger)
    assert server.depths() == dict.fromkeys(server.depths(), 0) | {"dead": 1}
    assert server.depths().keys() == {"todo", "eval", "leased", "queued", "dead", "bytes"}
    # A life whose checkpoint knows nothing of it gives it up too
    second = Life(
        server, "b", Ledger.restore(Ledger().state() | {"next_index": 2}), folder=tmp_path
    )
    second.queue.reconcile(0)
    assert second.ledger.dead == 1
    assert second.generate(2) == [good.uid]


def test_many_buried_at_once_are_no_sign_of_a_scorer_that_fails(server: MemoryBroker) -> None:
    life = Life(server, "a")
    life.queue.admit(40, 0)
    life.generate(40)
    life.queue.receive(0)
    groups = life.queue.batch(40) or []
    life.queue.bury({g.uid: "step 1: the loss is inf" for g in groups})
    assert life.ledger.dead == 40
