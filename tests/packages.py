"""Programs that Debian packages and pip does not: taken where they are installed, else downloaded
and unpacked below .venv/debian. Nothing is installed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / ".venv" / "debian"
FOLDERS = ("usr/bin", "usr/sbin", "bin", "sbin")
LIBRARIES = "usr/lib/x86_64-linux-gnu"
PATIENCE_S = 200
"""With apt-get, which may wait for a mirror for ever."""
PAUSE_S = 1800
"""Before it is asked again for its lists, or for what could not be had."""
APART = ("", "pulseaudio")
"""Folders below LIBRARIES in which programs look by their own paths, which are others here."""


def fetch(*packages: str) -> None:
    """Have these packages and what they need. Skips the test, saying what is missing."""
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool}: {', '.join(packages)} come from Debian's packages")
    stamp = ROOT / f"{'-'.join(packages)}.there"
    ROOT.mkdir(parents=True, exist_ok=True)
    with (ROOT / "lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process of these tests: apt-get would refuse
        if stamp.exists():
            return
        if _asked(stamp.with_suffix(".tried")) or not (_unpack(packages) or _anew(packages)):
            pytest.skip(f"apt-get has no {', '.join(packages)}, or cannot download them")
        stamp.touch()


def _asked(stamp: Path) -> bool:
    """Whether this was tried within PAUSE_S; from now on it was."""
    if stamp.exists() and time.time() - stamp.stat().st_mtime < PAUSE_S:
        return True
    stamp.touch()
    return False


def _anew(packages: tuple[str, ...]) -> bool:
    """With lists as they are today."""
    if _asked(ROOT / "lists.tried") or _apt("update") is None:
        return False
    return _unpack(packages)


def _unpack(packages: tuple[str, ...]) -> bool:
    plan = _apt("install", "--simulate", "--no-install-recommends", *packages)
    if plan is None:
        return False
    lacking = [line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")]
    with tempfile.TemporaryDirectory(dir=ROOT) as folder:
        if lacking and _apt("download", *lacking, at=folder) is None:
            return False
        for archive in Path(folder).glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", str(archive), str(ROOT)], check=True)
    for daemon in ROOT.glob("usr/sbin/*-wlm"):  # Slurm's ask for their own names
        named = daemon.with_name(daemon.name.removesuffix("-wlm"))
        if not named.exists():
            named.symlink_to(daemon.name)
    return True


def _apt(*words: str, at: str | None = None) -> str | None:
    command = ["apt-get", "-q", *words]
    try:
        done = subprocess.run(command, cwd=at, capture_output=True, text=True, timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        return None
    return done.stdout if done.returncode == 0 else None


def program(name: str) -> str:
    """One that is unpacked or installed. Skips the test if it is neither."""
    places = [*(str(ROOT / folder) for folder in FOLDERS), os.environ["PATH"], "/usr/sbin", "/sbin"]
    if found := shutil.which(name, path=os.pathsep.join(places)):
        return found
    pytest.skip(f"no {name} on this machine")


def environment() -> dict[str, str]:
    """Where unpacked programs find their libraries."""
    places = (str(ROOT / LIBRARIES / folder) for folder in APART)
    return {"LD_LIBRARY_PATH": os.pathsep.join(places)}
