"""math-verify, and the end of a verdict that takes too long."""

from __future__ import annotations

import time
from collections.abc import Iterator

import psutil
import pytest

from sppo.scorer.math.child import Child


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    before = set(psutil.Process().children())  # what other tests of this process have left
    child = Child(deadline_s=0.3)
    yield child
    child.close()
    assert set(psutil.Process().children()) <= before


def test_verdicts_of_math_verify(child: Child) -> None:
    Child(deadline_s=5.0)
    child._deadline_s = 5.0
    assert child.equal(r"\sum_{k=1}^{3} k", "6") is True
    assert child.equal(r"\sum_{k=1}^{3} k", "7") is False
    assert child.equal(r"\frac{", "\\\\{}}") is False


def test_a_late_verdict_is_killed_and_the_next_is_made(child: Child) -> None:
    child._deadline_s = 0.2
    begun = time.monotonic()
    assert child.equal(r"x^2+\int_0^1 x dx", "100000000!") is None
    assert time.monotonic() - begun < 5
    child._deadline_s = 5.0
    assert child.equal(r"\sum_{k=1}^{3} k", "6") is True


def test_no_process_is_left() -> None:
    before = set(psutil.Process().children())
    child = Child(deadline_s=5.0)
    assert child.equal("1", "1") is True
    started = set(psutil.Process().children()) - before
    assert started
    child.close()
    child.close()
    assert not started & set(psutil.Process().children())


def test_what_is_too_long_is_not_asked(child: Child) -> None:
    assert child.equal("7", "9" * 100_000) is None
