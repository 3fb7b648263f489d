"""Requests to stop, looked at wherever the learner waits."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from sppo import stop
from sppo.learner.pulse import Pulse
from sppo.learner.refusals import Refusals
from sppo.transport.broker import Registry

log = logging.getLogger(__name__)


class Stopped(Exception):  # noqa: N818 - not an error
    """The run asked everyone to finish."""


class Stops:
    """Those to this learner, by signal or by the broker."""

    def __init__(self, broker: Registry, pulse: Pulse, refusals: Refusals) -> None:
        self._broker = broker
        self._pulse = pulse
        self._refusals = refusals
        self._signal = ""

    def check(self) -> None:
        """Show that the learner lives, hear what generators refuse. Raises Stopped if asked to
        stop, ScorerSpent where nothing more will be scored.
        """
        self._pulse.beat()
        self._refusals.hear(self._broker.members())
        if self._signal:
            log.info("%s", self._signal)
            raise Stopped
        if self._broker.stop_reason("learner"):
            raise Stopped

    @contextmanager
    def by_signals(self) -> Iterator[None]:
        """Inside, a signal that asks this process to stop is a request like any other."""

        def note(name: str) -> None:
            self._signal = name

        undo = stop.catch(note)
        try:
            yield
        finally:
            undo()
