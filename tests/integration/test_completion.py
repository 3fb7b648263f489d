"""What fish and zsh offer after `sppo-cli --install-completion`, by what that has installed. Bash:
tests/unit/cli/test_completion.py.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests import packages
from tests.integration.test_end_to_end import CLI

FISH = 'source ~/.config/fish/completions/sppo-cli.fish; complete -C "sppo-cli d"'
ZSH = """
compdef() { asks=$1 }                # zsh's own completion is left out: what it would be told
_arguments() { print -r -- $@ }
source ~/.zfunc/_sppo-cli
words=(sppo-cli d) CURRENT=2
$asks
"""


@pytest.mark.timeout(600)  # the shells may have to be downloaded first
@pytest.mark.parametrize(("shell", "ask"), [("fish", FISH), ("zsh", ZSH)])
def test_a_shell_offers_the_commands(shell: str, ask: str, tmp_path: Path) -> None:
    packages.fetch(shell)
    program = packages.program(shell)
    own = packages.environment() if Path(program).is_relative_to(packages.ROOT) else {}
    path = f"{Path(CLI).parent}:{os.environ['PATH']}"
    environment = os.environ | own | {"HOME": str(tmp_path), "PATH": path}
    said = []
    for script in ("sppo-cli --install-completion; true", ask):  # a lone command takes zsh's place
        done = subprocess.run(
            [program, "-c", script], env=environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done
        said.append(done.stdout)
    assert f"{shell} completion installed in {tmp_path}" in said[0]
    assert all(command in said[1] for command in ("doctor", "down")), said[1]
    assert "Watch a run" not in said[1]
