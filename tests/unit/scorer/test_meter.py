"""What a service counts."""

from __future__ import annotations

import pytest

from sppo.metrics import BusyClock
from sppo.scorer.meter import BUCKETS_S, Meter


def test_groups_are_counted_and_timed() -> None:
    meter = Meter(BusyClock())
    with meter.group():
        assert meter.in_hand == 1
        meter.count("scored")
    meter.count("refused")
    with pytest.raises(ZeroDivisionError), meter.group():
        raise ZeroDivisionError
    meter.count("later")
    assert (meter.in_hand, meter.answered) == (0, 3)
    assert meter.health("mine") | {"busy_s": 0, "ready_s": 0} == {
        "scorer": "mine", "scored": 1, "in_hand": 0, "busy_s": 0, "ready_s": 0,
    }  # fmt: skip
    lines = meter.text().splitlines()
    assert 'sppo_scorer_groups_total{outcome="refused"} 1' in lines
    assert "sppo_scorer_in_hand 0" in lines
    assert 'sppo_scorer_group_seconds_bucket{le="0.005"} 2' in lines
    assert 'sppo_scorer_group_seconds_bucket{le="+Inf"} 2' in lines
    assert "sppo_scorer_group_seconds_count 2" in lines
    buckets = [line for line in lines if "_bucket{" in line]
    assert len(buckets) == len(BUCKETS_S) + 1
    types = [line.split()[2:] for line in lines if line.startswith("# TYPE")]
    assert ["sppo_scorer_group_seconds", "histogram"] in types


def test_what_a_scorer_counts_itself_is_there_too() -> None:
    lines = Meter(BusyClock()).text({"calls": 1234567.0, 'a"b': 2}).splitlines()
    assert 'sppo_scorer_own_total{name="calls"} 1234567' in lines
    assert 'sppo_scorer_own_total{name="a\\"b"} 2' in lines
    assert "# TYPE sppo_scorer_own_total counter" in lines
