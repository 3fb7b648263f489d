"""After a run: was every ticket trained once or given up with a reason, and is nothing left
behind?
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import psutil

from sppo import marks
from sppo.config import BrokerConfig
from sppo.launch import run_dir as run_dirs
from sppo.launch.sweep import role_processes
from sppo.learner import checkpoint
from sppo.learner.ledger import Ledger
from sppo.metrics import read_lines
from sppo.tasks.tickets import training_uid
from sppo.transport.redis_broker import RedisBroker, connect
from sppo.transport.server import EmbeddedServer


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What became of the tickets of one run, by its last checkpoint, its metrics and its broker."""

    issued: int
    trained: int
    twice: list[str]
    lost: list[str]
    """Issued, but in no optimizer step and no dead letter. Of a run that has not finished: settled
    ones only.
    """
    dead: dict[str, str]
    """uid to reason."""
    dead_unexplained: list[str]
    """Given up for another reason than that the scorer or the engine refused them."""
    leftovers: list[str]
    """What the broker of a finished run still holds."""


def audit(run_dir: Path) -> Audit:
    """Read a run that has ended and used the embedded broker, which is started for it."""
    server = EmbeddedServer(run_dir / "broker", max_bytes=1 << 30)
    config = server.start(BrokerConfig())
    try:
        broker = connect(
            config, f"{_name(run_dir)}-{(run_dir / 'run_id').read_text(encoding='utf-8')}"
        )
        summary = run_dirs.read_json(run_dir / "summary.json") or {}
        found = examine(run_dir, broker, finished=bool(summary.get("finished")))
        broker.close()
    finally:
        server.stop()
    return found


def examine(run_dir: Path, broker: RedisBroker, *, finished: bool) -> Audit:
    """The same with a broker that is up."""
    last = checkpoint.newest(run_dir / "checkpoints")
    ledger = Ledger() if last is None else Ledger.restore(last.state["ledger"])
    step = 0 if last is None else last.step
    times = Counter(
        uid
        for record in read_lines(run_dir / "metrics.jsonl")
        if record["step"] <= step
        for uid in record["tickets"]
    )
    letters = {d.uid: d.reason for d in broker.tickets.dead_letters() if d.stream == "train"}
    uids = [training_uid(i) for i in range(ledger.next_index)]
    return Audit(
        issued=ledger.next_index,
        trained=len(times),
        twice=sorted(uid for uid, n in times.items() if n > 1),
        lost=[
            uid
            for uid in uids
            if (finished or ledger.settled(uid)) and uid not in times and uid not in letters
        ],
        dead=letters,
        dead_unexplained=sorted(
            uid for uid, reason in letters.items() if not reason or reason.startswith("bad frame")
        ),
        leftovers=broker.leftovers() if finished else [],
    )


def orphans(run_dir: Path) -> list[str]:
    """Processes that still work for this run: its roles and what they started, its broker, their
    shared memory.
    """
    found = {
        p.pid: p
        for path in (run_dir / "pids").glob("*.json")
        for p in role_processes(run_dir, path.stem)
    }
    log = str(run_dir.resolve() / "broker")
    for process in psutil.process_iter():
        try:
            if "valkey" in process.name() and process.cwd() == log:
                found[process.pid] = process
        except psutil.Error:
            continue
    roles = [path.stem for path in (run_dir / "pids").glob("*.json")]
    memory = [
        f"/dev/shm/{name}"
        for role in roles
        for name in marks.left_shared_memory(marks.mark(run_dir, role))
    ]
    return [
        f"{p.pid} {' '.join(p.cmdline())[:80]}" for p in found.values() if p.is_running()
    ] + memory


def _name(run_dir: Path) -> str:
    import tomllib

    return str(tomllib.loads((run_dir / "config.toml").read_text(encoding="utf-8"))["name"])
