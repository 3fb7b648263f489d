"""The processes of a learner's other ranks: started by rank 0, watched, and ended with it."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

from sppo import stop
from sppo.errors import RoleDiedError

log = logging.getLogger(__name__)

DEATH_NOTICE_S = 15.0
"""For whoever waits for a rank that died to notice."""
NOTICE_S = 2.0


class Children:
    """Ranks 1, 2, … as processes of this one. A thread looks after them from the beginning."""

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[bytes]] = []
        self._over = False
        self._hung = ""
        self._known = threading.Event()
        threading.Thread(target=self._watch, daemon=True, name="ranks").start()

    def start(self, given: dict[str, Any]) -> None:
        """The next rank, told `given` by its standard input: secrets may be among it."""
        process = subprocess.Popen(
            [sys.executable, "-m", "sppo.learner.follower"],
            stdin=subprocess.PIPE,
            preexec_fn=stop.ignore,
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps(given).encode())
        process.stdin.close()
        self._processes.append(process)

    def end_hung(self, found: Mapping[int, str]) -> None:
        """End ranks that do not come, with what is known of each: whoever waits for one then
        notices.
        """
        self._hung = ", ".join(found.values())
        for rank in found:
            self._processes[rank - 1].kill()

    def lost(self) -> str:
        """The same as `ended`, after a moment in which the system may notice."""
        deadline = time.monotonic() + NOTICE_S
        # A connection breaks a moment before the process is gone.
        while not (found := self.ended()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return found

    def expect_the_end(self) -> bool:
        """From here on they may end. False if that was said before."""
        before, self._over = self._over, True
        self._known.set()
        return not before

    def noticed(self) -> None:
        """Whoever waits for them knows that this life ends: it is not ended for one that died."""
        self._known.set()

    def end(self, grace_s: float = 0.0) -> None:
        """Wait so long for all of them, then end them wherever they are."""
        deadline = time.monotonic() + grace_s
        for process in self._processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _watch(self) -> None:
        """End this process when a rank has died and whoever waits for it does not notice: NCCL may
        wait for ever.
        """
        while not self._known.wait(0.5):
            if dead := self.ended():
                log.error("%s; the learner cannot go on without it", dead)
                if not self._known.wait(DEATH_NOTICE_S):
                    os._exit(RoleDiedError.exit_code)
                return

    def ended(self) -> str:
        """Which of them have ended so far, and how; empty if none has."""
        if self._hung:
            return self._hung
        codes = [(rank, process.poll()) for rank, process in enumerate(self._processes, start=1)]
        return ", ".join(
            f"rank {rank} of the learner ended with {code}"
            for rank, code in codes
            if code is not None
        )
