"""What a role's process does before its work: its name, its lock, its output, its broker."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from sppo import config
from sppo.errors import ConfigError
from sppo.launch import roles


def test_a_name_is_held_once_on_a_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    run = config.load("quickstart", ["broker.url=redis://127.0.0.1:1"], environment=False)
    with roles.only_here(run, "generator-a") as mark:
        assert "generator-a" in mark
        with roles.only_here(run, "generator-b") as other:
            assert other != mark
        with (
            pytest.raises(ConfigError, match="another process is at work as generator-a"),
            roles.only_here(run, "generator-a"),
        ):
            pass
    with roles.only_here(run, "generator-a") as again:
        assert again == mark


def test_a_name_of_ones_own_is_the_machines_and_the_processs() -> None:
    assert roles.own_name("scorer").startswith("scorer-")
    assert roles.own_name("scorer").endswith(f"-{os.getpid()}")


def test_a_role_by_hand_needs_a_broker() -> None:
    with pytest.raises(ConfigError, match=r"broker\.url is empty: a scorer of its own needs"):
        roles.needs_server(config.load("quickstart", environment=False), "scorer")


def test_what_a_role_and_its_children_print_is_in_its_log(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from sppo.launch import roles\n"
        "print('before', flush=True)\n"
        f"roles.redirect_output(Path({str(tmp_path / 'a.log')!r}))\n"
        "print('mine', flush=True); os.system('echo theirs')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "before\n"
    assert (tmp_path / "a.log").read_text() == "mine\ntheirs\n"
