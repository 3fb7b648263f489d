"""The learner's heartbeat: shows that its process lives, and that it gets on with its work.

Sent from a thread of its own, so it goes on through long steps; `beat` is called by the work
itself.
"""

from __future__ import annotations

import logging
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sppo.errors import SppoError
from sppo.metrics import BusyClock
from sppo.transport.broker import HEARTBEAT_S, HEARTBEAT_TTL_S, LEARNER, Registry
from sppo.types import Member

log = logging.getLogger(__name__)


class Pulse:
    """with Pulse(broker.registry) as pulse: ... pulse.beat()"""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._life = secrets.token_hex(8)
        self._progress = 0
        self._busy = False
        self._clock = BusyClock()
        self.in_hand = 0
        """Tickets that are out and not trained."""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="heartbeat")

    def __enter__(self) -> Pulse:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(HEARTBEAT_TTL_S)

    def beat(self) -> None:
        """Something got done."""
        self._progress += 1

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Around one long piece of work that cannot beat: loading, saving. Only silence shows that
        it hangs.
        """
        self._busy = True
        try:
            yield
        finally:
            self._busy = False
            self.beat()

    def _run(self) -> None:
        while not self._ended.is_set():
            if self._busy:
                self.beat()
            member = Member(
                name=LEARNER,
                role="learner",
                life=self._life,
                host=socket.gethostname(),
                progress=self._progress,
                in_hand=self.in_hand,
                ready_s=self._clock.ready_s,
            )
            try:
                self._registry.heartbeat(member, HEARTBEAT_TTL_S)
            except (
                SppoError
            ) as error:  # whoever works with the broker meets it too and says what follows
                log.warning("no heartbeat: %s", error)
            self._ended.wait(HEARTBEAT_S)
        try:
            self._registry.leave(LEARNER)
        except SppoError as error:
            log.warning("%s while leaving", error)
