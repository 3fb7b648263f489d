"""Plots are PNG files; those of the laboratory are drawn in test_objective.py."""

from __future__ import annotations

from pathlib import Path

from sppo.bench import plots
from sppo.bench.checks import Finding, at_most


def test_a_finding_is_drawn_to_a_file_of_its_name(tmp_path: Path) -> None:
    finding = Finding(
        check=at_most("duality_gap", 0.1, 0.2, ""),
        statement="The gap closes.",
        series={"updates": [1, 10], "duality gap": {"new": [0.5, 0.1], "old": [0.6, 0.3]}},
    )
    (path,) = plots.draw([finding], tmp_path)
    assert path.name == "duality_gap.png"
    assert path.read_bytes().startswith(b"\x89PNG")
