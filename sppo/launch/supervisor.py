"""`sppo-cli up`: check, start every role, watch, and leave nothing behind.

Consumes the learner's events, heartbeats, and the end of any role or of the embedded broker; waits
for the learner; unblocks the person in front of it. What follows from what has happened is said in
`sppo.launch.verdicts`.
"""

from __future__ import annotations

import logging
import os
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sppo import compute, stop
from sppo.config import RunConfig
from sppo.errors import ConfigError, RoleDiedError, SppoError
from sppo.launch import outside, packages, reach, verdicts
from sppo.launch import run_dir as run_dirs
from sppo.launch.broker_keeper import POLL_S, BrokerKeeper
from sppo.launch.cluster import Cluster
from sppo.launch.figures import Figures
from sppo.launch.journal import Journal
from sppo.launch.places import may_grow
from sppo.launch.progress import Progress
from sppo.launch.reporter import Reporter
from sppo.launch.restarts import Restarts
from sppo.launch.room import staff
from sppo.launch.roster import Roster
from sppo.launch.scaler import Scaler
from sppo.launch.verdicts import Do, What
from sppo.launch.watchdog import Watchdog
from sppo.transport.broker import LEARNER, Registry
from sppo.transport.server import unix_url
from sppo.turns import Turns
from sppo.types import Member

log = logging.getLogger(__name__)

LEAVE_TIMEOUT_S = 30.0
NO_ROOM_S = 30.0
CHAOS_VARIABLE = "SPPO_CHAOS_DIR"
"""Where `sppo-cli chaos` listens for the roles, to cut them off from the broker."""


def run(config: RunConfig, run_dir: Path, run_key: str, progress: Progress) -> dict[str, Any]:
    """Run to the end or until interrupted; returns the summary. Raises SppoError; nothing is left
    running.
    """
    run_dir = run_dir.resolve()
    config = run_dirs.with_cache(run_dir, config)
    asked: list[str] = []
    reporter = Reporter(run_dir, progress)
    restarts = Restarts(config.launch.max_restarts)
    watchdog = Watchdog(config.hang_timeout_s, config.generator.start_timeout_s)
    turns = Turns(run_key) if config.launch.take_turns else None
    keeper = BrokerKeeper(run_dir / "broker", restarts, reporter.tell, watchdog.excuse)
    roster = Roster()
    scaler = Scaler(run_dir, roster, reporter.tell)
    reporter.about = lambda: {"restarts": dict(restarts.counts), "scale": scaler.state()}
    undo = stop.catch(asked.append)
    try:
        with (
            keeper.open(config, run_key) as (settings, broker),
            _shown(reporter, config, run_dir),
        ):
            registry = broker.registry
            registry.request_stop("learner", "")
            registry.request_stop("workers", "")
            reporter.journal = Journal(run_dir, broker.mailbox)
            reporter.journal.write({"kind": "versions", "packages": packages.versions()})
            reporter.depths = broker.depths
            for member in registry.members():  # of a run that was killed as a whole a moment ago
                registry.leave(member.name)
            reporter.status("starting")
            reporter.note("starting Ray, scorer, generator and learner ...")
            cluster = Cluster(
                run_dir, address=config.launch.ray_address, travels=config.launch.environment,
                spared=lambda: keeper.pid,
            )  # fmt: skip
            stop.catch(asked.append)  # Ray has put its own handler in place
            supervisor = Supervisor(
                run_dir=run_dir, run_key=run_key, cluster=cluster, registry=registry, keeper=keeper,
                reporter=reporter, restarts=restarts, watchdog=watchdog, roster=roster,
                scaler=scaler, asked=asked,
                turns=turns,
            )  # fmt: skip
            try:
                supervisor.start_roles(settings)
                outcome = supervisor.watch()
                summary = reporter.summarise(outcome, dict(restarts.counts))
                supervisor.dismiss()
            finally:
                cluster.shutdown()
    finally:
        undo()
    return summary


def _shown(reporter: Reporter, config: RunConfig, run_dir: Path) -> AbstractContextManager[None]:
    reporter.figures = Figures(config)
    reporter.figures.restarts = lambda: reporter.about()["restarts"]

    def warn(text: str) -> None:
        reporter.tell("warning", text, topic="tracker")

    return outside.shown(config, run_dir, reporter.figures, warn)


@dataclass(kw_only=True)
class Supervisor:
    """The roles of one `up`, from their start to their end."""

    run_dir: Path
    run_key: str
    cluster: Cluster
    registry: Registry
    keeper: BrokerKeeper
    reporter: Reporter
    restarts: Restarts
    watchdog: Watchdog
    roster: Roster
    scaler: Scaler
    asked: list[str]
    """Requests to stop so far, by the names of their signals."""
    turns: Turns | None = None
    """Of a GPU that engines wait for before they start."""
    looked_at: float = 0.0
    """When the registry was last read."""
    stopping_since: float | None = None
    told: bool = False
    """Whether the learner has been told to stop."""

    def start_roles(self, config: RunConfig) -> None:
        """Decide what is left to be decided, and start every role once. Raises ConfigError if there
        is no room for all.
        """
        machines = self.cluster.places.machines()
        cuda = compute.on_gpu(config, gpus=any(machine.gpus for machine in machines))
        resolved = compute.decided(config, cuda=cuda)
        why = compute.reason(config, cuda=cuda)
        self.reporter.note(f"computing in {resolved.compute}: {why}")
        if len(machines) > 1 or may_grow(config):
            reach.check_hosts(config)
        counts = staff(config)
        self.cluster.places.seat(resolved, counts)
        self.cluster.places.wait(resolved, lambda: self.asked, self.reporter.note)
        for role, count in counts.items():
            self.roster.staff(role, count, resolved)
        for name in self.roster:
            self._start(name)

    def watch(self) -> dict[str, Any]:
        """Until the learner is done; returns its outcome. Raises what ended one if another life is
        of no use.
        """
        while True:
            ended = self.cluster.wait(POLL_S)
            if self.keeper.there():
                self.keeper.ask(self._look_around)
                if not self.asked:
                    self.keeper.ask(self._scale)
            for name in self.roster.due():
                self._start_due(name)
            if ended is not None and (outcome := self._take_end(ended)) is not None:
                return outcome
            self._heed_requests()

    def dismiss(self) -> None:
        """Ask the other roles to finish and wait for them."""
        told = False
        deadline = time.monotonic() + LEAVE_TIMEOUT_S
        while self.cluster.roles and time.monotonic() < deadline:
            if self.keeper.there() and not told:
                told = self.keeper.ask(
                    lambda: self.registry.request_stop("workers", "the learner is done")
                )
            ended = self.cluster.wait(POLL_S)
            if ended is not None:
                try:
                    self.cluster.result(ended)
                except SppoError as error:
                    log.warning("while leaving: %s", error)
        if left := ", ".join(self.cluster.roles):
            log.warning("%s did not finish in %.0f s and are ended", left, LEAVE_TIMEOUT_S)

    # starting -------------------------------------------------------------------------------------
    def _start(self, name: str) -> None:
        post = self.roster[name]
        if post.role != "learner":  # an earlier one of this name may have been asked to leave
            self.keeper.ask(lambda: self.registry.request_stop(name, ""))
        server = self.keeper.credentials(post.config.broker, post.role)
        if proxies := os.environ.get(CHAOS_VARIABLE):
            server = server.model_copy(update={"url": unix_url(Path(proxies) / f"{name}.sock")})
        config = post.config.model_copy(update={"broker": server})
        self.cluster.start(post.role, name, config, self.run_key)
        post.started_at = time.monotonic()

    def _start_due(self, name: str) -> None:
        self.roster[name].due = None
        if self._verdict(What.DUE, name) is Do.DROP:
            return
        try:
            self._start(name)
        except ConfigError as error:
            if self._verdict(What.NO_ROOM, name) is Do.FAIL:
                raise
            self.reporter.tell("restart", f"{name} waits: {error}", role=name)
            self.roster[name].due = time.monotonic() + NO_ROOM_S

    def _scale(self) -> None:
        self.scaler.round(self.cluster, self.registry, self._start)

    # looking --------------------------------------------------------------------------------------
    def _look_around(self) -> None:
        """Follow the run, and end who lives without working: it is as good as dead."""
        members = self._follow()
        now = time.monotonic()
        if now - self.looked_at > 4 * POLL_S:  # the broker was away, or this process was
            self.watchdog.excuse()
        self.looked_at = now
        if self.turns is not None and self.turns.of_learner:
            self.watchdog.excuse_starts()
        for name, why in self.watchdog.hung(self.roster.started(), members).items():
            post = self.roster[name]
            if not post.hung and self._verdict(What.HUNG, name) is Do.END:
                post.hung = why
                self.cluster.sweep(name)

    def _follow(self) -> list[Member]:
        """Take in and show what the learner reports and who is there."""
        for event in self.reporter.news():
            if event["kind"] == "step":
                self.restarts.saw(LEARNER)
                self.restarts.stepped()
        members = self.registry.members()
        for member in members:
            self.restarts.saw(member.name)
            if member.name in self.roster:
                self.roster[member.name].newcomer = False
        self.reporter.saw(members)
        return members

    def _heed_requests(self) -> None:
        """Raises SppoError if the learner is not to be waited for any longer."""
        if not self.asked:
            return
        if self.stopping_since is None:
            self.stopping_since = time.monotonic()
            self.reporter.note(
                "stopping: saving a checkpoint (interrupt again to give up waiting) ..."
            )
        still_s = self.watchdog.still_s(LEARNER, self.stopping_since)
        do, why = verdicts.stop(len(self.asked), still_s)
        if not self.told:
            self.told = self.keeper.ask(
                lambda: self.registry.request_stop("learner", "interrupted")
            )
        if do is Do.FAIL:
            raise SppoError(f"stopped without a new checkpoint: the learner {why}")

    # ends -----------------------------------------------------------------------------------------
    def _take_end(self, name: str) -> dict[str, Any] | None:
        """What the learner returned if the run is over with that. Raises what ended the role if
        that ends the run.
        """
        self._bury(name)
        try:
            outcome, what = self.cluster.result(name), What.RETURNED
            error: SppoError = RoleDiedError(
                f"{name} ended before the learner; see {self.run_dir}/logs/{name}.log"
            )
        except SppoError as raised:
            outcome, what, error = {}, What.RAISED, raised
        first = str(error).splitlines()[0]
        match self._verdict(what, name):
            case Do.FINISH:
                if self.keeper.there():
                    self.keeper.ask(self._follow)
                return outcome
            case Do.LET_GO:
                how = "has left" if what is What.RETURNED else f"ended while leaving: {first}"
                self.scaler.gone(name, f"{name} {how}")
            case Do.GIVE_UP:
                self.scaler.give_up(name, error)
            case Do.RESTART:
                self._start_again(name, error)
            case Do.NOTE:
                self.reporter.note(f"{name} ended while stopping: {first}")
            case _:
                raise error
        return None

    def _bury(self, name: str) -> None:
        """End what a role that has ended left running, and take it out of the registry, so that
        nobody waits for it.
        """
        self.watchdog.forget(name)
        self.roster[name].started_at = None
        self.cluster.sweep(name)
        if self.keeper.there():
            self.keeper.ask(lambda: self.registry.leave(name))

    def _start_again(self, name: str, error: SppoError) -> None:
        """Raises the error if the role is not to be started again."""
        post = self.roster[name]
        reason = str(error).splitlines()[0]
        if post.hung:
            reason = f"{name} had hung ({post.hung}) and was ended"
            error = RoleDiedError(f"{reason}. {error}")
            post.hung = ""
        delay_s = self.restarts.delay_s(name, error)
        text = f"{name} is started again in {delay_s:.0f} s: {reason}"
        self.reporter.tell("restart", text, role=name)
        post.due = time.monotonic() + delay_s

    def _verdict(self, what: What, name: str) -> Do:
        return verdicts.role(what, self.roster[name].who, stopping=bool(self.asked))
