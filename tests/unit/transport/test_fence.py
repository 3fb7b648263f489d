"""The hold of one learner on its run, on a server that may lose its newest writes."""

from __future__ import annotations

import pytest

from sppo.errors import FencedError
from sppo.transport.client import Connection
from sppo.transport.fence import Fence


class Life:
    """A learner's fence, and how often it took the run back."""

    def __init__(self, server: Connection) -> None:
        self.taken_back = 0
        self.fence = Fence(server, self._again)

    def _again(self) -> None:
        self.taken_back += 1


def test_a_learner_that_never_opened_the_run_does_not_have_it(server: Connection) -> None:
    life = Life(server)
    with pytest.raises(FencedError):
        life.fence.step("confirm")
    assert life.taken_back == 0


def test_a_server_that_forgot_everything_is_taken_back(server: Connection) -> None:
    life = Life(server)
    life.fence.open("a")
    server.client.delete(server.key("epoch"), server.key("epoch:before"), server.key("q"))
    assert life.fence.steps("confirm", [{}, {}]) == [1, 1]
    assert life.taken_back == 1
    assert server.client.get(server.key("epoch")) == b"a"


def test_a_server_that_fell_back_to_the_epoch_before_is_taken_back(server: Connection) -> None:
    # Given a learner that replaced another
    Life(server).fence.open("a")
    life = Life(server)
    life.fence.open("b")
    # When the server forgets that
    server.client.set(server.key("epoch"), "a")
    # Then the run is still the second one's
    life.fence.step("confirm")
    assert life.taken_back == 1


def test_a_run_that_another_learner_has_taken_is_not_taken_back(server: Connection) -> None:
    first, second = Life(server), Life(server)
    first.fence.open("a")
    second.fence.open("b")
    with pytest.raises(FencedError):
        first.fence.step("confirm")
    second.fence.step("confirm")
    assert (first.taken_back, second.taken_back) == (0, 0)
