"""The scorers that the bench of the service has served."""

from __future__ import annotations

import asyncio

import pytest

from sppo.bench import scorer_load


def test_both_answer_with_what_belongs_to_the_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorer_load, "WAIT_S", 0.0)
    monkeypatch.setattr(scorer_load, "ROUNDS", 3)
    completions, row = ["a", "b"], {"number": 7}
    assert scorer_load.computes("q", completions, row) == [7.0, 7 + 1 / 64]
    assert asyncio.run(scorer_load.waits("q", completions, row)) == [7.0, 7 + 1 / 64]
