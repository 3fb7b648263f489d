"""All checks, within a deadline.

Those that load libraries come one after the other; beside them, each in a thread of its own, go
those that wait for a network, a server or a disk. One that has not answered at the deadline is left
behind and told as such.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from sppo.doctor import broker, disk, gpus, machine, model, network, software
from sppo.doctor.findings import Check, Finding, Run, made, skip

PATIENCE_S = 8.0

CHECKS: Sequence[tuple[str, Check]] = (
    ("Python", software.python),
    ("packages", software.packages),
    ("CUDA", gpus.cuda),
    ("NCCL", gpus.nccl),
    ("peer access", gpus.peers),
    ("GPU share", gpus.share),
    ("processor", machine.processor),
    ("memory", machine.memory),
    ("shared memory", machine.shared_memory),
    ("limits", machine.limits),
    ("temporary folder", machine.temporary_folder),
    ("disk", disk.disk),
    ("model", model.files),
    ("broker", broker.broker),
    ("ports", network.ports),
    ("names", network.names),
    ("proxies", network.proxies),
    ("Ray", network.ray),
)
"""In the order of their lines, by the name under which one that breaks is told."""
WAITING = frozenset({"broker", "names", "ports", "Ray"})


def examine(
    run: Run, checks: Sequence[tuple[str, Check]] = CHECKS, *, patience_s: float = PATIENCE_S
) -> list[Finding]:
    """Every finding, in the order of the checks. Raises nothing."""
    deadline = time.monotonic() + patience_s
    found: dict[str, list[Finding]] = {}

    def looking(name: str, check: Check) -> Callable[[], None]:
        def look() -> None:
            found[name] = made(name, check, run)

        return look

    threads = [
        threading.Thread(target=looking(name, check), name=f"doctor-{name}", daemon=True)
        for name, check in checks
        if name in WAITING
    ]
    for thread in threads:
        thread.start()
    for name, check in checks:
        if name not in WAITING:
            looking(name, check)()
    for thread in threads:
        thread.join(max(0.1, deadline - time.monotonic()))
    late = f"no answer within {patience_s:g} s"
    return [each for name, _ in checks for each in found.get(name) or [skip(name, late)]]
