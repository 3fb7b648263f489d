"""What a role has started is found by its mark and ended with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from sppo import marks
from sppo.launch.sweep import role_processes, sweep_here

ROLE = """
import os, subprocess, sys, time
from pathlib import Path
from sppo.launch import run_dir
run_dir.write_pid(Path(sys.argv[1]), sys.argv[2])
sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
child = subprocess.Popen(sleep, start_new_session=True)
print(child.pid, flush=True)
time.sleep(60)
"""


def test_a_role_is_swept_with_what_it_left_to_init_and_no_other(tmp_path: Path) -> None:
    # Given two processes of roles, one with a child in a session of its own
    roles = {}
    for name in ("scorer-0", "scorer-1"):
        roles[name] = subprocess.Popen(
            [sys.executable, "-c", ROLE, str(tmp_path), name], stdout=subprocess.PIPE, text=True,
            env=os.environ | {marks.VARIABLE: marks.mark(tmp_path, name)},
        )  # fmt: skip
        assert roles[name].stdout is not None
    try:
        child = int(roles["scorer-0"].stdout.readline())  # type: ignore[union-attr]
        roles["scorer-1"].stdout.readline()  # type: ignore[union-attr]
        assert {p.pid for p in role_processes(tmp_path, "scorer-0")} == {
            roles["scorer-0"].pid,
            child,
        }
        # When the role dies and is swept, the child ends too; the other role's processes live
        roles["scorer-0"].kill()
        roles["scorer-0"].wait()
        sweep_here(tmp_path, "scorer-0")
        assert role_processes(tmp_path, "scorer-0") == []
        assert len({p.pid for p in role_processes(tmp_path, "scorer-1")}) == 2
    finally:
        for name, process in roles.items():
            sweep_here(tmp_path, name)
            process.wait()
