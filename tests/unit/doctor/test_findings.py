"""One line a finding, and no check takes the others with it."""

from __future__ import annotations

from collections.abc import Callable

from sppo.doctor.findings import Finding, Run, counted, fail, made, ok, skip, warn
from sppo.errors import ConfigError


def test_each_state_has_its_words_and_what_can_be_mended_its_mend() -> None:
    assert ok("a", "b") == Finding("a", "ok", "b")
    assert warn("a", "b", "c").mend == "c"
    assert fail("a", "b", "c").state == "fail"
    assert skip("a", "why").words == "why"


def test_a_refusal_is_a_line_that_fails(run: Callable[..., Run]) -> None:
    def refuses(_: Run) -> list[Finding]:
        raise ConfigError("x = 1: set 2")

    assert made("x", refuses, run()) == [Finding("x", "fail", "x = 1: set 2")]


def test_a_check_that_breaks_is_told_and_skipped(run: Callable[..., Run]) -> None:
    def breaks(_: Run) -> list[Finding]:
        raise FileNotFoundError("no\nsuch file")

    (it,) = made("x", breaks, run())
    assert it == skip("x", "could not be looked at: FileNotFoundError: no such file")


def test_states_are_counted() -> None:
    found = [ok("a", ""), ok("b", ""), fail("c", "", "")]
    assert counted(found) == {"ok": 2, "warn": 0, "fail": 1, "skip": 0}
