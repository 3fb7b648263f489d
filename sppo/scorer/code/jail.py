"""The process that runs one program, or the tests of one: it takes all rights from itself first.

Run as a file (`python -I -S jail.py`) by `sppo.scorer.code.sandbox`, with an environment that holds
nothing. It reads one JSON object from the descriptor it is given:

    {"role": "program" | "host" | "judge", "channel": 5, "cpu_s": 6, "memory": bytes,
     "protections": ["landlock", "seccomp"], "code": "...", ...}

`program` runs the code with its own stdin and stdout. `host` runs it and answers calls over the
channel (`remote.py`). `judge` runs tests that make such calls, and prints the verdict.
"""

from __future__ import annotations

import _sitebuiltins
import builtins
import ctypes
import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # of our package only what stands here: it has no site-packages
    sys.path.append(str(Path(__file__).parents[3]))

from sppo import stop
from sppo.scorer.code import judge, landlock, remote, seccomp

if __name__ == "__main__":
    sys.path.pop()

_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS, _PR_CAPBSET_DROP = 4, 38, 24
_PR_SET_SECUREBITS, _NO_ROOT = 28, 0b101111
_CLONE_NEWNET, _CLONE_NEWIPC, _CLONE_NEWUSER = 0x40000000, 0x08000000, 0x10000000
_CAPABILITIES = 64
NOBODY = 65534
FILES = 64


def main(order: int, parent: int) -> None:
    """Read the order, lock up, and run."""
    stop.end_with_parent()
    if os.getppid() != parent:
        os._exit(1)
    with os.fdopen(order, "rb") as file:
        given = json.load(file)
    os.chdir("/")
    _limit(given["cpu_s"], given["memory"])
    _isolate(given["protections"])
    builtins.exit = _sitebuiltins.Quitter("exit", "")
    builtins.quit = _sitebuiltins.Quitter("quit", "")
    if given["role"] == "judge":
        judge.run(given)
    elif given["role"] == "host":
        remote.serve(given["code"], given["channel"])
    else:
        _run(given["code"])


def _run(code: str) -> None:
    sys.argv = ["program.py"]
    space: dict[str, Any] = {"__name__": "__main__", "__builtins__": builtins}
    sys.modules["__main__"].__dict__.update(space)
    exec(compile(code, "program.py", "exec"), sys.modules["__main__"].__dict__)


def _limit(cpu_s: int, memory: int) -> None:
    for kind, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, FILES),
    ):
        _, hard = resource.getrlimit(kind)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))


def _isolate(protections: list[str]) -> None:
    """No network, no files but the standard library to be read, no other process, no way back.

    Raises OSError where the kernel refuses what `sandbox.protections` found.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    root = os.geteuid() == 0
    if libc.unshare(_CLONE_NEWNET | _CLONE_NEWIPC) != 0:  # beside what the filters refuse
        root = False
        libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET | _CLONE_NEWIPC)
    for capability in range(_CAPABILITIES):
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if "landlock" in protections:
        landlock.restrict()
    if root and _reachable(sys.base_prefix):
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    libc.prctl(_PR_SET_SECUREBITS, _NO_ROOT, 0, 0, 0)
    header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    libc.capset(header, none)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    stop.end_with_parent()  # again: a change of user clears it
    if "seccomp" in protections:
        seccomp.install()


def _reachable(path: str) -> bool:
    """Whether every user may enter the folders of a path."""
    while path != "/":
        if not os.stat(path).st_mode & 0o001:
            return False
        path = os.path.dirname(path)
    return True


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
