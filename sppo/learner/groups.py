"""The groups that a rank works on, by ticket. All ranks ask for theirs at the same point.

Rank 0 has read every group when it came. The others fetch theirs from the broker, or from the
learner's disk; what is in neither rank 0 sends them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from sppo.errors import BadFrame
from sppo.learner.ranks import Ranks
from sppo.learner.spool import Spool
from sppo.transport import codec
from sppo.transport.broker import Tickets
from sppo.types import Group, QueueEntry

log = logging.getLogger(__name__)


class Groups(Protocol):
    """Where a rank's groups come from."""

    def named(self, names: Sequence[tuple[str, str]]) -> Mapping[str, Group]:
        """Those of these tickets and gids, by ticket."""


class InHand:
    """Rank 0's: these groups."""

    def __init__(self, team: Ranks, groups: Iterable[Group]) -> None:
        self._team = team
        self._groups = {group.uid: group for group in groups}

    def named(self, names: Sequence[tuple[str, str]]) -> Mapping[str, Group]:
        """See `Groups.named`. Sends the others what they lack."""
        missing = [uid for answer in self._team.gather([]) for uid in answer]
        self._team.broadcast({uid: codec.encode_group(self._groups[uid]) for uid in missing})
        return {uid: self._groups[uid] for uid, _ in names}


class Fetched:
    """Another rank's: from the broker, the learner's disk, or rank 0."""

    def __init__(self, team: Ranks, broker: Tickets, spool: Spool) -> None:
        self._team = team
        self._broker = broker
        self._spool = spool

    def named(self, names: Sequence[tuple[str, str]]) -> Mapping[str, Group]:
        """See `Groups.named`."""
        with self._team.where.slow("fetching groups"):  # the broker may be away for a while
            found = {uid: self._one(uid, gid) for uid, gid in names}
        self._team.gather([uid for uid, group in found.items() if group is None])
        sent = self._team.broadcast(None)
        return {uid: group or codec.decode_group(sent[uid]) for uid, group in found.items()}

    def _one(self, uid: str, gid: str) -> Group | None:
        entry = QueueEntry(entry_id="", gid=gid, uid=uid, stream="train", nbytes=0)
        frame = self._broker.fetch(entry) or self._spool.frame(uid)
        try:
            return None if frame is None else codec.decode_group(frame)
        except BadFrame as error:  # rank 0 has read it whole
            log.warning("the group of ticket %s is fetched from rank 0: %s", uid, error)
            return None
