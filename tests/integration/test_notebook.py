"""docs/notebook.ipynb is run from its first cell, and says what it says in the documentation."""

from __future__ import annotations

import os
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.docs import ROOT

PLACE = ROOT / "docs/notebook.ipynb"


def said(notebook: Any) -> list[str]:
    """What each cell of code wrote; nothing for one that drew."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return ["".join(out.get("text", "") for out in cell.outputs) for cell in cells]


@pytest.mark.timeout(300)
def test_it_says_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "1")
    notebook = nbformat.read(PLACE, as_version=4)
    expected = said(notebook)

    NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=300,
        resources={"metadata": {"path": str(PLACE.parent)}},
    ).execute()

    assert said(notebook) == expected
    assert any(
        "image/png" in out.get("data", {}) for c in notebook.cells for out in c.get("outputs", [])
    )
