"""Reading the frames of claimed groups. One that is damaged, or would stop the learner or train
something else, is put aside and its ticket made again.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator

from sppo.errors import BadFrame
from sppo.faults import point
from sppo.learner.spool import Spool
from sppo.transport import codec
from sppo.transport.broker import Tickets
from sppo.types import Group, QueueEntry

log = logging.getLogger(__name__)


class Frames:
    """Frames of claimed entries, as groups."""

    def __init__(
        self, broker: Tickets, spool: Spool, vocabulary: int, max_reward: float = math.inf
    ) -> None:
        self._broker = broker
        self._spool = spool
        self._vocabulary = vocabulary
        self._max_reward = max_reward

    def read(self, entry: QueueEntry) -> Group | None:
        """The group; None for one that was refused."""
        frame = self._broker.fetch(entry)
        point("learner.frame.fetched")
        try:
            if frame is None:
                raise BadFrame("the frame is gone from the broker")
            group = codec.decode_group(frame)
            self._check(entry, group)
            reason = self._refusal(group)
        except BadFrame as error:
            reason = f"bad frame: {error}"
        if reason:
            kept = self._spool.quarantine(entry.gid, frame) if frame is not None else None
            log.warning(
                "group %s of ticket %s is dropped: %s; kept as %s",
                entry.gid, entry.uid, reason, kept,
            )  # fmt: skip
            self._broker.reject(entry, reason)
            return None
        return group

    def spooled(self, wanted: Callable[[str], bool]) -> Iterator[Group]:
        """Groups of these tickets that an earlier life moved to the disk."""
        for uid, frame in self._spool.frames():
            if not wanted(uid):
                continue
            try:
                yield codec.decode_group(frame)
            except BadFrame as error:
                log.warning("the spooled group of ticket %s is made again: %s", uid, error)

    def _refusal(self, group: Group) -> str:
        """Why a sound group is refused; empty if it is not."""
        if group.rewards is None or not len(group.rewards):
            return ""
        most = float(abs(group.rewards).max())
        if most <= self._max_reward:
            return ""
        return (
            f"a reward of magnitude {most:g} is beyond objective.max_reward = {self._max_reward:g}"
        )

    def _check(self, entry: QueueEntry, group: Group) -> None:
        """Raises BadFrame for a frame that is sound but not to be trained."""
        if (group.uid, group.stream) != (entry.uid, entry.stream):
            raise BadFrame(f"the frame belongs to ticket {group.uid}")
        for ids in (group.prompt_ids, *(c.token_ids for c in group.completions)):
            if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < self._vocabulary:
                raise BadFrame(f"a token id is outside the vocabulary of {self._vocabulary}")
