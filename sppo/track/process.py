"""The process of one tracker: it follows the run until its parent lets go of its standard input, or
is gone, and says on its standard output, once, what a person should know.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from sppo import locks
from sppo.errors import ConfigError
from sppo.track import follower, tracker

POLL_S = 1.0
RETRY_S = 30.0
"""Before a tracker that failed is begun again, where it left off."""
SILENT_S = 60.0
"""In one call, after which it is said that a tracker does not answer."""
LEAVE_S = 60.0
"""For the last of it, once the run is over."""

Say = Callable[[str], None]


def serve(name: str, run_dir: Path) -> int:
    """Be that process; returns its exit code."""
    said = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the libraries print goes to the log
    ended = threading.Event()
    work = Work(
        name,
        run_dir,
        lambda text: print(text, file=said, flush=True),
        ended,
        patience_s=LEAVE_S,
    )

    def wait_for_the_end() -> None:
        sys.stdin.buffer.read()
        ended.set()
        time.sleep(LEAVE_S)
        os._exit(1)  # whoever would end this process may be gone

    threading.Thread(target=wait_for_the_end, daemon=True, name="end").start()
    threading.Thread(target=work.watch, daemon=True, name="watch").start()
    return 0 if work.run() else 1


class Work:
    """Following one run for one tracker.

    work = Work("wandb", run_dir, print, ended)
    work.run()      # until `ended` is set, and what is there then is passed on
    """

    def __init__(
        self, name: str, run_dir: Path, say: Say, ended: threading.Event, *,
        patience_s: float = 0, log: TextIO | None = None,
    ) -> None:  # fmt: skip
        """`patience_s`: how long to wait for the process of an earlier life, which ends. `log` gets
        tracebacks; else standard error.
        """
        self._patience_s = patience_s
        self._log = log
        self._name = name
        self._run_dir = run_dir
        self._say = say
        self._ended = ended
        self._since: float | None = None
        """When the call to the tracker began that has not returned."""
        self._said = False

    def run(self) -> bool:
        """Whether all has been passed on. A tracker that fails is tried again until the end."""
        while True:
            try:
                self._follow()
            except Exception as error:  # noqa: BLE001 - a tracker may fail in any way
                traceback.print_exc(file=self._log)
                self._since = None
                self._once(_told(error))
                if self._ended.is_set():
                    return False
                self._ended.wait(RETRY_S)
            else:
                return True

    def watch(self) -> None:
        """Say it if one call takes too long. Never returns."""
        while True:
            time.sleep(POLL_S)
            since = self._since
            if since is not None and time.monotonic() - since > SILENT_S:
                self._once(f"no answer for {SILENT_S:.0f} s")

    def _follow(self) -> None:
        folder = self._run_dir / follower.FOLDER
        folder.mkdir(exist_ok=True)
        try:
            lock = locks.take(folder / f"{self._name}.lock", wait_s=self._patience_s)
        except locks.Held:
            raise ConfigError(
                f"another process writes {self._run_dir} to {self._name}; it ends with the run"
            ) from None
        try:
            self._pass_on(folder / f"{self._name}.json")
        finally:
            os.close(lock)

    def _pass_on(self, kept: Path) -> None:
        run_id = (self._run_dir / "run_id").read_text(encoding="utf-8")
        passed = follower.Passed.load(kept, run_id)
        self._since = time.monotonic()
        made = tracker.make(self._name, follower.about(self._run_dir, passed.run_id))
        follow = follower.Follower(self._run_dir, made, passed, kept)
        try:
            self._rounds(follow)
        except Exception as error:
            self._once(_told(error))  # before `close`, which may take long
            self._since = time.monotonic()
            with suppress(Exception):  # what failed before it has been told
                made.close()  # else each new try leaves a writer and its thread behind
            raise
        finally:
            follow.close()
        self._since = time.monotonic()
        made.close()
        self._since = None

    def _rounds(self, follow: follower.Follower) -> None:
        last = False
        while not last:
            last = self._ended.is_set()  # asked before looking: what came before it is passed on
            self._since = time.monotonic()
            follow.round()
            self._since = None
            self._ended.wait(POLL_S)

    def _once(self, what: str) -> None:
        if not self._said:
            self._say(what)
        self._said = True


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
