"""Streams that are closed or narrow, and what libraries print."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import logging, os, subprocess, sys, warnings
from pathlib import Path
from sppo.launch import terminal
terminal.make_usable()
print("before")
with terminal.kept_for_us(Path(sys.argv[1])) as stream:
    print("a library prints")
    warnings.warn("a library warns")
    logging.getLogger("library").warning("a library logs")
    subprocess.run(["sh", "-c", "echo a child prints; echo and complains >&2"])
    print("ours − ß", file=stream, flush=True)
print("after")
"""


def run(log: Path, streams: str = "", **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = f'exec "$0" -c "$1" "$2" {streams}'
    return subprocess.run(
        ["sh", "-c", command, sys.executable, SCRIPT, str(log)],
        capture_output=True,
        env=environment,
        check=True,
    )


def test_what_others_print_goes_to_the_log_and_ours_to_the_terminal(tmp_path: Path) -> None:
    done = run(tmp_path / "up.log", PYTHONUTF8="1")
    assert done.stdout.decode() == "before\nours − ß\nafter\n"
    assert done.stderr == b""
    log = (tmp_path / "up.log").read_text()
    for words in (
        "a library prints",
        "a library warns",
        "WARNING library: a library logs",
        "a child prints",
        "and comp",
    ):
        assert words in log


@pytest.mark.parametrize("streams", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_do_no_harm(streams: str, tmp_path: Path) -> None:
    run(tmp_path / "up.log", streams)
    log = (tmp_path / "up.log").read_text()
    assert "a child prints" in log
    assert "before" not in log


def test_a_narrow_character_set_costs_a_question_mark(tmp_path: Path) -> None:
    done = run(tmp_path / "up.log", PYTHONIOENCODING="latin-1", PYTHONUTF8="0")
    assert done.stdout == "before\nours ? ß\nafter\n".encode("latin-1")
