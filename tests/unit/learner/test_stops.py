"""A request to stop is met wherever the learner looks."""

from __future__ import annotations

import os
import signal

import pytest

from sppo.learner.pulse import Pulse
from sppo.learner.refusals import Refusals
from sppo.learner.stops import Stopped, Stops
from sppo.transport.memory import MemoryBroker
from sppo.types import Member
from tests.unit.learner.fakes import stops


def test_nothing_happens_until_the_run_asks_this_learner() -> None:
    broker = MemoryBroker()
    looked = stops(broker)
    looked.check()
    broker.registry.request_stop("workers", "done")
    looked.check()
    broker.registry.request_stop("learner", "enough")
    with pytest.raises(Stopped):
        looked.check()


def test_a_signal_is_a_request_like_any_other_and_its_handler_goes_again() -> None:
    looked, before = stops(MemoryBroker()), signal.getsignal(signal.SIGTERM)
    with looked.by_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Stopped):
            looked.check()
    assert signal.getsignal(signal.SIGTERM) == before


def test_looking_hears_what_generators_refuse() -> None:
    broker, heard = MemoryBroker(), []
    looked = Stops(
        broker.registry, Pulse(broker.registry), Refusals(lambda kind, **fields: heard.append(kind))
    )
    member = Member(name="generator-0", role="generator", life="a", refusals=2, refusal="t: no")
    broker.registry.heartbeat(member, 60)
    looked.check()
    assert heard == ["refusal"]
