"""Triton decides at import whether kernels are interpreted: one process runs one kind of test. `make test-kernels`."""

from __future__ import annotations

import os
from typing import Any

import pytest

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
collect_ignore = (
    ["test_compile_gates.py"]
    if INTERPRETED
    else ["test_interpreter.py", "test_loss_interpreter.py", "test_learner_interpreter.py"]
)
TABLE = pytest.StashKey[list[str]]()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    for line in config.stash.get(TABLE, []):
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def table(request: pytest.FixtureRequest) -> list[str]:
    """Lines printed after the tests."""
    return request.config.stash.setdefault(TABLE, [])
