"""The generators: waiting for them, bringing them to the published weights, meeting newcomers."""

from __future__ import annotations

import logging
import time
from contextlib import AbstractContextManager

from sppo.config import RunConfig
from sppo.errors import WeightSyncError
from sppo.learner.lineage import Lineage
from sppo.learner.orders import Rank, Weights
from sppo.learner.records import Records
from sppo.learner.stops import Stops
from sppo.learner.turn import Turn
from sppo.transport.broker import Registry
from sppo.weights.publisher import SyncReport, WeightPublisher

log = logging.getLogger(__name__)

WAIT_S = 0.5
HEARTBEAT_LAG_S = 3.0
LATE_LAG_DEADLINES = 2


class Fleet:
    """Who is there, and which weights they hold."""

    def __init__(
        self, config: RunConfig, broker: Registry, publisher: WeightPublisher, rank: Rank,
        records: Records,
        stops: Stops, turn: Turn,
    ) -> None:  # fmt: skip
        self._wanted = {"generator": config.generator.replicas, "scorer": 0}
        if config.scorer.mode == "http" and not config.scorer.url:
            self._wanted["scorer"] = 1
        self._start_timeout_s = config.generator.start_timeout_s
        self._late_lag_s = LATE_LAG_DEADLINES * config.weights.phase_timeout_s
        self._broker = broker
        self._publisher = publisher
        self._rank = rank
        self._records = records
        self._stops = stops
        self._turn = turn
        self._published_at = 0.0

    def await_members(self) -> None:
        """Wait for the generators and scorers of the configuration; go on with fewer when time is
        up. Raises WeightSyncError without any.
        """
        self._records.phase("waiting for generators")
        deadline = time.monotonic() + self._start_timeout_s
        while True:
            self._stops.check()
            roles: list[str] = [m.role for m in self._broker.members()]
            missing = {
                role: n - roles.count(role)
                for role, n in self._wanted.items()
                if roles.count(role) < n
            }
            if not missing:
                return
            if time.monotonic() > deadline:
                what = ", ".join(f"{n} {role}(s)" for role, n in missing.items())
                if "scorer" in missing or "generator" not in roles:
                    raise WeightSyncError(
                        f"generator.start_timeout_s is over and {what} did not come; see their logs"
                    )
                log.warning("going on without %s", what)
                return
            time.sleep(WAIT_S)

    def publish(self, lineage: Lineage) -> float:
        """Bring every generator to the published version; returns the seconds it took. Raises
        WeightSyncError, and Stopped while none is alive.
        """
        with self._records.usage.working("sync"):
            report = self._publisher.publish(
                lineage.published,
                self._rank.stream(Weights(snapshot=lineage.snapshot)),
                while_alone=self._stops.check,
            )
        self._published_at = time.monotonic()
        lineage.synced(report.total_s)
        self._tell(report)
        return report.total_s

    def asleep(self, phase: str) -> AbstractContextManager[None]:
        """Where turns are taken on one GPU, no engine works inside, and the learner is in this
        phase.
        """
        return self._turn.taken(phase)

    def _tell(self, report: SyncReport) -> None:
        self._records.event(
            "sync",
            step=report.version.n,
            members=list(report.members),
            stage_s=round(report.stage_s, 3),
            ready_s=round(report.ready_s, 3),
            alone_s=round(report.alone_s, 3),
            transfer_s=round(report.transfer_s, 3),
            failures=list(report.failures),
        )
        log.info(
            "published %d to %s: stage %.2f s, ready %.2f s, transfer %.2f s",
            report.version.n, ", ".join(report.members), report.stage_s, report.ready_s,
            report.transfer_s,
        )  # fmt: skip

    def meet_newcomers(self, lineage: Lineage) -> bool:
        """Publish again if a generator has come since, or was late, and holds other weights.

        True if one was met that held none: one that is late again and again must not prolong a wait
        for groups.
        """
        generators = [m for m in self._broker.members() if m.role == "generator"]
        behind = [m.applied for m in generators if m.applied != str(lineage.published)]
        # One without weights is met as soon as heartbeats tell of the time after the last sync; one
        # that was late then is given time, as its next lateness would keep the others waiting
        # again.
        lag_s = HEARTBEAT_LAG_S if "" in behind else self._late_lag_s
        if not behind or time.monotonic() - self._published_at < lag_s:
            return False
        self.publish(lineage)
        return "" in behind

    def names(self) -> str:
        """The live generators, for a message about waiting."""
        names = [m.name for m in self._broker.members() if m.role == "generator"]
        return ", ".join(names) or "none"

    def close(self) -> None:
        """Leave the group in which weights travel."""
        self._publisher.close()
