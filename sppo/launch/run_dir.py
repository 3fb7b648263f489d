"""The run directory: what is in it, whether a configuration may use it, and what it says about a
run.

RUN/config.toml       the resolved configuration, without secrets
RUN/metrics.jsonl     one line per optimizer step (names: sppo/metrics.py)
RUN/samples.jsonl     prompts, completions and scores of a few groups of each step (sppo/samples.py)
RUN/spans.jsonl       when each trained group was where (sppo/spans.py)
RUN/base_answers.json what evaluations compare with, where the scorer compares
RUN/events.jsonl      phases, evaluations, weight syncs, restarts: what happened when
RUN/roles.jsonl       who was there and how busy, every ten seconds (sppo/launch/attendance.py)
RUN/logs/             one file per role; up.log for the checks and the supervisor
RUN/checkpoints/      whole checkpoints (sppo/learner/checkpoint.py)
RUN/export/           the trained model in Hugging Face format
RUN/data.json         digests of the prompts (sppo/tasks/fingerprint.py)
RUN/summary.json      the outcome, once the run has ended
RUN/status.json       the state of the run, renewed every second while it is up
RUN/asked/            what a person asks of the learner (sppo/asked.py)
RUN/broker/           the embedded broker's data
RUN/run_id            names this run's keys in the broker
RUN/pids/             the process of each role, for ending one that hangs
RUN/spool/            groups beyond the broker's budget, until a checkpoint covers them
RUN/groups/           the groups of the last steps, for `sppo-cli replay` (sppo/learner/kept.py)
RUN/quarantine/       groups that were refused, for whoever wants to know why
RUN/track/            what each tracker has got of this run (sppo/track/follower.py)
RUN/prometheus.json   where /metrics is served, while it is (sppo/launch/exposition.py)
RUN/judge.sqlite3     what a judge has answered, and what that took
"""

from __future__ import annotations

import json
import math
import os
import signal
import time
import tomllib
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import Any

import psutil

from sppo import asked, locks
from sppo.config import RENAMED, RESUME_MAY_CHANGE, RunConfig, flatten, setting, to_toml
from sppo.errors import ConfigError
from sppo.learner import manifest

DOWN_TIMEOUT_S = 180.0
"""Without a sign of life of a supervisor that was asked to stop."""
SIGN_S = 10.0
"""Without a new status.json a run on another machine is taken for dead."""
DOWN_SAID_S = 2.0
"""Between two lines about what it is at."""


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Hold the directory for one `up`. Raises ConfigError when it cannot be written or another `up`
    holds it.
    """
    try:
        if not run_dir.exists():
            run_dir.mkdir(
                parents=True, mode=0o700
            )  # prompts, groups and weights are this user's alone
        (run_dir / "logs").mkdir(exist_ok=True)
        lock = locks.take(run_dir / "up.lock")
    except OSError as error:
        raise ConfigError(
            f"--run-dir {run_dir} cannot be written: {error.strerror}; choose another"
        ) from error
    except locks.Held:
        raise ConfigError(
            f"--run-dir {run_dir}: a run is up here; `sppo-cli down {quote(str(run_dir))}` ends it"
        ) from None
    try:
        yield
    finally:
        os.close(lock)


def check(run_dir: Path, config: RunConfig) -> None:
    """Raises ConfigError when the directory holds a run that was trained under other settings."""
    changed = _changes(run_dir, config)
    if not changed or not has_progress(run_dir):
        return
    if old := sorted(RENAMED.keys() & changed.keys()):
        raise ConfigError(
            f"--run-dir {run_dir} was begun by sppo 0.1 ({old[0]} is {RENAMED[old[0]]}): finish it "
            f"with that version, or begin anew elsewhere from what it exported: "
            f"model.name = {str(run_dir / 'export')!r}"
        )
    shown = "; ".join(
        f"{key} was {was!r}, now {now!r}" for key, (was, now) in list(changed.items())[:5]
    )
    raise ConfigError(
        f"--run-dir {run_dir} belongs to another configuration: {shown}; "
        "choose another directory, or put the settings back to resume"
    )


def with_cache(run_dir: Path, config: RunConfig) -> RunConfig:
    """The configuration with a file of this directory for a judge's answers, if none is named."""
    judge = config.scorer.judge
    if judge.cache:
        return config
    judge = judge.model_copy(update={"cache": str(run_dir.resolve() / "judge.sqlite3")})
    scorer = config.scorer.model_copy(update={"judge": judge})
    return config.model_copy(update={"scorer": scorer})


def check_checkpoint(run_dir: Path) -> None:
    """Raises ConfigError if the checkpoint that the run would go on from is damaged."""
    manifest.newest(run_dir / "checkpoints")


def claim(run_dir: Path, config: RunConfig, *, anew: bool = False) -> str:
    """Write config.toml; returns the name of this run's keys in the broker.

    The name is kept as long as the run may be resumed. A directory whose run never took a step
    under other settings begins anew, so that no group of those settings can be trained; so does one
    whose data is new (`anew`).
    """
    identity = run_dir / "run_id"
    if anew or _changes(run_dir, config) or not identity.exists():
        _write(identity, uuid.uuid4().hex[:12])
    _write(run_dir / "config.toml", to_toml(config))
    (run_dir / "summary.json").unlink(missing_ok=True)  # of an earlier end
    asked.begin(run_dir)
    asked.withdraw(run_dir, *asked.WISHES)  # of an earlier life
    return f"{config.name}-{identity.read_text(encoding='utf-8')}"


def has_progress(run_dir: Path) -> bool:
    """Whether the run that is here has trained anything."""
    return (run_dir / "metrics.jsonl").exists() or any((run_dir / "checkpoints").glob("step-*"))


def _changes(run_dir: Path, config: RunConfig) -> dict[str, tuple[Any, Any]]:
    """Settings that differ from those of the run that is here and must not: name to (old, new)."""
    existing = run_dir / "config.toml"
    if not existing.exists():
        return {}
    before, after = (
        flatten(tomllib.loads(text))
        for text in (existing.read_text(encoding="utf-8"), to_toml(config))
    )
    return {
        key: (before.get(key), after.get(key))
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key) and setting(key) not in RESUME_MAY_CHANGE
    }


def running(run_dir: Path) -> int | None:
    """Process id of the supervisor that runs here, or None."""
    status = read_json(run_dir / "status.json")
    if status is None or status.get("pid") is None:
        return None
    try:
        process = psutil.Process(status["pid"])
        alive = (
            abs(process.create_time() - status["pid_created"]) < 1
            and process.status() != psutil.STATUS_ZOMBIE
        )
    except psutil.NoSuchProcess:
        return None
    return int(status["pid"]) if alive else None


def alive(run_dir: Path) -> bool:
    """Whether the run shows signs of life, perhaps from another machine that shares the folder."""
    if running(run_dir) is not None:
        return True
    status = read_json(run_dir / "status.json") or {}
    fresh = time.time() - float(status.get("updated", 0)) < SIGN_S
    return fresh and status.get("phase") not in ("done", "stopped")


def write_status(run_dir: Path, status: dict[str, Any]) -> None:
    """Renew status.json with this process as the owner."""
    process = psutil.Process(os.getpid())
    _write(
        run_dir / "status.json",
        json.dumps(status | {"pid": process.pid, "pid_created": process.create_time()}),
    )


def write_pid(run_dir: Path, role: str, node: str = "") -> None:
    """Say that this process is the role's, on this node of a Ray cluster."""
    process = psutil.Process()
    folder = run_dir / "pids"
    folder.mkdir(exist_ok=True)
    _write(
        folder / f"{role}.json",
        json.dumps({"pid": process.pid, "created": process.create_time(), "node": node}),
    )


def role_node(run_dir: Path, role: str) -> str:
    """The node of the process that said so last; empty if none did."""
    return str((read_json(run_dir / "pids" / f"{role}.json") or {}).get("node", ""))


def role_process(run_dir: Path, role: str) -> psutil.Process | None:
    """The process that said so last, if it is still there."""
    found = read_json(run_dir / "pids" / f"{role}.json")
    if found is None:
        return None
    try:
        process = psutil.Process(found["pid"])
        same = (
            abs(process.create_time() - found["created"]) < 1
            and process.status() != psutil.STATUS_ZOMBIE
        )
    except psutil.NoSuchProcess:
        return None
    return process if same else None


def write_json(path: Path, value: Any) -> None:
    """Write whole or not at all."""
    _write(path, json.dumps(value, indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a file, or None if there is none."""
    if not path.exists():
        return None
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value


def describe(run_dir: Path) -> dict[str, Any]:
    """A running or finished run as one object. Raises ConfigError where there is no run."""
    if not (run_dir / "config.toml").exists():
        raise ConfigError(
            f"{run_dir} holds no run; `sppo-cli up CONFIG --run-dir {quote(str(run_dir))}` starts "
            f"one"
        )
    pid = running(run_dir)
    status = {
        k: v
        for k, v in (read_json(run_dir / "status.json") or {}).items()
        if not k.startswith("pid")
    }
    summary = read_json(run_dir / "summary.json")
    state = "running" if pid else ("finished" if summary and summary["finished"] else "stopped")
    return {
        "run_dir": str(run_dir),
        "state": state,
        "pid": pid,
        **status,
        "summary": None if pid else summary,
    }


def end(run_dir: Path, say: Callable[[str], None] = lambda text: None) -> bool:
    """Ask the run's supervisor to stop and wait until it has; `say` hears what it is at. False if
    nothing was running.

    Raises ConfigError when it shows no sign of life any more: it gives up by itself where the
    learner does not.
    """
    pid = running(run_dir)
    if pid is None:
        return False
    os.kill(pid, signal.SIGTERM)
    seen, phase, deadline, said = None, "", time.monotonic() + DOWN_TIMEOUT_S, -math.inf
    while running(run_dir) is not None:
        status = read_json(run_dir / "status.json") or {}
        if status.get("updated") != seen:
            seen, deadline = status.get("updated"), time.monotonic() + DOWN_TIMEOUT_S
        now = status.get("phase", phase)
        if now != phase and time.monotonic() - said > DOWN_SAID_S:
            phase, said = now, time.monotonic()
            say(phase)
        if time.monotonic() > deadline:
            raise ConfigError(
                f"process {pid} has shown no sign of life for {DOWN_TIMEOUT_S:.0f} s and has not "
                f"stopped; see {run_dir}/logs"
            )
        time.sleep(0.2)
    return True


def log_tail(run_dir: Path, name: str, lines: int = 15) -> str:
    """The last lines of a role's log."""
    path = run_dir / "logs" / f"{name}.log"
    if not path.exists():
        return "(no log)"
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


def _write(path: Path, text: str) -> None:
    scratch = path.with_name(f".{path.name}.partial")
    scratch.write_text(text, encoding="utf-8")
    scratch.replace(path)
