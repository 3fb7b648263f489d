"""The wheel: all that the tree has is in it, and from an empty folder it trains.

Its environment has the wheel itself, installed, and for all else the packages of this one.
`make test-wheel` lets pip fetch them all.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from sppo import __version__

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of what it is built from, so that the tree stays as it is."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    unwanted = shutil.ignore_patterns("__pycache__")
    for name in ("sppo", "cli"):
        shutil.copytree(ROOT / name, source / name, ignore=unwanted)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
         "--disable-pip-version-check", f"--wheel-dir={folder}", str(source)],
        check=True,
    )  # fmt: skip
    (made,) = folder.glob("sppo-*.whl")
    return made


def test_all_of_the_tree_is_in_it_and_the_version_is_the_one(wheel: Path) -> None:
    tree = {
        f"{'sppo_cli' if folder == 'cli' else folder}/{path.relative_to(ROOT / folder)}"
        for folder in ("sppo", "cli")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (about,) = [name for name in names if name.endswith(".dist-info/METADATA")]
        metadata = Parser().parsestr(archive.read(about).decode())
    assert {name for name in names if ".dist-info/" not in name} == tree
    assert metadata["Version"] == __version__
    assert wheel.name == f"sppo-{__version__}-py3-none-any.whl"
    assert metadata["License-Expression"] == "Apache-2.0"


@pytest.fixture
def environment(wheel: Path, tmp_path: Path) -> Path:
    """The programs of an environment with the wheel in it."""
    folder = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps",
         "--no-index", "--disable-pip-version-check", str(wheel)],
        check=True,
    )  # fmt: skip
    (own,) = (folder / "lib").glob("python*/site-packages")
    rest = [path for path in sys.path if path.endswith("site-packages")]
    (own / "rest.pth").write_text("\n".join(rest))
    return folder / "bin"


def test_it_trains_from_an_empty_folder(environment: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    plain = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    where = subprocess.run(
        [environment / "python", "-c", "import sppo; print(sppo.__file__)"],
        cwd=empty, env=plain, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert where.stdout.startswith(str(environment.parent))  # not the tree's
    done = subprocess.run(
        [environment / "sppo-cli", "up", "quickstart", "--set", "learner.steps=2",
         "--set", "task.held_out=20"],
        cwd=empty, env=plain, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    summary = json.loads((empty / "runs/quickstart/summary.json").read_text())
    assert (summary["steps"], summary["finished"]) == (2, True)
    assert [p.name for p in empty.iterdir()] == ["runs"]
