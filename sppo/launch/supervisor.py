"""`sppo-cli up`: check, start every role, watch, and leave nothing behind.

Consumes the learner's events, heartbeats, and the end of any role or of the embedded broker; waits
for the learner; unblocks the person in front of it. Who dies or hangs is started again.
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sppo import compute, stop
from sppo.config import RunConfig, is_loopback, resolve_transport, with_secrets
from sppo.errors import BrokerError, ConfigError, RoleDiedError, SppoError
from sppo.launch import run_dir as run_dirs
from sppo.launch.cluster import Cluster, check_room
from sppo.launch.journal import Journal, describe
from sppo.launch.memory import Peak
from sppo.launch.progress import Progress
from sppo.launch.restarts import Restarts
from sppo.launch.scaler import Scaler
from sppo.launch.watchdog import Watchdog
from sppo.transport.broker import LEARNER, Broker
from sppo.transport.redis_broker import connect
from sppo.transport.server import EmbeddedServer, unix_url
from sppo.types import Member

log = logging.getLogger(__name__)

POLL_S = 1.0
STOP_TIMEOUT_S = 120.0
LEAVE_TIMEOUT_S = 30.0
NO_ROOM_S = 30.0
BROKER_SILENCE_S = 10.0
CLIENT_PATIENCE_S = 1.0
CHAOS_VARIABLE = "SPPO_CHAOS_DIR"
"""Where `sppo-cli chaos` listens for the roles, to cut them off from the broker."""


def _check_reach_of_others(config: RunConfig) -> None:
    """Raises ConfigError for an address that means another machine on every machine."""
    own = urlsplit(config.broker.url)
    hosts = {
        section: getattr(config, section).host for section in ("weights", "generator", "scorer")
    }
    local = [f"{section}.host = {host!r}" for section, host in hosts.items() if is_loopback(host)]
    if own.scheme == "unix" or is_loopback(own.hostname or ""):
        local.insert(0, f"broker.url = {config.broker.url!r}")
    if local:
        raise ConfigError(
            f"{local[0]}: the Ray cluster has several machines, and the others do not reach that; "
            f"name an address that "
            "they do (`auto` for a host)"
        )


class Supervisor:
    """One `up`."""

    def __init__(self, config: RunConfig, run_dir: Path, run_key: str, progress: Progress) -> None:
        self._config = config
        self._run_key = run_key
        self._run_dir = run_dir.resolve()
        self._progress = progress
        self._memory = Peak()
        self._members: dict[str, dict[str, Any]] = {}
        self._interrupts = 0
        self._restarts = Restarts(config.launch.max_restarts)
        self._watchdog = Watchdog(config.launch.hang_timeout_s, config.generator.start_timeout_s)
        self._server: EmbeddedServer | None = None
        self._answered_at = 0.0
        self._looked_at = 0.0
        self._started_at: dict[str, float] = {}
        """When each role whose process runs was started."""
        self._due: dict[str, float] = {}
        """Roles that are to be started again, with the time."""
        self._hung: dict[str, str] = {}
        self._plan: dict[str, tuple[str, RunConfig]] = {}
        """Role and configuration of every process, by name."""
        self._scaler = Scaler(self._run_dir, self._plan, self._tell)
        self._journal: Journal | None = None

    def run(self) -> dict[str, Any]:
        """Run to the end or until interrupted; returns the summary. Raises SppoError; nothing is
        left running.
        """
        with self._interruptible(), self._broker() as (config, broker):
            broker.request_stop("learner", "")
            broker.request_stop("workers", "")
            self._journal = Journal(self._run_dir, broker)
            for member in broker.members():  # of a run that was killed as a whole a moment ago
                broker.leave(member.name)
            self._status("starting")
            self._progress.note("starting Ray, scorer, generator and learner ...")
            cluster = Cluster(
                self._run_dir,
                address=config.launch.ray_address,
                spared=lambda: self._server.pid if self._server else None,
            )
            stop.catch(self._interrupt)  # Ray has put its own handler in place
            try:
                self._start_roles(cluster, broker, config)
                summary = self._summarise(self._watch(cluster, broker))
                self._dismiss(cluster, broker)
            finally:
                cluster.shutdown()
        return summary

    @contextmanager
    def _broker(self) -> Iterator[tuple[RunConfig, Broker]]:
        """The broker to use, started if it is the embedded one."""
        settings = self._config.broker
        try:
            if not settings.url:
                self._server = EmbeddedServer(
                    self._run_dir / "broker", max_bytes=settings.max_bytes
                )
                settings = self._server.start(settings)
                self._answered_at = time.monotonic()
            token = self._config.scorer.token.get_secret_value() or secrets.token_hex(32)
            # This process mends an embedded broker, so it must not wait for one.
            own = (
                settings.model_copy(update={"outage_s": CLIENT_PATIENCE_S})
                if self._server
                else settings
            )
            broker = connect(own, self._run_key)
            yield with_secrets(self._config, broker=settings, scorer_token=token), broker
            broker.close()
        finally:
            if self._server is not None:
                self._server.stop()

    def _start_roles(self, cluster: Cluster, broker: Broker, config: RunConfig) -> None:
        gpus = config.learner.device == "cuda" or (
            config.learner.device == "auto" and cluster.resources().gpus > 0
        )
        transport = resolve_transport(config, cuda=gpus)
        found = compute.resolve(config, cuda=gpus)
        self._progress.note(f"computing in {found}: {compute.reason(config, found, cuda=gpus)}")
        resolved = config.model_copy(
            update={
                "compute": found,
                "learner": config.learner.model_copy(update={"device": "cuda" if gpus else "cpu"}),
                "weights": config.weights.model_copy(update={"transport": transport}),
            }
        )
        own_scorers = config.scorer.mode == "http" and not config.scorer.url
        if cluster.machines > 1:
            _check_reach_of_others(config)
        counts = {
            "scorer": config.scorer.replicas * own_scorers,
            "generator": config.generator.replicas,
            "learner": 1,
        }
        check_room(cluster.resources(), resolved, counts)
        for role, count in counts.items():
            self._plan |= {f"{role}-{i}": (role, resolved) for i in range(count)}
        for name in self._plan:
            self._start(cluster, broker, name)

    def _start(self, cluster: Cluster, broker: Broker, name: str) -> None:
        role, config = self._plan[name]
        if role != "learner":
            self._ask(
                lambda: broker.request_stop(name, "")
            )  # of an earlier one of this name that was to leave
        server = (
            config.broker if self._server is None else self._server.credentials(config.broker, role)
        )
        if proxies := os.environ.get(CHAOS_VARIABLE):
            server = server.model_copy(update={"url": unix_url(Path(proxies) / f"{name}.sock")})
        cluster.start(role, name, config.model_copy(update={"broker": server}), self._run_key)
        self._started_at[name] = time.monotonic()

    def _watch(self, cluster: Cluster, broker: Broker) -> dict[str, Any]:
        """Until the learner is done. Roles that die are started again; raises what ended one if
        that is of no use.
        """
        stop_by, asked = float("inf"), False

        def start(name: str) -> None:
            self._start(cluster, broker, name)

        while True:
            ended = cluster.wait(POLL_S)
            if self._broker_is_there():
                self._ask(lambda: self._look_around(cluster, broker))
                if not self._interrupts:
                    self._ask(lambda: self._scaler.round(cluster, broker, start, self._due))
            for name in [n for n, due in self._due.items() if time.monotonic() >= due]:
                del self._due[name]
                if not self._interrupts or name == LEARNER:  # a stop needs the learner, to save
                    self._restart(cluster, broker, name)
            if ended is not None:
                self._bury(cluster, broker, ended)
                try:
                    outcome = cluster.result(ended)
                    if ended == LEARNER:
                        if self._broker_is_there():
                            self._ask(lambda: self._follow(broker))
                        return outcome
                    if ended not in self._scaler.leaving:
                        raise RoleDiedError(
                            f"{ended} ended before the learner; see "
                            f"{self._run_dir}/logs/{ended}.log"
                        )
                    self._scaler.gone(ended, f"{ended} has left")
                except SppoError as error:
                    if ended in self._scaler.leaving:
                        self._scaler.gone(
                            ended, f"{ended} ended while leaving: {str(error).splitlines()[0]}"
                        )
                    elif ended in self._scaler.newcomers:
                        self._scaler.give_up(ended, error)
                    elif not self._interrupts:
                        self._start_again(cluster, ended, error)
                    elif ended == LEARNER:
                        raise
                    else:  # the learner is saving: it needs nobody for that
                        self._progress.note(
                            f"{ended} ended while stopping: {str(error).splitlines()[0]}"
                        )
            if self._interrupts and stop_by == float("inf"):
                self._progress.note(
                    "stopping: saving a checkpoint (interrupt again to give up waiting) ..."
                )
                stop_by = time.monotonic() + STOP_TIMEOUT_S
            if self._interrupts and not asked:
                asked = self._ask(lambda: broker.request_stop("learner", "interrupted"))
            if self._interrupts > 1 or time.monotonic() > stop_by:
                raise SppoError(
                    "stopped without a new checkpoint: the learner "
                    + (
                        "was not waited for"
                        if self._interrupts > 1
                        else f"did not save within {STOP_TIMEOUT_S:.0f} s"
                    )
                )

    def _restart(self, cluster: Cluster, broker: Broker, name: str) -> None:
        try:
            self._start(cluster, broker, name)
        except ConfigError as error:  # its machine is gone, and no other has room
            if name == LEARNER:
                raise
            self._tell("restart", f"{name} waits: {error}", role=name)
            self._due[name] = time.monotonic() + NO_ROOM_S

    def _start_again(self, cluster: Cluster, name: str, error: SppoError) -> None:
        """Raises the error if the role is not to be started again."""
        why = self._hung.pop(name, "")
        if why:
            error = RoleDiedError(f"{name} had hung ({why}) and was ended. {error}")
        delay_s = self._restarts.delay_s(name, error)
        reason = f"{name} had hung ({why}) and was ended" if why else str(error).splitlines()[0]
        self._tell("restart", f"{name} is started again in {delay_s:.0f} s: {reason}", role=name)
        self._due[name] = time.monotonic() + delay_s

    def _ask(self, work: Callable[[], object]) -> bool:
        """Work with the broker, which may be lost in between: then it is found out and mended in
        the next round.
        """
        try:
            work()
        except BrokerError:
            if self._server is None:
                raise
            return False
        return True

    def _look_around(self, cluster: Cluster, broker: Broker) -> None:
        members = self._follow(broker)
        now = time.monotonic()
        if (
            now - self._looked_at > 4 * POLL_S
        ):  # the broker was away, or this process was: nobody is to blame
            self._watchdog.excuse()
        self._looked_at = now
        self._end_hung(cluster, members)

    def _bury(self, cluster: Cluster, broker: Broker, name: str) -> None:
        """End what a role that has ended left running, and take it out of the registry, so that
        nobody waits for it.
        """
        self._watchdog.forget(name)
        self._started_at.pop(name, None)
        cluster.sweep(name)
        if self._broker_is_there():
            self._ask(lambda: broker.leave(name))

    def _end_hung(self, cluster: Cluster, members: list[Member]) -> None:
        """A role that lives without working is as good as dead: end it, and it is started again."""
        if self._interrupts:
            return  # whoever leaves stops its heartbeat first
        staying = {
            name: at for name, at in self._started_at.items() if name not in self._scaler.leaving
        }
        for name, why in self._watchdog.hung(staying, members).items():
            if name not in self._hung:
                self._hung[name] = why
                cluster.sweep(name)

    def _broker_is_there(self) -> bool:
        """Whether the broker answers; an embedded one that died or hangs is started again. Raises
        BrokerError.
        """
        if self._server is None:
            return True  # a server of the user's own: clients wait for it and say so
        now = time.monotonic()
        if self._server.answers():
            if now - self._answered_at > 2 * POLL_S:
                self._watchdog.excuse()
            self._answered_at = now
            self._restarts.saw("broker")
            return True
        dead = self._server.pid is None
        if dead or now - self._answered_at > BROKER_SILENCE_S:
            what = "died" if dead else f"gave no answer for {BROKER_SILENCE_S:.0f} s"
            # Started again at once: everyone waits for it. Too often is the end all the same.
            self._restarts.delay_s(
                "broker", BrokerError(f"the broker {what}; see {self._run_dir}/broker/server.log")
            )
            self._tell("restart", f"the broker is started again: it {what}", role="broker")
            self._server.restart()
            self._watchdog.excuse()
            self._answered_at = time.monotonic()
            return True
        return False

    def _follow(self, broker: Broker) -> list[Member]:
        assert self._journal is not None
        for event in self._journal.news():
            self._progress.event(event)
            if event["kind"] == "step":
                self._restarts.saw(LEARNER)
                self._restarts.stepped()
        members = broker.members()
        for member in members:
            self._restarts.saw(member.name)
            self._scaler.saw(member.name)
        self._members = describe(members)
        self._progress.members(members)
        self._memory.sample()
        self._status()
        return members

    def _dismiss(self, cluster: Cluster, broker: Broker) -> None:
        """Ask the other roles to finish and wait for them."""
        self._due.clear()
        asked = False
        deadline = time.monotonic() + LEAVE_TIMEOUT_S
        while cluster.roles and time.monotonic() < deadline:
            if self._broker_is_there() and not asked:
                asked = self._ask(lambda: broker.request_stop("workers", "the learner is done"))
            ended = cluster.wait(POLL_S)
            if ended is not None:
                try:
                    cluster.result(ended)
                except SppoError as error:
                    log.warning("while leaving: %s", error)
        if cluster.roles:
            log.warning(
                "%s did not finish in %.0f s and are ended",
                ", ".join(cluster.roles),
                LEAVE_TIMEOUT_S,
            )

    def _status(self, phase: str | None = None) -> None:
        state = self._progress.state() | ({"phase": phase} if phase else {})
        about = {
            "members": self._members,
            "restarts": dict(self._restarts.counts),
            "scale": self._scaler.state(),
        }
        run_dirs.write_status(
            self._run_dir,
            state
            | about
            | {"by": "up", "updated": time.time(), "peak_memory_mb": self._memory.nbytes >> 20},
        )

    def _tell(self, kind: str, text: str, **fields: Any) -> None:
        self._progress.note(text)
        if self._journal is not None:
            self._journal.write({"kind": kind, "text": text, **fields})

    def _summarise(self, outcome: dict[str, Any]) -> dict[str, Any]:
        summary = outcome | {
            "peak_memory_mb": self._memory.nbytes >> 20,
            "restarts": dict(self._restarts.counts),
        }
        run_dirs.write_json(self._run_dir / "summary.json", summary)
        self._status()
        return summary

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Count requests to stop instead of dying of them."""
        undo = stop.catch(self._interrupt)
        try:
            yield
        finally:
            undo()

    def _interrupt(self, _: str) -> None:
        self._interrupts += 1
