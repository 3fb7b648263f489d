"""Libraries of trackers that write down how they are called. The real ones are slow to begin:
tests/integration/test_trackers.py has them.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest


class Recorder:
    """Every method answers; `calls` has their names and arguments."""

    def __init__(self, answers: dict[str, Any] | None = None) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.answers = answers or {}

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            self.calls.append((name, *arguments, *([named] if named else [])))
            return self.answers.get(name)

        return call

    def of(self, name: str) -> list[tuple[Any, ...]]:
        return [call[1:] for call in self.calls if call[0] == name]


def install(monkeypatch: pytest.MonkeyPatch, name: str, **members: Any) -> ModuleType:
    """As the library of this name, whatever is installed."""
    module = ModuleType(name)
    vars(module).update(members)
    monkeypatch.setitem(sys.modules, name, module)
    return module


def adapter(monkeypatch: pytest.MonkeyPatch, name: str) -> Any:
    """The adapter, with the libraries that are installed now."""
    import importlib

    monkeypatch.delitem(sys.modules, f"sppo.track.{name}", raising=False)
    module = importlib.import_module(f"sppo.track.{name}")
    monkeypatch.delitem(sys.modules, f"sppo.track.{name}")
    return module
