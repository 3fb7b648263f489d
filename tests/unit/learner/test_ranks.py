"""One rank keeps to itself; several are tried as processes in tests/integration/test_ranks.py."""

from __future__ import annotations

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
    with ranks._loopback_only(nccl=nccl):
        assert os.environ["GLOO_SOCKET_IFNAME"] in ("lo", "lo0")
        assert ("NCCL_SOCKET_IFNAME" in os.environ) is nccl
    assert os.environ["GLOO_SOCKET_IFNAME"] == "eth7"
    assert "NCCL_SOCKET_IFNAME" not in os.environ


def test_a_broken_connection_is_a_rank_that_died() -> None:
    def broken() -> None:
        with ranks._deaths():
            raise RuntimeError("Connection reset by peer")

    called: Callable[[], None] = broken
    with pytest.raises(RoleDiedError, match="a rank of the learner is gone"):
        called()
