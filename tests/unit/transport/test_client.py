"""What the client makes of a server's troubles: which pass, for how long it waits, what it says."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import redis

from sppo.config import BrokerConfig
from sppo.errors import BrokerError, ConfigError, FencedError
from sppo.transport import client, scripts
from sppo.transport.client import Connection, rows


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "RETRY_S", 0.01)


@pytest.fixture
def nobody() -> Iterator[Connection]:
    """A connection where no server is, nor asked for."""
    made = Connection(BrokerConfig(url="unix:///nowhere", outage_s=0.1), "run")
    yield made
    made.close()


def failing(*errors: Exception) -> Callable[[], str]:
    """A call that fails with each in turn, then succeeds."""
    left = list(errors)

    def run() -> str:
        if left:
            raise left.pop(0)
        return "done"

    return run


PASSING = [
    redis.ConnectionError("refused"),
    redis.TimeoutError("late"),
    redis.BusyLoadingError("LOADING the dataset"),
    redis.ReadOnlyError("READONLY You can't write against a read only replica."),
    redis.ResponseError("MISCONF Errors writing to the AOF file"),
    redis.ResponseError("BUSY Redis is busy running a script."),
    redis.OutOfMemoryError("command not allowed"),
]


@pytest.mark.parametrize("error", PASSING, ids=lambda e: str(e)[:8])
def test_what_passes_is_waited_for(error: Exception, nobody: Connection) -> None:
    assert nobody.call(failing(error, error)) == "done"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PASSING[0], r"cannot be reached from \S+: refused for 0 s; is the server running?"),
        (PASSING[3], "is not the primary, or busy: .* look at the server"),
        (PASSING[4], "cannot write to its disk: .* free some disk space"),
        (PASSING[6], "is out of memory for 0 s; raise its maxmemory or lower broker.max_bytes"),
    ],
    ids=["away", "role", "disk", "memory"],
)
def test_what_lasts_is_named_with_its_mend(
    error: Exception, words: str, nobody: Connection
) -> None:
    started = time.monotonic()
    with pytest.raises(BrokerError, match=words):
        nobody.call(failing(*[error] * 1000))
    assert time.monotonic() - started >= 0.1


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (redis.ResponseError("FENCED"), FencedError),
        (redis.AuthenticationError("invalid password"), ConfigError),
        (redis.ResponseError("WRONGTYPE Operation against a key"), BrokerError),
        (redis.exceptions.NoPermissionError("NOPERM"), BrokerError),
    ],
    ids=["fenced", "password", "type", "permission"],
)
def test_what_will_not_pass_is_not_waited_for(
    error: Exception, raised: type[Exception], nobody: Connection
) -> None:
    with pytest.raises(raised):
        nobody.call(failing(error))


def test_a_caller_may_have_no_patience_or_take_a_full_server_for_an_answer(
    nobody: Connection,
) -> None:
    with pytest.raises(BrokerError, match=r"cannot be reached from \S+: refused; is"):
        nobody.call(failing(PASSING[0]), patience_s=0.0)
    assert nobody.call(failing(PASSING[6]), when_full=lambda: "full") == "full"


def test_a_server_that_does_not_know_the_scripts_is_told(
    connection: Callable[..., Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given scripts that no server has seen, as after its restart
    new = [replace(s, source=f"{s.source}-- {uuid.uuid4()}\n") for s in scripts.load()]
    monkeypatch.setattr(scripts, "load", lambda: new)
    server = connection()
    # Then they are loaded: one by one, and in a pipeline
    assert server.step("open", mine="a", readers="learner") == b""
    assert server.steps("confirm", [{"mine": "a"}] * 2) == [1, 1]
    assert server.steps("confirm", []) == []


def test_a_fenced_step_among_many_is_an_error(server: Connection) -> None:
    server.step("open", mine="b", readers="learner")
    with pytest.raises(FencedError, match="another learner"):
        server.steps("confirm", [{"mine": "b"}, {"mine": "a"}])


@pytest.mark.parametrize(
    "reply",
    [
        [[b"stream", [(b"1-0", {b"m": b"x"}), (b"2-0", None)]]],
        {b"stream": [[(b"1-0", {b"m": b"x"}), (b"2-0", None)]]},
    ],
    ids=["protocol 2", "protocol 3"],
)
def test_rows_are_read_from_either_protocol(reply: Any) -> None:
    assert rows(reply) == [(b"1-0", {b"m": b"x"}), (b"2-0", {})]
    assert rows(None) == rows({}) == []
