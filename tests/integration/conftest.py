"""Real brokers: the embedded server, and a plain redis-server. A small model for runs that are
about something else than the model.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from sppo import models
from sppo.config import BrokerConfig, ModelConfig
from sppo.transport.server import EmbeddedServer
from tests import brokers

REPOSITORY = Path(__file__).parents[2]
SMALL_SCORER = f"{__name__}:even_length"

# A shell ignores Ctrl-C in what it starts in the background, and what is ignored stays so: these
# tests press it.
signal.signal(signal.SIGINT, signal.default_int_handler)


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
    """The first layers of the default model, which write nonsense: a step and a checkpoint take a
    third of the time.
    """
    import torch
    from transformers import AutoModelForCausalLM

    whole = models.resolve(ModelConfig(name=models.PACKAGED))
    folder = str(tmp_path_factory.mktemp("small"))
    AutoModelForCausalLM.from_pretrained(
        whole, num_hidden_layers=4, dtype=torch.bfloat16
    ).save_pretrained(folder)
    models.load_tokenizer(whole).save_pretrained(folder)
    return folder


def even_length(question: str, completions: Sequence[str], data: Mapping[str, Any]) -> list[float]:
    """A scorer with something to learn from in nonsense as well; runs that name it start in
    `REPOSITORY`.
    """
    return [float(len(text) % 2 == 0) for text in completions]


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
