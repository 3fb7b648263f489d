"""One fault after another, and for each the wait until its role works again."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import psutil

from sppo.chaos.plan import Fault, Outcome
from sppo.chaos.proxy import Proxy
from sppo.chaos.watch import Watch

RECOVERY_WAIT_S = 180.0
FIND_S = 30.0
"""How long a role is looked for that may be starting again after the fault before."""


class Hurt:
    """Inflicts faults on the roles of one `up`, each of which has a proxy but the broker."""

    def __init__(
        self, watch: Watch, proxies: Mapping[str, Proxy], up: subprocess.Popen[bytes]
    ) -> None:
        self._watch = watch
        self._proxies = proxies
        self._up = up

    def all(
        self, faults: Sequence[Fault], steps: int, say: Callable[[str], None]
    ) -> Iterator[Outcome]:
        """Each fault at its time, from the moment the run trains; ends before the plan does if the
        run has taken its `steps` or ends.
        """
        while self._up_runs() and not self._watch.training():
            time.sleep(0.5)
        began = time.monotonic()
        for fault in faults:
            while self._up_runs() and time.monotonic() - began < fault.at_s:
                time.sleep(0.2)
            if not self._up_runs() or self._watch.leaving(steps):
                say("the run comes to its end before the plan")
                break
            began_at = time.time()
            yield replace(self._inflict(fault), began=began_at)

    def _inflict(self, fault: Fault) -> Outcome:
        before, process = self._find(fault.role)
        at, wall = time.monotonic(), time.time()
        if process is None:
            return self._never(fault)
        if fault.kind == "kill":
            process.kill()
            return self._await_life(fault, before, at, wall)
        self._disturb(fault, process)
        healed, progress = time.monotonic(), self._watch.progress(fault.role)
        while time.monotonic() - healed < RECOVERY_WAIT_S and self._up_runs():
            life = self._watch.life(fault.role)
            if life not in ("", before):  # it was taken for hung
                return self._await_life(fault, before, at, wall)
            if life == before and self._watch.progress(fault.role) > progress:
                took = time.monotonic() - healed
                return Outcome(fault=fault, restarted=False, recovery_s=round(took, 1))
            time.sleep(0.2)
        return self._never(fault)

    def _find(self, role: str) -> tuple[str, psutil.Process | None]:
        deadline = time.monotonic() + FIND_S
        while True:
            life, process = self._watch.life(role), self._watch.process(role)
            if (life and process is not None) or time.monotonic() > deadline:
                return life, process
            time.sleep(0.2)

    def _disturb(self, fault: Fault, process: psutil.Process) -> None:
        """Stop, delay or cut off the role for as long as the plan says; it is healed whatever
        happens here.
        """
        proxy = self._proxies.get(fault.role)
        try:
            if fault.kind == "stop":
                process.suspend()
            elif proxy is not None:
                proxy.mode = "silence" if fault.kind == "partition" else "delay"
            deadline = time.monotonic() + fault.seconds
            while time.monotonic() < deadline and self._up_runs() and process.is_running():
                time.sleep(0.2)
        finally:
            if fault.kind == "stop":
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.resume()
            elif proxy is not None:
                proxy.mode = "pass"
                if fault.kind == "partition":
                    proxy.cut()

    def _await_life(self, fault: Fault, before: str, at: float, wall: float) -> Outcome:
        """Until the role has a new life that works."""
        while time.monotonic() - at < RECOVERY_WAIT_S and self._up_runs():
            if self._watch.works_anew(fault.role, before, wall):
                start_s = self._watch.engine_start_s(fault.role)
                took = time.monotonic() - at - start_s
                return Outcome(
                    fault=fault,
                    restarted=True,
                    recovery_s=round(took, 1),
                    engine_start_s=round(start_s, 1),
                )
            time.sleep(0.2)
        return replace(self._never(fault), restarted=True)

    def _never(self, fault: Fault) -> Outcome:
        return Outcome(fault=fault, restarted=False, recovery_s=None, run_ended=not self._up_runs())

    def _up_runs(self) -> bool:
        return self._up.poll() is None
