"""The groups that the transport's benchmark carries, and how its rates are judged."""

from __future__ import annotations

import pickle
from itertools import product

import msgpack
import numpy as np
import pytest

from sppo.bench import transport
from sppo.bench.transport import BULK, SIZES, WAYS, Rate
from sppo.transport import codec


def rates(**groups_per_s: float) -> list[Rate]:
    """Of each way at the largest size: given by name, with and without a log, else 1."""
    return [
        Rate(
            way=way,
            nbytes=BULK,
            durable=durable,
            groups_per_s=groups_per_s.get(way.replace(" ", "_"), 1.0),
            mb_per_s=0.0,
        )
        for way, durable in product(WAYS, (True, False))
    ]


@pytest.mark.parametrize("nbytes", SIZES)
def test_a_group_s_frame_has_about_the_size_that_was_asked_for(nbytes: int) -> None:
    frame = codec.encode_group(transport.group(3, nbytes))
    assert len(frame) == pytest.approx(nbytes, rel=0.1)
    assert codec.decode_group(frame).uid == "train-000000003"


def test_every_way_carries_the_same_arrays() -> None:
    group = transport.group(0, SIZES[0])
    there = pickle.loads(transport._pickled(group))
    assert np.array_equal(there.completions[7].token_ids, group.completions[7].token_ids)
    uid, prompt, completions, rewards = msgpack.unpackb(transport._listed(group))
    assert (uid, prompt) == (group.uid, group.prompt_ids.tolist())
    assert completions[7][0] == group.completions[7].token_ids.tolist()
    assert rewards == group.rewards.tolist()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("ours", "holds"),
    [
        (10.0, {"transport_vs_msgpack_lists": True, "transport_vs_pickle": True}),
        (9.0, {"transport_vs_msgpack_lists": False, "transport_vs_pickle": True}),
        (0.4, {"transport_vs_pickle": False, "transport_vs_limit": False}),
    ],
)
def test_ours_is_judged_against_the_other_ways_of_the_same_run(
    ours: float, holds: dict[str, bool]
) -> None:
    found = {check.name: check.ok for check in transport.checks(rates(sppo=ours))}
    assert {name: found[name] for name in holds} == holds
