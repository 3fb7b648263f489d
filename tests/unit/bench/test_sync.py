"""How the phases of a measured weight sync are judged."""

from __future__ import annotations

import pytest

from sppo.bench import sync
from sppo.bench.sync import SYNC_BAR_S, Measured, Phases


def measured(*, nbytes: int, total_s: float, pause_s: float) -> Measured:
    phases = Phases(
        engine="keeps the bytes",
        stage_s=0.0,
        ready_s=0.0,
        transfer_s=total_s,
        total_s=total_s,
        pause_s=pause_s,
    )
    return Measured(
        model="m", nbytes=nbytes, syncs=1, memcpy_s=0.0, engines=[phases], reload_s=None
    )


@pytest.mark.parametrize(
    ("nbytes", "total_s", "pause_s", "ok"),
    [
        (269_000_000, 0.29, 0.29, [True, True]),
        (269_000_000, 0.31, 0.31, [False, False]),
        (2_690_000_000, 2.9, 2.9, [True, True]),  # a larger model may take its share longer
        (26_900_000, 0.029, 0.29, [True, True]),  # a smaller one may pause as long all the same
    ],
)
def test_the_bars_are_those_of_the_default_model_and_grow_with_the_bytes(
    nbytes: int, total_s: float, pause_s: float, ok: list[bool]
) -> None:
    found = sync.checks(measured(nbytes=nbytes, total_s=total_s, pause_s=pause_s))
    assert [check.ok for check in found] == ok
    assert found[0].bar == pytest.approx(SYNC_BAR_S / 0.269)
