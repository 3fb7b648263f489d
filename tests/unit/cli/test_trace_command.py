from __future__ import annotations

import json
from pathlib import Path

from sppo_cli.commands import app
from typer.testing import CliRunner

from sppo.metrics import JsonLines
from tests.unit.test_spans import line


def test_the_trace_is_written_and_a_moved_clock_is_told(tmp_path: Path) -> None:
    JsonLines(tmp_path / "spans.jsonl").append(line(1, (1.0, 7.0, 8.0, 9.0, 10.0, 6.0)))
    out = tmp_path / "t.json"
    done = CliRunner().invoke(app, ["trace", str(tmp_path), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "1 groups of 1 steps" in done.output
    assert "the clock of generator-0 is moved by -4.000 s" in done.output
    assert json.loads(out.read_text())["otherData"] == {"clock shifts, s": {"generator-0": -4.0}}
    assert CliRunner().invoke(app, ["trace", str(tmp_path)]).exit_code == 0
    assert (tmp_path / "trace.json").exists()
