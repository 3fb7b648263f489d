"""One rank keeps to itself; several are tried as processes in tests/integration/test_ranks.py."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import pytest
import torch

from sppo.errors import RoleDiedError
from sppo.learner import ranks
from sppo.learner.ranks import Ranks, Solo


def test_one_rank_hears_itself_alone() -> None:
    solo: Ranks = Solo()
    solo.tell({"do": "masters"})
    assert list(solo.told()) == []
    assert solo.broadcast({"a": 1}) == {"a": 1}
    assert solo.gather(3) == [3]
    assert solo.most([2, 5]) == [2, 5]
    value = torch.ones(2)
    assert solo.add(value) is value
    assert solo.lost() == ""
    solo.close()
    solo.close(at_once=True)


@pytest.mark.parametrize("nccl", [True, False])
def test_groups_are_made_on_loopback_and_the_environment_is_as_before(
    nccl: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth7")
    monkeypatch.delenv("NCCL_SOCKET_IFNAME", raising=False)
    with ranks._listening(ranks._loopback(), nccl=nccl):
        assert os.environ["GLOO_SOCKET_IFNAME"] in ("lo", "lo0")
        assert ("NCCL_SOCKET_IFNAME" in os.environ) is nccl
    assert os.environ["GLOO_SOCKET_IFNAME"] == "eth7"
    assert "NCCL_SOCKET_IFNAME" not in os.environ


class Store:
    def __init__(self, *there: int) -> None:
        self.values = {f"joined/{rank}": json.dumps({"host": f"h{rank}"}) for rank in there}

    def set(self, key: str, value: str) -> None:
        self.values[key] = value

    def get(self, key: str) -> bytes:
        return self.values[key].encode()

    def check(self, keys: list[str]) -> bool:
        return set(keys) <= self.values.keys()


def test_a_rank_that_never_joins_is_named_within_its_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ranks, "JOIN_S", 0.01)
    there = ranks._roll_call(Store(1, 2), 0, 3, {"host": "h0"}, lambda: "")
    assert there == [{"host": "h0"}, {"host": "h1"}, {"host": "h2"}]
    with pytest.raises(RoleDiedError, match=r"learner.ranks = 3: rank 2 has not joined within 0 s"):
        ranks._roll_call(Store(1), 0, 3, {}, lambda: "")


def test_a_rank_that_dies_before_it_joins_is_named_at_once() -> None:
    with pytest.raises(RoleDiedError, match=r"^rank 1 of the learner ended with 2 before it had"):
        ranks._roll_call(Store(), 0, 2, {}, lambda: "rank 1 of the learner ended with 2")


def test_a_broken_connection_is_a_rank_that_died() -> None:
    def broken() -> None:
        with ranks._deaths():
            raise RuntimeError("Connection reset by peer")

    called: Callable[[], None] = broken
    with pytest.raises(RoleDiedError, match="a rank of the learner is gone"):
        called()
