"""Triton decides at import whether kernels are interpreted: one process runs one kind of test.
`make test-kernels`.

With a GPU the tests of values run on it too, in the process that does not interpret.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
ON_GPU = torch.cuda.is_available() and not INTERPRETED

if INTERPRETED:
    from tests.kernels import interpreter  # noqa: F401  mends the interpreter
if ON_GPU:
    import triton

    torch.set_default_device("cuda")
    # A tile that computes addresses makes its descriptors on the device where that has them.
    triton.set_allocator(lambda size, align, stream: torch.empty(size, dtype=torch.int8))

VALUES = ["test_log_probs.py", "test_loss.py", "test_learner.py"]
collect_ignore = ["test_compile_gates.py"] if INTERPRETED else [] if ON_GPU else VALUES
TABLE = pytest.StashKey[list[str]]()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    for line in config.stash.get(TABLE, []):
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def table(request: pytest.FixtureRequest) -> list[str]:
    """Lines printed after the tests."""
    return request.config.stash.setdefault(TABLE, [])
