"""Setting up `.venv`, with an interpreter and a pip that only pretend to."""

from __future__ import annotations

import os
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
FAKE = r"""#!/usr/bin/env bash
# An interpreter: 3.11 by its own account. What it is asked of pip goes to $CALLS;
# without $HAS_TORCH only an index that is named has torch, with $BROKEN no package at all is found.
case "$1 $2" in
  "-c "*) exit 0 ;;
  "-m venv") mkdir -p "$4/bin"; cp "$0" "$4/bin/python" ;;
  "-m pip")
    [ "$3" = --version ] && exit
    echo "$*" >>"$CALLS"
    echo "WARNING: a person need not act on this"
    if [ -n "${BROKEN:-}" ]; then echo "ERROR: no route to host"; exit 1; fi
    case "$*" in *--index-url*) exit 0 ;; *torch==*) [ -n "${HAS_TORCH:-}" ] || exit 1 ;; esac ;;
esac
"""


class Clone:
    """A copy of what set-up reads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "my clone"
        (self.folder / "requirements").mkdir(parents=True)
        for name in ("Makefile", "pyproject.toml", "requirements/setup.sh", "requirements/cpu.txt"):
            shutil.copy(REPOSITORY / name, self.folder / name)
        self.calls = folder / "calls"
        self.calls.touch()
        self.python = folder / "python3.11"
        self.python.write_text(FAKE)
        self.python.chmod(0o755)

    def make(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        plain = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME")}
        return subprocess.run(
            ["make", "--no-print-directory", "setup", *arguments], cwd=self.folder,
            capture_output=True, text=True,
            env=plain | {"PATH": f"{self.python.parent}:{plain['PATH']}",
                "CALLS": str(self.calls)} | environment,
            check=False,
        )  # fmt: skip


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def test_it_says_one_line_a_stage_and_a_second_call_nothing(clone: Clone) -> None:
    done = clone.make(HAS_TORCH="1")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert [line.split("==")[0] for line in done.stdout.splitlines()][:2] == [
        "making .venv with python3.11 ...",
        "installing torch",
    ]
    assert len(done.stdout.splitlines()) == 4
    assert "need not act" in (clone.folder / ".venv/setup.log").read_text()
    assert "index-url" not in clone.calls.read_text()
    before = clone.calls.read_text()
    assert "nothing" in clone.make().stdout.lower()
    assert clone.calls.read_text() == before


def test_torch_is_asked_of_its_own_index_where_pip_has_none(clone: Clone) -> None:
    done = clone.make()
    assert done.returncode == 0, done.stderr
    asked = [line for line in clone.calls.read_text().splitlines() if "--index-url" in line]
    assert len(asked) == 1  # for torch alone
    assert "--index-url https://download.pytorch.org/whl/cpu torch==2.13.0+cpu" in asked[0]
    assert "asking https://download.pytorch.org/whl/cpu" in done.stdout


def test_another_index_can_be_named(clone: Clone) -> None:
    assert clone.make("TORCH_INDEX=https://example.org/whl").returncode == 0
    assert "--index-url https://example.org/whl torch" in clone.calls.read_text()


def test_a_failure_is_one_line_that_names_the_log_and_the_next_call_recovers(clone: Clone) -> None:
    done = clone.make(BROKEN="1")
    assert done.returncode != 0
    words = done.stderr.splitlines()[0]
    assert "ERROR: no route to host" in words
    assert ".venv/setup.log" in words
    assert clone.make(HAS_TORCH="1").returncode == 0


def test_a_venv_that_was_cut_off_is_made_again(clone: Clone) -> None:
    (clone.folder / ".venv/bin").mkdir(parents=True)
    (clone.folder / ".venv/bin/python").symlink_to("/nowhere")
    assert "making .venv" in clone.make(HAS_TORCH="1").stdout


def test_no_interpreter_that_suits_is_said(clone: Clone) -> None:
    done = clone.make("PYTHON=no-such-python")
    assert done.returncode != 0
    assert "no Python 3.11 or 3.12 (no-such-python tried)" in done.stderr


def test_a_wheel_holds_every_package() -> None:
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    listed = set(settings["tool"]["setuptools"]["packages"]) - {"sppo_cli"}
    folders = {
        path.parent.relative_to(REPOSITORY) for path in (REPOSITORY / "sppo").rglob("__init__.py")
    }
    assert listed == {".".join(folder.parts) for folder in folders}
