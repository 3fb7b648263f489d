"""Ranks that are started by hand show that they live, and one that stops is named."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest

from sppo.errors import RoleDiedError
from sppo.learner import by_hand
from sppo.learner.by_hand import Signs
from sppo.learner.place import Place


def at(rank: int, port: int = 1) -> Place:
    return Place(rank=rank, size=3, local=0, address="127.0.0.1", port=port)


class Store:
    """What all ranks see."""

    def __init__(self) -> None:
        self.values = {
            f"joined/{rank}": json.dumps({"host": f"host-{rank}"}).encode() for rank in range(3)
        }
        self.gone = False

    def clone(self) -> Store:
        return self

    def set(self, key: str, value: str) -> None:
        if self.gone:
            raise RuntimeError("Connection reset\nby peer")
        self.values[key] = value.encode()

    def get(self, key: str) -> bytes:
        return self.values[key]

    def check(self, keys: list[str]) -> bool:
        return all(key in self.values for key in keys)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(by_hand.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(by_hand.threading.Thread, "start", lambda self: None)
    return now


def test_a_rank_without_a_sign_of_life_is_named_with_its_machine(clock: list[float]) -> None:
    store: Any = Store()
    signs = Signs(store, at(0))
    for n in (1, 2):
        store.set("sign/1", "1")
        store.set("sign/2", str(n))
        signs._look()
        assert signs.ended() == ""
        clock[0] += 20
    assert signs.ended() == ("rank 1 of the learner, on host-1, has given no sign of life for 40 s")
    assert signs.lost() == signs.ended()
    assert signs.expect_the_end()
    assert not signs.expect_the_end()
    signs.end()


def test_a_rank_ends_without_rank_0_and_rank_0_without_another(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[int] = []
    monkeypatch.setattr(by_hand, "DEATH_NOTICE_S", 0.0)
    monkeypatch.setattr(by_hand.os, "_exit", ended.append)
    store: Any = Store()
    first = Signs(store, at(0))
    first._seen = {1: (b"1", 0.0)}
    first._run()
    store.gone = True
    Signs(store, at(1))._run()
    assert ended == [RoleDiedError.exit_code] * 2


def test_where_nobody_listens_or_another_does_rank_and_address_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(by_hand, "JOIN_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RoleDiedError, match=rf"rank 0 .* cannot listen at 127.0.0.1:{port}"):
            by_hand.open_store(at(0, port))


def test_the_interface_is_the_one_that_leads_to_rank_0() -> None:
    assert by_hand.interface(at(1)) in ("lo", "lo0")
