"""Where the learner stands: what a checkpoint writes and a resume reads.

A life of the learner goes on from the newest checkpoint of the run under a new epoch, so versions
of two lives are never taken for each other.
"""

from __future__ import annotations

import logging
import time
import uuid
from pathlib import Path
from typing import Any

from sppo.config import RunConfig
from sppo.errors import ConfigError
from sppo.faults import point
from sppo.learner import checkpoint
from sppo.learner.checkpoint import Checkpoint
from sppo.learner.ledger import Ledger
from sppo.learner.model import Snapshot
from sppo.learner.objectives import anchors
from sppo.learner.orders import Keep, Kept, Load, Masters, Moments, Rank
from sppo.transport.broker import Tickets
from sppo.types import Version

log = logging.getLogger(__name__)


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
        self._life: dict[str, float] = {"wall_s": 0.0, "syncs": 0, "sync_s": 0.0, "sync_max_s": 0.0}
        """Of the lives before this one, and of this one's syncs."""
        self._parent = ""
        self._saved = (-1, 0)
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
        self._rank.do(Load(model=str(found.model), optimizer=str(found.optimizer)))
        state = found.state
        checkpoint.restore_rng(state)
        self.advance(found.step)
        self._resume_snapshots(found)
        self.evaluations = list(state["evaluations"])
        self._life = dict(state["life"])
        self._parent = found.folder.name
        self.ledger = Ledger.restore(state["ledger"])
        return True

    def _resume_snapshots(self, found: Checkpoint) -> None:
        """Generators go on from the weights that the checkpoint's life had published last, the
        objective with its reference.
        """
        self.published = Version(epoch=self.version.epoch, n=found.state["published"])
        file = found.snapshot("anchor") if self.snapshot else None
        if self._anchor.keeps:
            path = str(file) if file else ""
            self._rank.do(Keep(snapshot="anchor", device=self._device, file=path))
        self._reference_n = found.state.get("reference", 0)
        if file := found.snapshot("reference"):
            self._rank.do(Keep(snapshot="reference", device=self._device, file=str(file)))

    @property
    def saved(self) -> bool:
        """Whether a checkpoint of this life covers everything up to here."""
        return self._saved == (self.n, len(self.evaluations))

    def save(self) -> None:
        """Write a checkpoint durably. Raises FencedError if another learner has taken over,
        SppoError if the disk is full.
        """
        kept: list[Snapshot] = [self.snapshot] if self.snapshot else []
        kept += ["reference"] if self._reference_n else []
        folder = checkpoint.save(
            self._folder,
            step=self.n,
            epoch=self.version.epoch,
            model=self._rank.stream(Masters()),
            optimizer=self._rank.stream(Moments()),
            snapshots={name: self._rank.stream(Kept(snapshot=name)) for name in kept},
            state={
                "published": self.published.n,
                "reference": self._reference_n,
                "parent": self._parent,
                "ledger": self.ledger.state(),
                "evaluations": self.evaluations,
                "life": self.life(),
            },
            keep=self._keep,
            confirm=self._broker.confirm_epoch,
        )
        self._saved, self._parent = (self.n, len(self.evaluations)), folder.name
        log.info("saved %s", folder)
