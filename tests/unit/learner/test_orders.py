"""Orders travel as msgpack and mean the same on every rank."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from sppo.learner import orders
from sppo.learner.orders import (
    ORDERS,
    Drop,
    Export,
    Keep,
    Load,
    Mismatch,
    Order,
    Rank,
    Save,
    Train,
    Weights,
)
from sppo.learner.ranks import Solo
from sppo.transport import codec
from tests import makers

MADE: list[Order] = [
    Train(
        shares=[[[{"uid": "train-0", "gid": "g"}], []]], sizes=[{"completions": 2}], version="e:1",
        published="e:0",
    ),
    Mismatch(groups=[[["train-0", "g"]], []], version="e:1", snapshot=None),
    Keep(snapshot="anchor", device="cpu", folder="/a"),
    Drop(snapshot="probe"),
    Weights(snapshot=None),
    Save(folder="/s", snapshots=["anchor"]),
    Load(folder="/c"),
    Export(folder="/e", dtype="bfloat16"),
]  # fmt: skip


def test_every_order_comes_out_of_the_wire_as_it_went_in() -> None:
    assert {type(order) for order in MADE} == set(ORDERS.values())
    for order in MADE:
        packed = orders.pack(order)
        assert packed["do"] == type(order).__name__.lower()
        assert orders.unpack(codec.unpack(codec.pack(packed))) == order


def test_an_order_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="no order 'dance'"):
        orders.unpack({"do": "dance"})


class Wire(Solo):
    """Keeps what is told, or tells it."""

    def __init__(self, rank: int = 0, messages: Sequence[dict[str, Any]] = ()) -> None:
        self.rank, self.messages = rank, list(messages)

    def tell(self, message: dict[str, Any]) -> None:
        self.messages.append(codec.unpack(codec.pack(message)))

    def told(self) -> Iterator[dict[str, Any]]:
        return iter(self.messages)


class Part:
    """Policy, optimizer, trainer and groups at once: notes what is called."""

    device = "cpu"

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def keep(self, snapshot: str, *, device: str, there: Any) -> None:
        self.calls.append(("keep", snapshot, device, there))

    def drop(self, snapshot: str) -> None:
        self.calls.append(("drop", snapshot))

    def weights(self, snapshot: Any) -> Iterator[tuple[str, int]]:
        for name in ("a", "b"):
            self.calls.append(("piece", name))
            yield name, 1

    def named(self, names: Sequence[tuple[str, str]]) -> dict[str, Any]:
        self.calls.append(("named", list(names)))
        return {uid: makers.group(uid) for uid, _ in names}

    def take_steps(self, shares: Any, sizes: Any, groups: Any, *versions: Any) -> Any:
        self.calls.append(("train", shares, sizes, sorted(groups), *map(str, versions)))
        return iter([1, 2])

    def measure(self, groups: Any, version: Any, snapshot: Any) -> list[int]:
        self.calls.append(("measure", [g.uid for g in groups], str(version), snapshot))
        return [3]


def rank(team: Wire) -> tuple[Rank, Part]:
    part: Any = Part()
    return Rank(team=team, policy=part, optimizer=part, trainer=part, groups=part), part


def test_rank_0_tells_the_others_first_and_all_do_the_same() -> None:
    first, own = rank(Wire())
    first.do(Keep(snapshot="probe", device="cpu"))
    pieces = first.stream(Weights())
    assert len(first.team.messages) == 1  # type: ignore[attr-defined]
    assert list(pieces) == [("a", 1), ("b", 1)]
    first.do(Drop(snapshot="probe"))
    other, part = rank(Wire(1, first.team.messages))  # type: ignore[attr-defined]
    other.follow()
    assert part.calls == own.calls
    assert len(own.calls) == 4


def test_each_rank_trains_and_measures_its_own_share() -> None:
    one, two = {"uid": "train-1", "gid": "g1"}, {"uid": "train-2", "gid": "g2"}
    train = Train(
        shares=[[[one], [two]], [[two], []]], sizes=[{}, {}], version="e:1", published="e:0"
    )
    mismatch = Mismatch(groups=[[], [("train-2", "g2")]], version="e:1", snapshot="probe")
    for number, shares, names in (
        (0, [[one], [two]], [("train-1", "g1"), ("train-2", "g2")]),
        (1, [[two], []], [("train-2", "g2")]),
    ):
        made, part = rank(Wire(number))
        assert list(made.stream(train)) == [1, 2]
        assert part.calls == [
            ("named", names),
            ("train", shares, [{}, {}], [uid for uid, _ in names], "e:1", "e:0"),
        ]
        assert list(made.stream(mismatch)) == [3]
        assert part.calls[-1] == ("measure", ["train-2"] if number else [], "e:1", "probe")
