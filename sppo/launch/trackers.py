"""The processes that show a run in trackers (`sppo.track`), beside whoever trains it.

None of them is waited for while the run goes on, and at its end for `LEAVE_S` at most.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from shlex import quote

from sppo.track.process import LEAVE_S

LISTEN_S = 2.0
"""For what a process that is gone has said last."""
Warn = Callable[[str], None]


def command(name: str, run_dir: Path) -> list[str]:
    """What the process of a tracker is started with."""
    return [sys.executable, "-m", "sppo.track", name, str(run_dir.resolve())]


def _environment() -> dict[str, str]:
    """Without settings: a tracker needs none, and some are secrets."""
    return {name: value for name, value in os.environ.items() if not name.startswith("SPPO_")}


@contextmanager
def beside(run_dir: Path, names: Sequence[str], warn: Warn) -> Iterator[None]:
    """Inside, each of these trackers has a process that follows the run. `warn` gets a line from
    another thread when something is wrong with one.
    """
    with ExitStack() as stack:
        found = [_Process(run_dir, name, warn, stack) for name in dict.fromkeys(names)]
        try:
            yield
        finally:
            deadline = time.monotonic() + LEAVE_S
            for each in found:
                each.let_go()
            for each in found:
                each.end(deadline)


class _Process:
    def __init__(self, run_dir: Path, name: str, warn: Warn, stack: ExitStack) -> None:
        self._name, self._run_dir, self._warn = name, run_dir, warn
        log = stack.enter_context((run_dir / "logs" / f"track-{name}.log").open("ab"))
        self._process = subprocess.Popen(
            command(name, run_dir), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
            env=_environment(),
            start_new_session=True,  # Ctrl-C is for whoever trains
        )  # fmt: skip
        self._listening = threading.Thread(target=self._listen, daemon=True, name=f"track-{name}")
        self._listening.start()

    def let_go(self) -> None:
        """The run is over."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def end(self, deadline: float) -> None:
        """Wait for it, and end it where that takes too long."""
        try:
            code = self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        # What its library left behind may hold the other end of the pipe.
        self._listening.join(LISTEN_S)
        if code:
            self._warn(
                f"{self._name} has not got all of this run; the rest: "
                f"sppo-cli track {quote(str(self._run_dir))} --to {self._name}"
            )

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._warn(
                f"{self._name}: {line.decode(errors='replace').rstrip()}; training goes on, and it "
                f"is tried again (logs/track-{self._name}.log)"
            )
