"""`sppo-cli top` in a real terminal, beside a run of another process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sppo.top.app import KEYS
from tests import packages
from tests.integration.test_end_to_end import CLI

PATIENCE_S = 20.0
SIZES = ((100, 40), (60, 16), (150, 20), (80, 24))


class Terminal:
    """A program in a terminal of tmux, with a server of its own."""

    def __init__(self, folder: Path, *command: str) -> None:
        program, environment = tmux()
        # Of the terminal that the tests were started in, which `top` is not to believe.
        self._environment = environment | {"COLUMNS": "80", "LINES": "24"}
        self._tmux = [program, "-u", "-f", "/dev/null", "-S", str(folder / "tmux")]
        size = ["-x", "80", "-y", "24"]
        self._run("new-session", "-d", *size, *command)

    def _run(self, *words: str) -> str:
        command = [*self._tmux, *words]
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, env=self._environment
        )
        return done.stdout

    def lines(self) -> list[str]:
        return self._run("capture-pane", "-p").splitlines()

    def keys(self, *keys: str) -> None:
        self._run("send-keys", *keys)

    def resize(self, width: int, height: int) -> None:
        self._run("resize-window", "-x", str(width), "-y", str(height))

    def until(self, seen: Callable[[list[str]], bool]) -> list[str]:
        deadline = time.monotonic() + PATIENCE_S
        while not seen(lines := self.lines()):
            assert time.monotonic() < deadline, "\n".join(lines)
            time.sleep(0.05)
        return lines

    def over(self) -> bool:
        command = [*self._tmux, "has-session"]
        return subprocess.run(command, capture_output=True, env=self._environment).returncode != 0

    def close(self) -> None:
        command = [*self._tmux, "kill-server"]
        subprocess.run(command, capture_output=True, env=self._environment)


def tmux() -> tuple[str, dict[str, str]]:
    """The program, and where it finds its libraries."""
    packages.fetch("tmux")
    program = packages.program("tmux")
    there = Path(program).is_relative_to(packages.ROOT)
    return program, os.environ | (packages.environment() if there else {})


@pytest.fixture
def run(tmp_path: Path) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """One that takes steps."""
    run_dir = tmp_path / "run"
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.small_run", str(run_dir)],
            stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while not (run_dir / "metrics.jsonl").exists():
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.05)
        yield run_dir, process
    finally:
        process.kill()
        process.wait()


def laid_out(lines: list[str], width: int, height: int) -> bool:
    """Whether each line of the view is one line of a terminal of this size."""
    heads = ("run  ", "role  ", "learner-0 ", "generator-0 ")
    feet = [line for line in lines if line.startswith(KEYS[:9])]
    return (
        len(lines) == height
        and all(line.startswith(head) for line, head in zip(lines, heads, strict=False))
        and feet == [lines[-1]]
        and lines[-1].startswith(KEYS[: width - 1].rstrip())
    )


def steps(run_dir: Path) -> int:
    return len((run_dir / "metrics.jsonl").read_text().splitlines())


def events(run_dir: Path, kind: str) -> list[dict[str, Any]]:
    lines = (run_dir / "events.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["kind"] == kind]


@pytest.mark.timeout(120)
def test_a_run_is_watched_paused_saved_and_seen_to_die(
    run: tuple[Path, subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    run_dir, process = run
    # Given a run of another process, in 80 x 24
    terminal = Terminal(tmp_path, CLI, "top", str(run_dir))
    try:
        lines = terminal.until(lambda lines: lines[0].startswith("run  training  step "))
        assert len(lines) == 24
        terminal.until(lambda lines: any(line.startswith("reward     ▁") for line in lines) or any(
            "█" in line for line in lines))  # fmt: skip
        assert "generator-0" in "\n".join(lines)
        # When it gets another size, all is laid out for that
        for width, height in SIZES:
            terminal.resize(width, height)
            terminal.until(partial(laid_out, width=width, height=height))
        # When it is paused, it takes no other step, and lives
        terminal.keys("p")
        terminal.until(lambda lines: lines[0].startswith("run  paused  step "))
        before = steps(run_dir)
        # and saves and evaluates when it is asked to
        terminal.keys("c", "e")
        deadline = time.monotonic() + PATIENCE_S
        while not events(run_dir, "checkpoint") or len(events(run_dir, "eval")) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert steps(run_dir) == before
        assert events(run_dir, "checkpoint")[-1]["step"] == before
        # When it goes on, that is seen
        terminal.keys("p")
        terminal.until(lambda lines: lines[0].startswith("run  training  step "))
        deadline = time.monotonic() + PATIENCE_S
        while steps(run_dir) <= before:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        # When it dies, that is said; then the screen is left
        process.send_signal(signal.SIGKILL)
        process.wait()
        terminal.until(lambda lines: lines[0].startswith("run  dead  step "))
        terminal.keys("q")
        deadline = time.monotonic() + PATIENCE_S
        while not terminal.over():
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        terminal.close()
