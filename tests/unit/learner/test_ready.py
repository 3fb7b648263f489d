"""Groups that have come in and wait for their step."""

from __future__ import annotations

from pathlib import Path

from sppo.config import BrokerConfig
from sppo.learner.frames import Frames
from sppo.learner.held import Held
from sppo.learner.ledger import Ledger
from sppo.learner.ready import Ready
from sppo.learner.spool import Spool
from sppo.transport import codec
from sppo.transport.memory import MemoryBroker
from tests import makers

UIDS = [f"train-{i:09d}" for i in range(4)]


def ready(broker: MemoryBroker, ledger: Ledger, folder: Path) -> Ready:
    spool = Spool(folder)
    held = Held(broker.tickets, spool, BrokerConfig())
    return Ready(broker.tickets, ledger, Frames(broker.tickets, spool, 100), held)


def test_the_oldest_of_issued_tickets_come_first(tmp_path: Path) -> None:
    broker, ledger = MemoryBroker(), Ledger()
    for _ in range(3):
        ledger.issue()
    here = ready(broker, ledger, tmp_path)
    broker.tickets.issue([makers.ticket(uid) for uid in UIDS])
    for uid in reversed(UIDS):
        broker.leases.push(makers.group(uid))
    assert all(here.take(entry) for entry in broker.tickets.claim(9, 0))
    assert [g.uid for g in here.all()] == UIDS[::-1]
    # The last was issued by a life whose checkpoint is lost: it waits for its ticket
    assert [g.uid for g in here.oldest(3) or []] == UIDS[:3]
    assert here.oldest(4) is None
    here.remove(UIDS[0])
    assert [g.uid for g in here.oldest(2) or []] == UIDS[1:3]
    assert (len(here), 0 in here, 1 in here) == (3, False, True)


def test_what_was_trained_or_is_here_is_settled_and_dropped(tmp_path: Path) -> None:
    broker, ledger = MemoryBroker(), Ledger()
    for _ in range(2):
        ledger.issue()
    ledger.use([UIDS[0]])
    here = ready(broker, ledger, tmp_path)
    broker.tickets.issue([makers.ticket(uid) for uid in UIDS[:2]])
    for uid in UIDS[:2]:
        broker.leases.push(makers.group(uid))
    assert [here.take(entry) for entry in broker.tickets.claim(9, 0)] == [False, True]
    assert broker.depths()["queued"] == 1


def test_groups_on_the_disk_are_recalled_where_no_checkpoint_covers_them(tmp_path: Path) -> None:
    ledger = Ledger()
    for _ in range(3):
        ledger.issue()
    ledger.use([UIDS[0]])
    frames = {uid: codec.encode_group(makers.group(uid)) for uid in UIDS}
    Spool(tmp_path).write(frames | {UIDS[2]: b"damaged"})
    here = ready(MemoryBroker(), ledger, tmp_path)
    here.recall()
    assert [g.uid for g in here.all()] == [UIDS[1]]
