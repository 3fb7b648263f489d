"""Frames that must not be trained are put aside and their tickets made again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sppo.config import BrokerConfig
from sppo.learner.frames import Frames
from sppo.learner.spool import Spool
from sppo.transport.memory import MemoryBroker
from sppo.types import Group, QueueEntry
from tests import makers

UID = "train-000000000"


def claimed(broker: MemoryBroker, group: Group) -> QueueEntry:
    broker.tickets.open_epoch(makers.V0.epoch)
    broker.tickets.issue([makers.ticket(UID)])
    broker.leases.lease(makers.V0)
    broker.leases.push(group)
    (entry,) = broker.tickets.claim(1, 0)
    return entry


def test_a_sound_frame_is_its_group(tmp_path: Path) -> None:
    broker = MemoryBroker()
    entry = claimed(broker, makers.group(UID))
    found = Frames(broker.tickets, Spool(tmp_path), 100).read(entry)
    assert found is not None
    assert (found.uid, len(found.completions)) == (UID, 2)


def test_a_reward_beyond_the_limit_is_refused_with_its_magnitude(tmp_path: Path) -> None:
    broker = MemoryBroker(BrokerConfig(max_attempts=1))
    rewards = np.asarray([1.0, -3e19], np.float32)
    entry = claimed(broker, replace(makers.group(UID), rewards=rewards))
    assert Frames(broker.tickets, Spool(tmp_path), 100, 1e6).read(entry) is None
    (letter,) = broker.tickets.dead_letters()
    assert letter.reason == "a reward of magnitude 3e+19 is beyond objective.max_reward = 1e+06"


@pytest.mark.parametrize("fault", ["token", "damage", "another", "gone"])
def test_what_is_wrong_with_a_frame_is_kept_and_the_ticket_offered_again(
    fault: str, tmp_path: Path
) -> None:
    broker, group = MemoryBroker(), makers.group(UID)
    if fault == "token":
        group = replace(group, prompt_ids=np.asarray([100], np.int32))
    entry = claimed(broker, group)
    if fault == "damage":
        broker.work.frames[entry.gid] = broker.work.frames[entry.gid][:-1]
    if fault == "another":
        entry = replace(entry, stream="eval")
    if fault == "gone":
        broker.work.frames.clear()
    assert Frames(broker.tickets, Spool(tmp_path), 100).read(entry) is None
    folder = tmp_path / "quarantine"
    assert len(list(folder.iterdir()) if folder.exists() else []) == (fault != "gone")
    again = broker.leases.lease(makers.V0)
    assert again is not None
    assert (again.ticket.uid, again.attempt) == (UID, 2)
