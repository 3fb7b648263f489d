"""The scorer role: serves HTTP, announces its address, until the run asks to stop or this process
is asked to leave.
"""

from __future__ import annotations

import logging
import secrets
import socket
import threading

from sppo.config import RunConfig
from sppo.errors import ScorerError
from sppo.scorer.service import Service
from sppo.transport.broker import HEARTBEAT_S, HEARTBEAT_TTL_S, Registry
from sppo.types import Member

log = logging.getLogger(__name__)


def run(config: RunConfig, registry: Registry, name: str, leave: threading.Event) -> None:
    """Serve `scorer.name` until the run stops or `leave` is set: then finish what is in hand.

    Raises ConfigError for a host that it cannot serve at or a function that it cannot import,
    ScorerError if the service ends by itself, RoleDiedError if a rule has kept every thread.
    """
    settings = config.scorer
    service = Service(
        settings.name,
        options=settings.class_options,
        token=settings.token.get_secret_value(),
        host=settings.host,
        port=settings.port,
        timeout_s=settings.timeout_s,
    )
    service.start()
    life = secrets.token_hex(8)
    answered = 0
    log.info("%s serves %s", service.url, config.scorer.name)
    try:
        while not (leave.is_set() or registry.stop_reason("workers", name)):
            if not service.alive:
                raise ScorerError(f"the scorer service {name} ended by itself")
            if service.fault is not None:
                raise service.fault
            answered += service.answers()
            registry.heartbeat(
                Member(
                    name=name,
                    role="scorer",
                    life=life,
                    host=socket.gethostname(),
                    address=service.url,
                    busy_s=service.clock.busy_s,
                    ready_s=service.clock.ready_s,
                    progress=answered + service.scored,
                    counters=service.counters,
                ),
                HEARTBEAT_TTL_S,
            )
            leave.wait(HEARTBEAT_S)
    finally:
        registry.leave(name)  # first: whoever asks next asks another
        service.stop()
