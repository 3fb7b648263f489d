"""Real brokers: the embedded server, and a plain redis-server. A small model for runs that are
about something else than the model. The wheel, built and installed.

These tests mostly wait, and several processes of pytest run them at a time, a file each: the long
files begin first.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from sppo import models
from sppo.config import BrokerConfig, ModelConfig
from sppo.transport.server import EmbeddedServer
from tests import brokers, makers

REPOSITORY = Path(__file__).parents[2]
LONG = [
    "test_chaos", "test_end_to_end", "test_roles", "test_preferences", "test_paper",
    "test_families", "test_judges", "test_scale", "test_own_objective", "test_engine",
    "test_bench_loop", "test_ranks", "test_eval", "test_nccl", "test_placement",
]  # fmt: skip
"""Files of whole runs and of vLLM, the longest first."""
SMALL_SCORER, UNHURRIED_SCORER = f"{__name__}:even_length", f"{__name__}:unhurried"

# A shell ignores Ctrl-C in what it starts in the background, and what is ignored stays so: these
# tests press it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONG)))


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerConfig]:
    """Settings of a running embedded server."""
    server = EmbeddedServer(tmp_path_factory.mktemp("broker"), max_bytes=64 << 20)
    yield server.start(BrokerConfig())
    server.stop()


@pytest.fixture(scope="session")
def plain_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerConfig]:
    """Settings of a running plain redis-server."""
    with brokers.plain_redis(tmp_path_factory.mktemp("redis")) as config:
        yield config


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Random weights behind the tokenizer of the default model, which write nonsense: steps,
    samples and checkpoints cost next to nothing.
    """
    tokenizer = models.load_tokenizer(models.resolve(ModelConfig(name=models.PACKAGED)))
    folder = tmp_path_factory.mktemp("small")
    makers.tiny_model(
        folder, vocabulary=len(tokenizer), hidden_size=64, intermediate_size=96,
        num_attention_heads=2,  # heads of 32: vLLM's least on a CPU
        max_position_embeddings=8192, initializer_range=0.1, dtype="bfloat16",
    )  # fmt: skip
    tokenizer.save_pretrained(str(folder))
    return str(folder)


@pytest.fixture(scope="session")
def few_layers(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The first layers of the default model, which write nonsense too, and whose steps take as long
    as faults need to fall between them.
    """
    import torch
    from transformers import AutoModelForCausalLM

    whole = models.resolve(ModelConfig(name=models.PACKAGED))
    folder = str(tmp_path_factory.mktemp("few"))
    AutoModelForCausalLM.from_pretrained(
        whole, num_hidden_layers=4, dtype=torch.bfloat16
    ).save_pretrained(folder)
    models.load_tokenizer(whole).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of what it is built from, so that the tree stays as it is."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    unwanted = shutil.ignore_patterns("__pycache__")
    for name in ("sppo", "cli"):
        shutil.copytree(REPOSITORY / name, source / name, ignore=unwanted)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source / name)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
         "--disable-pip-version-check", f"--wheel-dir={folder}", str(source)],
        check=True,
    )  # fmt: skip
    (made,) = folder.glob("sppo-*.whl")
    return made


@pytest.fixture(scope="session")
def environment(wheel: Path) -> Path:
    """The programs of an environment that has the wheel itself, installed, and for all else the
    packages of this one.
    """
    folder = wheel.parent / "environment"
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


def even_length(question: str, completions: Sequence[str], data: Mapping[str, Any]) -> list[float]:
    """A scorer with something to learn from in nonsense as well; runs that name it start in
    `REPOSITORY`.
    """
    return [float(len(text) % 2 == 0) for text in completions]


def unhurried(question: str, completions: Sequence[str], data: Mapping[str, Any]) -> list[float]:
    """The same, which leaves the machine to others meanwhile."""
    time.sleep(0.5)
    return even_length(question, completions, data)


def processes_below(run_dir: Path) -> list[str]:
    """Command lines of processes that still have a file of this run open or name it."""
    import psutil

    found = []
    for process in psutil.process_iter(["cmdline"]):
        try:
            paths = {f.path for f in process.open_files()} | {
                " ".join(process.info["cmdline"] or [])
            }
        except (psutil.AccessDenied, psutil.NoSuchProcess):
            continue
        if process.pid != os.getpid() and any(str(run_dir) in p for p in paths):
            found.append(" ".join(process.info["cmdline"]))
    return found
