"""A wish is a file, which any program can make and take away."""

from __future__ import annotations

from pathlib import Path

from sppo import asked


def test_wishes_stand_until_they_are_withdrawn(tmp_path: Path) -> None:
    assert asked.standing(tmp_path) == []
    asked.ask(tmp_path, asked.EVALUATE)
    asked.ask(tmp_path, asked.PAUSE)
    asked.ask(tmp_path, asked.PAUSE)
    assert asked.standing(tmp_path) == ["pause", "evaluate"]
    asked.withdraw(tmp_path, asked.PAUSE, asked.CHECKPOINT)
    assert asked.standing(tmp_path) == ["evaluate"]
