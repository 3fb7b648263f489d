"""Packages that are built for another torch are as if they were not there."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sppo import builds


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Versions of what is installed; nothing else is."""
    there: dict[str, str] = {}

    def version(name: str) -> str:
        if name not in there:
            raise importlib.metadata.PackageNotFoundError(name)
        return there[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: there.get(name))
    return there


@pytest.mark.parametrize(
    ("torch", "vision", "found"),
    [
        ("2.13.0+cpu", "0.28.0", ["torchvision"]),
        ("2.13.0+cpu", "0.28.0+cu130", ["torchvision"]),
        ("2.13.0+cpu", "0.28.0+cpu", []),
        ("2.13.0", "0.28.0", []),
        ("2.13.0+cu130", "0.28.0", []),
        ("2.13.0+cpu", "", []),
    ],
)
def test_beside_a_torch_for_cpus_they_must_be_for_cpus(
    torch: str, vision: str, found: list[str], installed: dict[str, str]
) -> None:
    installed |= {"torch": torch} | ({"torchvision": vision} if vision else {})
    assert builds.foreign() == found


def test_no_torch_is_no_reason(installed: dict[str, str]) -> None:
    installed["torchvision"] = "0.28.0"
    assert builds.foreign() == []


def test_what_is_hidden_is_not_found(
    installed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    installed |= {"torch": "2.13.0+cpu", "torchcodec": "0.17.0"}
    monkeypatch.delitem(sys.modules, "torchcodec", raising=False)
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    monkeypatch.setenv("PYTHONPATH", "/mine")
    builds.hide_foreign()
    assert sys.modules["torchcodec"] is None
    assert os.environ["PYTHONPATH"] == f"{builds.AT_START}{os.pathsep}/mine"
    builds.hide_foreign()  # once is enough
    assert os.environ["PYTHONPATH"] == f"{builds.AT_START}{os.pathsep}/mine"
    assert (builds.AT_START / "sitecustomize.py").is_file()
    assert "torchvision" not in sys.modules or sys.modules["torchvision"] is not None


def started(*paths: Path, code: str = "") -> subprocess.CompletedProcess[str]:
    """An interpreter with these in PYTHONPATH."""
    root = builds.AT_START.parents[1]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [*paths, root]))}
    return subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )


def test_the_sitecustomize_that_was_there_before_is_imported_too(tmp_path: Path) -> None:
    # Given two of a user's own, of which Python imports the first
    for name in ("mine", "behind"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "sitecustomize.py").write_text(f"print({name!r})")
    paths = [builds.AT_START, tmp_path / "mine", tmp_path / "behind"]
    # When an interpreter starts that has something to hide
    done = started(*paths, code="import sys; print('sppo' in sys.modules)")
    # Then it is as without it
    assert (done.stdout.split(), done.stderr) == (["mine", "True"], "")


def test_an_interpreter_without_sppo_starts_without_a_word(tmp_path: Path) -> None:
    (tmp_path / "sppo.py").write_text("raise ModuleNotFoundError('No module named sppo')")
    done = started(tmp_path, builds.AT_START, code="print('on')")
    assert (done.stdout.split(), done.stderr) == (["on"], "")
