"""A run that is to be started, and the one line of each name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from sppo import config
from sppo.doctor.findings import Finding, Run

Running = Callable[..., Run]


@pytest.fixture
def run(tmp_path: Path) -> Running:
    """Makes the quickstart's run, with changes, in a folder of its own."""

    def make(*changes: str, folder: Path = tmp_path / "runs" / "a", **sections: Any) -> Run:
        loaded = config.load("quickstart", list(changes), environment=False)
        return Run(config=loaded.model_copy(update=sections), folder=folder)

    return make


def line(found: Iterable[Finding], name: str) -> Finding:
    """The only one of this name."""
    (it,) = [finding for finding in found if finding.name == name]
    return it


def seen(found: Iterable[Finding]) -> dict[str, str]:
    """The state of each name."""
    return {finding.name: finding.state for finding in found}
