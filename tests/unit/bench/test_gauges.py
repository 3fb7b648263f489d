"""Seconds and memory of a call on a CPU."""

from __future__ import annotations

import time

import torch

from sppo.bench.gauges import Clock, Memory


def test_a_lap_is_the_time_since_the_last_one() -> None:
    clock = Clock(gpu=False)
    clock.start()
    time.sleep(0.02)
    first, second = clock.lap(), clock.lap()
    assert first >= 0.02
    assert 0 <= second < first


def test_memory_is_what_a_call_adds_at_its_peak() -> None:
    memory = Memory(gpu=False)
    memory.reset()
    torch.ones(8 << 20).sum()  # 32 MiB, gone at once
    extra = memory.extra_mib()
    assert extra is None or 24 < extra < 512  # None where the system does not let us see it
