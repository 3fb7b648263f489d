"""Ranks that are started by hand show that they live, and one that stops is named."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from sppo.errors import RoleDiedError
from sppo.learner import by_hand
from sppo.learner.by_hand import Apart
from sppo.learner.place import Place


def at(rank: int, port: int = 1) -> Place:
    return Place(rank=rank, size=3, local=0, address="127.0.0.1", port=port)


class Quiet:
    """Signs that show what the test says."""

    def __init__(self) -> None:
        self.seen: dict[int, str] = {}
        self.over = False

    def start(self, lost: Any, alone: Any) -> None:
        self.lost, self.alone = lost, alone

    def found(self) -> dict[int, str]:
        return self.seen

    def end(self) -> None:
        self.over = True


def test_who_does_not_come_is_named_as_the_signs_have_it() -> None:
    signs: Any = Quiet()
    apart = Apart(signs)
    assert apart.ended() == ""
    signs.seen = {1: "rank 1 is silent", 2: "rank 2 too"}
    assert apart.lost() == apart.ended() == "rank 1 is silent, rank 2 too"
    assert apart.expect_the_end()
    assert signs.over
    assert not apart.expect_the_end()
    apart.end()


def test_a_rank_ends_without_rank_0_and_without_another_unless_that_was_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended: list[int] = []
    monkeypatch.setattr(by_hand, "DEATH_NOTICE_S", 0.0)
    monkeypatch.setattr(by_hand.os, "_exit", ended.append)
    signs: Any = Quiet()
    apart = Apart(signs)
    signs.lost({1: "rank 1 is silent"})
    signs.alone("Connection reset")
    assert ended == [RoleDiedError.exit_code] * 2
    apart.noticed()
    signs.lost({1: "rank 1 is silent"})
    assert len(ended) == 2


def test_where_nobody_listens_or_another_does_rank_and_address_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(by_hand, "JOIN_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RoleDiedError, match=rf"rank 0 .* cannot listen at 127.0.0.1:{port}"):
            by_hand.open_store(at(0, port))


def test_rank_0_listens_at_its_own_address_alone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    store = by_hand.open_store(at(0, port))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", port), timeout=5)
    store.set("said", "heard")
    assert by_hand.open_store(at(1, port)).get("said") == b"heard"


def test_the_interface_is_the_one_that_leads_to_rank_0() -> None:
    assert by_hand.interface(at(1)) in ("lo", "lo0")
