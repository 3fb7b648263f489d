"""What a role's process does: one function for every way of starting it, by Ray or by hand."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sppo import compute, locks, marks, stop
from sppo.config import RunConfig
from sppo.errors import ConfigError, SppoError
from sppo.launch import outside, reach
from sppo.launch import run_dir as run_dirs
from sppo.launch.figures import Figures
from sppo.launch.journal import Journal, describe
from sppo.launch.progress import Progress
from sppo.launch.words import takes
from sppo.learner.place import Place
from sppo.transport import runs
from sppo.transport.broker import LEARNER, Broker
from sppo.transport.redis_broker import connect
from sppo.types import digest

log = logging.getLogger(__name__)

JOURNAL_S = 1.0


def prepare() -> None:
    """What must be in place before torch or an engine is imported."""
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        force=True,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    # Threads that wait must not spin: on a small machine roles share cores. Read when OpenMP
    # starts, so before torch.
    os.environ |= {"OMP_WAIT_POLICY": "passive", "KMP_BLOCKTIME": "0", "GOMP_SPINCOUNT": "0"}
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def run_learner(
    config: RunConfig, run_key: str, run_dir: Path, place: Place | None = None
) -> dict[str, Any]:
    """Train until the run ends or this process is told to stop; returns the outcome. Raises
    SppoError.
    """
    prepare()
    if not {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"} & os.environ.keys():
        # Staged weights and moments, pinned, take what they have, not the next power of two.
        os.environ["PYTORCH_ALLOC_CONF"] = "pinned_max_round_threshold_mb:1"
    # oneDNN keeps what it compiled for a product of one shape, up to 1,024 of them, some megabytes
    # each. Micro-batches seldom have the length of an earlier one; of one it needs about 20.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
    log.info("%s begins in process %d", LEARNER, os.getpid())
    config = compute.here(reach.addressed(config))
    broker = connect(config.broker, run_key, wait=True)
    try:
        runs.open_run(config, broker.registry, run_key)
        from sppo.learner import assemble

        return assemble.run(config, broker, run_dir, place)
    finally:
        broker.close()


def run_learner_alone(
    config: RunConfig, run_key: str, run_dir: Path, place: Place | None = None
) -> dict[str, Any]:
    """A learner without a supervisor: it says itself what the run is doing, and sends the others
    home at the end.
    """
    broker = connect(config.broker, run_key)
    try:
        for audience in ("learner", "workers"):
            broker.registry.request_stop(audience, "")
        with following(config, broker, run_dir):
            outcome = run_learner(config, run_key, run_dir, place)
        run_dirs.write_json(run_dir / "summary.json", outcome)
        if outcome["finished"]:
            broker.registry.request_stop("workers", "the learner is done")
        return outcome
    finally:
        broker.close()


@contextmanager
def following(config: RunConfig, broker: Broker, run_dir: Path) -> Iterator[None]:
    """Keep events.jsonl and status.json of a run without a supervisor, from a thread."""
    journal = Journal(run_dir, broker.mailbox)
    progress = Progress(config.learner.steps, takes=takes(config))
    figures = Figures(config)
    ended = threading.Event()

    def look() -> None:
        try:
            for event in journal.news():
                progress.event(event)
                figures.event(event)
            members = broker.registry.members()
            progress.members(members)
            depths = broker.depths()
            figures.saw(members, depths)
        except SppoError as error:  # the learner meets it too, and says what follows
            log.warning("%s", error)
            return
        seen = {"members": describe(members), "depths": depths, "updated": time.time()}
        run_dirs.write_status(run_dir, progress.state() | {"by": "learner"} | seen)

    def follow() -> None:
        while not ended.wait(JOURNAL_S):
            look()

    def warn(text: str) -> None:
        progress.note(text)
        journal.write({"kind": "warning", "topic": "tracker", "text": text})

    run_dirs.write_status(run_dir, progress.state() | {"by": "learner"})
    thread = threading.Thread(target=follow, daemon=True, name="journal")
    with outside.shown(config, run_dir, figures, warn):
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            look()  # the last words


def run_worker(
    role: str, name: str, config: RunConfig, run_key: str = "", *, spread: bool = False
) -> None:
    """Be a generator or a scorer until the run ends or this process is told to stop. Raises
    SppoError.

    `config.broker` must name a running server. Without `run_key` the run is looked for by its name.
    `spread`: its engine is on several machines of a Ray cluster.
    """
    prepare()
    log.info("%s begins in process %d", name, os.getpid())
    config = reach.addressed(config)
    leave = _on_stop_signals()
    if role == "generator":
        config = compute.placed(config, cuda=compute.engine_on_gpu(config))
    if not run_key:
        run = runs.find_run(config, role, leave)
        if run is None:
            return
        run_key = run.key
        config = config.model_copy(update={"compute": run.settings["compute"]})
    broker = connect(config.broker, run_key, wait=True)
    try:
        if role == "scorer":
            from sppo.scorer import loop as scorer_loop

            scorer_loop.run(config, broker.registry, name, leave)
        else:
            assert role == "generator", f"no role {role!r}"
            asyncio.run(_generate(name, config, broker, leave, spread=spread))
    finally:
        broker.close()


@contextmanager
def only_here(config: RunConfig, name: str) -> Iterator[str]:
    """Hold a name on this machine; yields the mark of what its process starts.

    What an earlier process of this name left in shared memory is removed. Raises ConfigError if
    another has the name, and as `locks.own_folder`.
    """
    mark = f"{os.getuid()}:{config.broker.url}:{config.name}:{name}"
    folder = locks.own_folder("roles")
    refusal = ConfigError(
        f"another process is at work as {name} on this machine: choose another --name"
    )
    with locks.held(folder / f"{digest(mark)}.lock", refusal):
        marks.remove_shared_memory(mark)
        try:
            yield mark
        finally:
            marks.remove_shared_memory(mark)


def own_name(role: str) -> str:
    """A name that no other role of the run has: this machine's and this process's."""
    host = "".join(c if c.isalnum() else "-" for c in socket.gethostname())
    return f"{role}-{host}-{os.getpid()}"


async def _generate(
    name: str, config: RunConfig, broker: Broker, leave: threading.Event, *, spread: bool
) -> None:
    from sppo import families, models
    from sppo.generators import engine
    from sppo.generators.loop import Generator, make_scorer
    from sppo.generators.turns import TakesTurns
    from sppo.turns import Turns

    path = models.resolve(config.model)
    families.check_engine(
        families.read(path, config.model.name), config.generator.engine, config.model.name,
        on_cpu=config.learner.device == "cpu", number_format=config.compute,
    )  # fmt: skip
    made = engine.make(config, path, spread=spread)
    if config.launch.take_turns:
        made = TakesTurns(made, Turns(broker.run_key))
    generator = Generator(config, broker, made, make_scorer(config, broker.registry), name)

    async def watch() -> None:
        while not leave.is_set():
            await asyncio.sleep(0.2)
        generator.leave("asked to stop by a signal")

    watching = asyncio.create_task(watch())
    try:
        await generator.run()
    finally:
        watching.cancel()


def _on_stop_signals() -> threading.Event:
    """Set by the first request to stop; the second one ends this process at once."""
    leave = threading.Event()

    def note(_: str) -> None:
        leave.set()
        undo()

    undo = stop.catch(note)
    return leave


def redirect_output(path: Path) -> None:
    """Send everything this process and its children print to `path`."""
    sys.stdout.flush()
    sys.stderr.flush()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)


def needs_server(config: RunConfig, role: str) -> None:
    """Raises ConfigError where a role on its own is given no broker to work with."""
    if not config.broker.url:
        raise ConfigError(
            f"broker.url is empty: a {role} of its own needs a running server; start one with "
            f"`sppo-cli broker`, or "
            "name yours: --set broker.url=rediss://HOST:6379"
        )
