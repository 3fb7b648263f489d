"""Peak memory of a family of processes."""

from __future__ import annotations

import subprocess
import sys

import psutil

from sppo.launch.memory import SAMPLE_S, Peak


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_child_counts_and_its_peak_stays_when_it_has_gone() -> None:
    # Given a child that holds 64 MB of its own
    clock = Clock()
    peak = Peak(clock)
    peak.sample()
    alone = peak.nbytes
    me = psutil.Process()
    assert (
        0 < alone <= sum(p.memory_info().rss for p in [me, *me.children(recursive=True)])
    )  # other tests' too
    child = subprocess.Popen(
        [sys.executable, "-c", "held = b'x' * (64 << 20); print(flush=True); input()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert child.stdout is not None
    child.stdout.readline()
    # When it is looked for too soon, then again, then after its end
    peak.sample()
    soon, clock.now = peak.nbytes, SAMPLE_S
    peak.sample()
    held, clock.now = peak.nbytes, 2 * SAMPLE_S
    child.communicate(b"\n")
    peak.sample()
    # Then it is in the peak once it is looked at, and stays there
    assert soon == alone
    assert held >= alone + (64 << 20)
    assert peak.nbytes == held
