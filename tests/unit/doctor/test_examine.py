"""All checks together: in order, none without a line, and none is waited for longer than that."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from sppo.doctor.examine import CHECKS, WAITING, examine
from sppo.doctor.findings import Finding, Run, ok

Running = Callable[..., Run]


def said(name: str) -> Callable[[Run], list[Finding]]:
    return lambda _: [ok(name, "")]


def test_findings_come_in_the_order_of_the_checks(run: Running) -> None:
    names = ["Python", "broker", "model", "ports"]
    found = examine(run(), [(name, said(name)) for name in names])
    assert [finding.name for finding in found] == names


def test_one_that_breaks_and_one_that_hangs_are_told(run: Running) -> None:
    never = threading.Event()

    def breaks(_: Run) -> list[Finding]:
        raise ValueError("oh")

    def hangs(_: Run) -> list[Finding]:
        never.wait(10)
        return []

    began = time.monotonic()
    found = examine(run(), [("Python", breaks), ("broker", hangs)], patience_s=0.02)
    never.set()
    assert time.monotonic() - began < 5
    assert [(f.name, f.state) for f in found] == [("Python", "skip"), ("broker", "skip")]
    assert found[1].words == "no answer within 0.02 s"


def test_every_check_has_a_name_of_its_own() -> None:
    names = [name for name, _ in CHECKS]
    assert len(set(names)) == len(names)
    assert set(names) >= WAITING
