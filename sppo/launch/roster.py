"""Every process that a run is to have: what it is, and how it stands."""

from __future__ import annotations

import time
from dataclasses import dataclass

from sppo.config import RunConfig
from sppo.launch.verdicts import Who
from sppo.transport.broker import LEARNER

FIRST = "generator-0"


@dataclass(slots=True, kw_only=True)
class Post:
    """One of them. Times are by the monotonic clock."""

    role: str
    config: RunConfig
    started_at: float | None = None
    """When the process that runs was started; None while none does."""
    due: float | None = None
    """When it is to be started again, if it is."""
    hung: str = ""
    """How it showed that it had hung, if it was ended for that."""
    newcomer: bool = False
    """Started for a request to scale, and not seen at work yet."""
    leave_by: float | None = None
    """When it is ended if it has not left, once it was asked to leave."""

    @property
    def who(self) -> Who:
        """What the run expects of it."""
        if self.role == "learner":
            return Who.LEARNER
        if self.leave_by is not None:
            return Who.LEAVER
        return Who.NEWCOMER if self.newcomer else Who.WORKER


class Roster(dict[str, Post]):
    """Posts by name: `learner-0`, `generator-0`, `scorer-0` and so on."""

    def staff(self, role: str, count: int, config: RunConfig) -> None:
        """Have so many of a role, from number 0 on."""
        self.update({f"{role}-{i}": Post(role=role, config=config) for i in range(count)})

    @property
    def config(self) -> RunConfig:
        """What the next one to be started gets: the learner's, which knows how many there are."""
        return self[LEARNER].config

    @property
    def begun(self) -> RunConfig:
        """What the run began with, whatever it was scaled to since: the first generator's, which
        never leaves.
        """
        return self[FIRST].config

    def expect(self, role: str, count: int) -> None:
        """A learner that starts again waits for as many."""
        section = getattr(self.config, role).model_copy(update={"replicas": count})
        self[LEARNER].config = self.config.model_copy(update={role: section})

    def staying(self, role: str) -> list[str]:
        """Those of a role that are not asked to leave, by number."""
        names = [n for n, post in self.items() if post.role == role and post.leave_by is None]
        return sorted(names, key=lambda name: int(name.rsplit("-", 1)[1]))

    def leaving(self) -> list[str]:
        """Who was asked to leave."""
        return sorted(name for name, post in self.items() if post.leave_by is not None)

    def due(self) -> list[str]:
        """Whose time to be started again has come."""
        now = time.monotonic()
        return [n for n, post in self.items() if post.due is not None and post.due <= now]

    def started(self) -> dict[str, float]:
        """When each process that runs was started."""
        return {n: post.started_at for n, post in self.items() if post.started_at is not None}

    def free_names(self, role: str, count: int) -> list[str]:
        """So many names that nobody has, the lowest numbers first."""
        names = (f"{role}-{i}" for i in range(len(self) + count))
        return [name for name in names if name not in self][:count]
