"""What bash offers after `sppo-cli`, by the script that it is told to load."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CLI = Path(sys.executable).with_name("sppo-cli")
ASK = """
eval "$(_SPPO_CLI_COMPLETE=source_bash {cli})"
COMP_WORDS=(sppo-cli d); COMP_CWORD=1
$(complete -p sppo-cli | sed 's/.*-F \\([^ ]*\\).*/\\1/') sppo-cli
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def test_bash_offers_the_commands() -> None:
    path = f"{CLI.parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "--norc", "-c", ASK.format(cli=CLI)], capture_output=True, text=True,
        env=os.environ | {"PATH": path, "PYTHONHASHSEED": "0"}, check=True, timeout=60,
    )  # fmt: skip
    assert {"doctor", "down"} <= set(done.stdout.split()), done
    assert "up" not in done.stdout.split()
