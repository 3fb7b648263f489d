"""Where a rank's groups come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sppo.learner.groups import Fetched, InHand
from sppo.learner.ranks import Solo
from sppo.learner.spool import Spool
from sppo.transport import codec
from sppo.transport.memory import MemoryBroker
from sppo.types import Group
from tests import makers

UIDS = [f"train-{i:09d}" for i in range(4)]


class Wire(Solo):
    """Two ranks one after the other: what one says the other hears."""

    def __init__(self, hears: Any = None) -> None:
        self.hears = hears
        self.said: list[Any] = []

    def gather(self, value: Any) -> list[Any]:
        self.said.append(value)
        return [value, self.hears]

    def broadcast(self, value: Any) -> Any:
        self.said.append(value)
        return self.hears


def same(got: Group, wanted: Group) -> bool:
    return codec.encode_group(got) == codec.encode_group(wanted)


@pytest.fixture
def groups() -> list[Group]:
    return [makers.group(uid) for uid in UIDS]


def test_rank_0_has_its_own_and_sends_what_another_lacks(groups: list[Group]) -> None:
    wire = Wire(hears=[UIDS[3]])
    found = InHand(wire, groups).named([(UIDS[0], "g"), (UIDS[1], "g")])
    assert list(found) == UIDS[:2]
    _, sent = wire.said
    assert list(sent) == [UIDS[3]]
    assert same(codec.decode_group(sent[UIDS[3]]), groups[3])


def test_the_others_look_at_the_broker_then_at_the_disk_then_ask(
    groups: list[Group], tmp_path: Path
) -> None:
    # Given one group in the broker, one on the disk, one that is damaged there, one nowhere
    broker, spool = MemoryBroker(), Spool(tmp_path)
    broker.tickets.issue([makers.ticket(UIDS[0])])
    broker.leases.lease(makers.V0)
    broker.leases.push(groups[0])
    damaged = codec.encode_group(groups[2])[:-1]
    spool.write({UIDS[1]: codec.encode_group(groups[1]), UIDS[2]: damaged})
    wire = Wire(hears={uid: codec.encode_group(groups[i]) for i, uid in enumerate(UIDS) if i > 1})
    # When a rank wants all four
    names = [(uid, group.gid) for uid, group in zip(UIDS, groups, strict=True)]
    found = Fetched(wire, broker.tickets, spool).named(names)
    # Then it asks for the last two alone
    assert wire.said[0] == UIDS[2:]
    assert all(same(found[uid], group) for uid, group in zip(UIDS, groups, strict=True))
