"""Which run a name means on a server: what a role on its own needs to find its work, and to be
refused.

The learner opens the run: it writes under `sppo:<name>:run` where the run's keys are, which sppo it
is, and the settings that every role must share. Generators and scorers read it, and wait until a
learner is alive there.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from dataclasses import asdict, dataclass
from typing import Any

from sppo import __version__
from sppo.config import RunConfig, identity
from sppo.errors import ConfigError
from sppo.transport.broker import LEARNER
from sppo.transport.redis_broker import connect
from sppo.transport.redis_registry import RedisRegistry
from sppo.types import digest

log = logging.getLogger(__name__)

POLL_S = 0.5
TELL_S = 30.0
SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """An open run."""

    key: str
    """Names its keys on the server."""
    version: str
    """sppo's, of the learner."""
    settings: dict[str, Any]
    """Those that every role must share."""

    @classmethod
    def of(cls, config: RunConfig, key: str) -> Run:
        """The run that this process would open."""
        return cls(key=key, version=__version__, settings=identity(config))

    def pack(self) -> bytes:
        """For the server."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def unpack(cls, name: str, value: bytes) -> Run:
        """Inverse of `pack`. Raises ConfigError for a record that this version cannot read."""
        try:
            return cls(**json.loads(value))
        except (ValueError, TypeError) as error:
            raise ConfigError(
                f"run {name!r} was opened by another version of sppo: use the same one here"
            ) from error


def fingerprint(settings: dict[str, Any]) -> str:
    """A short name for a set of settings."""
    return digest(json.dumps(settings, sort_keys=True))[:8]


def open_run(config: RunConfig, registry: RedisRegistry, key: str) -> None:
    """Say that this learner trains the run of this name, and send those home who serve an older
    one.

    Raises ConfigError if another learner is at work under the name.
    """
    value = registry.get_run(config.name)
    before = _read(config.name, value)
    mine = Run.of(config, key)
    if before is not None and before.key != key:
        old = connect(config.broker, before.key)
        try:
            if old.registry.alive(LEARNER):
                raise ConfigError(
                    f"name = {config.name!r}: another learner trains a run of this name on "
                    f"{config.broker.url}; choose another name, or end that run first"
                )
            old.registry.request_stop("workers", f"another run has taken the name {config.name}")
        finally:
            old.close()
    elif value is not None and (before is None or before.version != mine.version):
        for member in registry.members():
            registry.request_stop(member.name, f"the run goes on with sppo {mine.version}")
    registry.announce(config.name, mine.pack())


def find_run(config: RunConfig, role: str, leave: threading.Event) -> Run | None:
    """The run that `config` names, once a learner is alive there; None if `leave` is set before.

    Raises ConfigError if the run is of another version or other settings.
    """
    told = time.monotonic() - TELL_S
    while not leave.is_set():
        broker = connect(config.broker, config.name, wait=True)
        try:
            value = broker.registry.get_run(config.name)
        finally:
            broker.close()
        run = _read(config.name, value)
        if run is not None and _at_work(config, run):
            # Not before: the next run of this name may have other settings.
            check(run, config, role)
            return run
        if time.monotonic() - told >= TELL_S:
            told = time.monotonic()
            log.info("waiting for a learner to open run %s on %s", config.name, config.broker.url)
        leave.wait(POLL_S)
    return None


def _at_work(config: RunConfig, run: Run) -> bool:
    served = connect(config.broker, run.key, wait=True)
    try:
        return served.registry.alive(LEARNER)
    finally:
        served.close()


def check(run: Run, config: RunConfig, role: str) -> None:
    """Raises ConfigError if this role has another version of sppo, or other settings, than the
    run.
    """
    mine = Run.of(config, run.key)
    if run.version != mine.version:
        raise ConfigError(
            f"this {role} is sppo {mine.version}, run {config.name!r} was opened by sppo "
            f"{run.version}: install the same"
        )
    keys = sorted(run.settings.keys() | mine.settings.keys())
    if role == "scorer":  # it has no part in weight syncs, nor knows which devices others have
        keys.remove("weights.transport")
    if role == "scorer" or config.compute == "auto":  # as the learner's machine has decided
        keys.remove("compute")
    differ = [key for key in keys if run.settings.get(key) != mine.settings.get(key)]
    if differ:
        shown = "; ".join(
            f"{key} is {mine.settings.get(key)!r} here and {run.settings.get(key)!r} there"
            for key in differ[:SHOWN]
        )
        more = f"; and {len(differ) - SHOWN} more" if len(differ) > SHOWN else ""
        raise ConfigError(
            f"this {role} has configuration {fingerprint(mine.settings)}, run {config.name!r} has "
            f"{fingerprint(run.settings)}: {shown}{more}"
        )


def _read(name: str, value: bytes | None) -> Run | None:
    """The record, or None where there is none of a form that this version knows."""
    try:
        return None if value is None else Run.unpack(name, value)
    except ConfigError as error:
        log.warning("%s", error)
        return None
