"""Where the learner stands: what a checkpoint writes and a resume reads.

A life of the learner goes on from the newest checkpoint of the run under a new epoch, so versions
of two lives are never taken for each other.
"""

from __future__ import annotations

import logging
import time
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sppo.config import RunConfig
from sppo.errors import ConfigError
from sppo.faults import point
from sppo.learner import checkpoint
from sppo.learner.checkpoint import Checkpoint, Writing
from sppo.learner.ledger import Ledger
from sppo.learner.model import Snapshot
from sppo.learner.objectives import anchors
from sppo.learner.objectives.anchors import Anchor
from sppo.learner.orders import Keep, Load, Rank, Save
from sppo.transport.broker import Tickets
from sppo.types import Version

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A checkpoint, from the moment training goes on."""

    writing: Writing
    ledger: Ledger
    """As it was then: what the checkpoint covers."""
    held_s: float
    """Seconds for which training stood still: for the checkpoint before, and for copies."""


class Lineage:
    """One life on its line of checkpoints."""

    def __init__(
        self, config: RunConfig, rank: Rank, broker: Tickets, folder: Path, *, reference: bool
    ) -> None:
        """At the base model's weights; `folder` is where checkpoints are.

        `reference`: the objective compares with a reference, which these are.
        """
        self._rank = rank
        self._folder = folder
        self._broker = broker
        self._keep = config.learner.keep_checkpoints
        self._last_step = config.learner.steps
        self._anchor = anchors.make(config.objective.anchor, config.objective.iteration_steps)
        on_host = config.learner.snapshot == "host"
        self._device = "cpu" if on_host else rank.policy.device
        self._started = time.monotonic()
        self.version = Version(epoch=uuid.uuid4().hex, n=0)
        self.published = self.version
        """What generators run."""
        self.ledger = Ledger()
        self.evaluations: list[dict[str, Any]] = []
        self._life = dict.fromkeys(
            ("wall_s", "syncs", "sync_s", "sync_max_s", "saves", "held_s", "written_s"), 0.0
        )
        """Of the lives before this one, and of this one's syncs and checkpoints."""
        self._parent = ""
        self._saved = (-1, 0)
        self.saving: Saved | None = None
        """What is being written."""
        self.publish()
        self._reference_n = 0
        if reference:
            self.renew_reference()

    @property
    def n(self) -> int:
        """Optimizer steps since the base model."""
        return self.version.n

    def begin(self) -> None:
        """Take over the run: every older life is fenced from here on."""
        self._broker.open_epoch(self.version.epoch)
        point("learner.epoch.opened")
        self._started = time.monotonic()

    def advance(self, n: int) -> None:
        """These steps were taken."""
        self.version = Version(epoch=self.version.epoch, n=n)

    def publish(self) -> None:
        """From here on these weights are what generators run, and the anchor where that is kept."""
        self.published = self.version
        if self._anchor.keeps:
            self._rank.do(Keep(snapshot="anchor", device=self._device))

    def renew_reference(self) -> None:
        """From here on these weights are what the objective takes for the reference."""
        self._reference_n = self.n
        self._rank.do(Keep(snapshot="reference", device=self._device))

    @property
    def snapshot(self) -> Snapshot | None:
        """Where the published weights are kept; None: they are the policy's own."""
        return "anchor" if self.published != self.version else None

    @property
    def evaluated(self) -> bool:
        """Whether the published weights have answered the held-out questions."""
        return bool(self.evaluations) and self.evaluations[-1]["step"] == self.published.n

    # the figures of all lives ---------------------------------------------------------------------
    def synced(self, seconds: float) -> None:
        """Generators were brought to the published version."""
        self._life["syncs"] += 1
        self._life["sync_s"] += seconds
        self._life["sync_max_s"] = max(self._life["sync_max_s"], seconds)

    @property
    def age_s(self) -> float:
        """Seconds since this life began."""
        return time.monotonic() - self._started

    def life(self) -> dict[str, float]:
        """Seconds of all lives (`wall_s`), their weight syncs, and the seconds of these."""
        return self._life | {"wall_s": self._life["wall_s"] + self.age_s}

    # checkpoints ----------------------------------------------------------------------------------
    def resume(self) -> bool:
        """Go on from the newest checkpoint, if there is one. Raises ConfigError if it is damaged or
        beyond the last step.
        """
        found = checkpoint.newest(self._folder)
        if found is None:
            return False
        log.info("resuming from %s", found.folder)
        if found.step > self._last_step:
            raise ConfigError(
                f"learner.steps = {self._last_step} is below step {found.step} of "
                f"{found.folder}; raise it"
            )
        restore(self._rank, found, self._anchor, self._device)
        state = found.state
        self.advance(found.step)
        self.published = Version(epoch=self.version.epoch, n=state["published"])
        self._reference_n = state.get("reference", 0)
        self.evaluations = list(state["evaluations"])
        self._life |= state["life"]
        self._parent = found.folder.name
        self.ledger = Ledger.restore(state["ledger"])
        return True

    @property
    def saved(self) -> bool:
        """Whether a checkpoint of this life, which may still be written, covers everything up to
        here.
        """
        return self._saved == (self.n, len(self.evaluations))

    def save(self, since: float | None = None) -> None:
        """Have what a checkpoint holds written while training goes on: `saving`. None
        may be being written. Training was held up `since`. Raises SppoError if the disk is full.
        """
        assert self.saving is None
        since = since or time.monotonic()
        kept: list[Snapshot] = [self.snapshot] if self.snapshot else []
        kept += ["reference"] if self._reference_n else []
        state: dict[str, Any] = {
            "published": self.published.n,
            "reference": self._reference_n,
            "parent": self._parent,
            "ledger": self.ledger.state(),
            "evaluations": self.evaluations,
            "life": self.life(),
        }
        writing = Writing(
            self._folder, step=self.n, epoch=self.version.epoch, state=state, keep=self._keep,
            ranks=self._rank.team.size, confirm=self._broker.confirm_epoch,
        )  # fmt: skip
        order = Save(folder=str(writing.scratch), snapshots=kept)
        writing.begin(self._rank.writer, list(self._rank.stream(order)))
        self._saved, self._parent = (self.n, len(self.evaluations)), writing.folder.name
        self.saving = Saved(
            writing=writing,
            ledger=Ledger.restore(state["ledger"]),
            held_s=time.monotonic() - since,
        )

    def durable(self, wait_s: float = 0.0) -> Saved | None:
        """The checkpoint that was being written, once it is durable; waits for that up to so long.
        Raises FencedError if another learner has taken over, SppoError if the disk is full.
        """
        saving = self.saving
        if saving is None or not saving.writing.over(wait_s):
            return None
        self.saving = None
        saving.writing.check()
        saving = replace(saving, held_s=saving.held_s + self._rank.writer.held_s)
        for key, value in (
            ("saves", 1), ("held_s", saving.held_s), ("written_s", saving.writing.seconds),
        ):  # fmt: skip
            self._life[key] += value
        log.info("saved %s", saving.writing.folder)
        return saving


def restore(rank: Rank, found: Checkpoint, anchor: Anchor, device: str) -> None:
    """Put weights, moments, random state and snapshots back as they were at a checkpoint:
    generators go on from the weights that were published last, the objective with its reference.
    Snapshots are kept on the device. Raises ConfigError if it is of another model.
    """
    found.check(rank.policy.master)
    folder = str(found.folder)
    rank.do(Load(folder=folder))
    checkpoint.restore_rng(found.state)
    if anchor.keeps:
        own = found.state["published"] != found.step and found.has("anchor")
        rank.do(Keep(snapshot="anchor", device=device, folder=folder if own else ""))
    if found.has("reference"):
        rank.do(Keep(snapshot="reference", device=device, folder=folder))
