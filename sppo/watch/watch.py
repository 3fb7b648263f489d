"""The one place that judges a run that goes on. The learner has it, as the role that is always
there, however the others were started: it writes the metrics and sees every heartbeat.

    watch = Watch(config)
    watch.recall(earlier)                       # a resumed run: what was said stays said
    for finding in watch.step(record): warn(finding)
    watch.waits(members)                        # each time it looks in vain for a batch
    for finding in watch.look(members, broker.depths): warn(finding)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sppo.config import RunConfig
from sppo.types import Member
from sppo.watch.roles import Roles
from sppo.watch.said import Finding, Said
from sppo.watch.steps import Judged, Steps, waited

LOOK_S = 10.0
"""Between two looks at the members and the broker."""


class Watch:
    """What is news of one run."""

    def __init__(self, config: RunConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._looked = -LOOK_S
        self._steps, self._roles, self._said = Steps(config), Roles(config), Said()

    def recall(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Earlier lives of the run have judged these."""
        for record in records:
            self.step(record)

    def step(self, record: Mapping[str, Any]) -> list[Finding]:
        """News of an optimizer step."""
        found = self._news(self._steps.judge(record))
        if record["step"] % self._steps.size == 0:
            share = waited(self._steps.window, self._steps.size)
            found += self._news(self._roles.starves(share, record["step"]))
        return found

    def waits(self, members: Sequence[Member]) -> None:
        """The learner waits for groups while these are there."""
        self._roles.waits(members)

    def look(
        self, members: Sequence[Member], depths: Callable[[], Mapping[str, int]]
    ) -> list[Finding]:
        """News of who is there, looked at every `LOOK_S`."""
        if self._clock() - self._looked < LOOK_S:
            return []
        self._looked = self._clock()
        return self._news(self._roles.look(members, depths()))

    def hear(self, topic: str, finding: Finding | None) -> list[Finding]:
        """News of a topic that another part of the learner judges."""
        return self._news(iter([(topic, finding)]))

    def pause(self) -> None:
        """The run stands still because somebody wants it to: nobody is idle."""
        self._roles.begin()

    def _news(self, judged: Judged) -> list[Finding]:
        return [
            finding
            for topic, finding in judged
            if self._said.is_news(topic, finding) and finding is not None
        ]
