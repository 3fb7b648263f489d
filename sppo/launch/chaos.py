"""`sppo-cli chaos`: hurt a real run by a seeded plan, then count what became of its tickets.

Consumes what the run writes about itself (status.json, events.jsonl, logs); waits for each role to
work again; the run is a plain `sppo-cli up` in a process of its own, which knows nothing of this
but where the roles reach their broker.

    kill        SIGKILL to the role's process
    stop        SIGSTOP for a few seconds, or for so long that the role is taken for hung and started again
    delay       every piece between the role and the broker waits 0.2 s
    partition   nothing passes between the role and the broker
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import psutil

from sppo import stop
from sppo.config import RunConfig
from sppo.errors import SppoError
from sppo.launch import audit as audits
from sppo.launch import run_dir as run_dirs
from sppo.launch.audit import Audit
from sppo.launch.supervisor import CHAOS_VARIABLE
from sppo.metrics import read_lines
from sppo.transport.proxy import Proxy
from sppo.transport.server import private_folder

Kind = Literal["kill", "stop", "delay", "partition"]

KINDS: tuple[Kind, ...] = ("kill", "stop", "delay", "partition")
RECOVERY_BAR_S = 30.0
RECOVERY_WAIT_S = 180.0
SHORT_STOP_S = (2.0, 5.0)
LONG_STOP_S = 25.0
DISTURBANCE_S = (4.0, 12.0)
LEARNER_BEGINS = "loading the model"
HANG_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One entry of the plan."""

    at_s: float
    """Seconds after the first optimizer step."""
    kind: Kind
    role: str
    seconds: float = 0.0
    """How long it lasts; 0 for a kill."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a fault led to."""

    fault: Fault
    restarted: bool
    recovery_s: float | None
    """Seconds until the role worked again: from a kill, or a fault that led to a restart, the
    start-up of its engine apart; from the end of one that led to none. None: it never did.
    """
    engine_start_s: float = 0.0
    run_ended: bool = False
    """The run had ended before that could show."""
    began: float = 0.0
    """Seconds since 1970 at which the fault was inflicted: later than planned where the one before
    took long.
    """


def overrides(config: RunConfig) -> list[str]:
    """Settings for a run that is hurt on purpose: it must not end because of it, nor wait long for
    what hangs.
    """
    hang_s = max(HANG_TIMEOUT_S, 3 * config.weights.phase_timeout_s)
    return ["launch.max_restarts=1000", f"launch.hang_timeout_s={hang_s:g}"]


def plan(
    seed: int, minutes: float, every_s: float, roles: Sequence[str], kinds: Sequence[Kind]
) -> list[Fault]:
    """A kill every `every_s`, each role in turn, and half-way between two kills one of the other
    kinds.
    """
    rng = random.Random(seed)
    faults: list[Fault] = []
    others = [k for k in kinds if k != "kill"]
    waiting: tuple[list[str], list[str]] = ([], [])

    def next_role(which: int) -> str:
        if not waiting[which]:
            waiting[which].extend(rng.sample(list(roles), len(roles)))
        return waiting[which].pop()

    at = every_s / 2
    while at <= minutes * 60:
        if "kill" in kinds:
            faults.append(Fault(at_s=at, kind="kill", role=next_role(0)))
        if others and at + every_s / 2 <= minutes * 60:
            kind, role = rng.choice(others), next_role(1)
            if kind == "stop":
                seconds = LONG_STOP_S if rng.random() < 0.5 else rng.uniform(*SHORT_STOP_S)
            else:
                seconds = rng.uniform(*DISTURBANCE_S)
            if role == "broker" and kind != "stop":  # the proxies stand between it and the others
                kind, seconds = "stop", rng.uniform(*SHORT_STOP_S)
            faults.append(
                Fault(at_s=at + every_s / 2, kind=kind, role=role, seconds=round(seconds, 1))
            )
        at += every_s
    return faults


class Chaos:
    """One run under faults."""

    def __init__(
        self, config: RunConfig, run_dir: Path, command: Sequence[str], faults: Sequence[Fault],
        say: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._config = config
        self._run_dir = run_dir
        self._command = list(command)
        self._faults = list(faults)
        self._say = say
        self._since = time.time()
        self._folder = Path(tempfile.mkdtemp(prefix="sppo-chaos-"))
        server = private_folder(run_dir / "broker") / "broker.sock"
        self._proxies = {
            name: Proxy(listen=self._folder / f"{name}.sock", server=server)
            for name in role_names(config)
        }

    def run(self) -> dict[str, Any]:
        """Start the run, hurt it, wait for its end, and report. Raises SppoError if it does not
        start.
        """
        for proxy in self._proxies.values():
            proxy.start()
        started, self._since = time.monotonic(), time.time()
        log = self._run_dir / "up.log"
        self._run_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        with log.open("w", encoding="utf-8") as file:
            up = subprocess.Popen(
                self._command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
                env=os.environ | {CHAOS_VARIABLE: str(self._folder)},
            )  # fmt: skip
        undo = stop.catch(_interrupt)
        try:
            self._say(f"the run is starting; its output: {log}")
            outcomes = self._hurt(up)
            self._say("no more faults; waiting for the run to end")
            code = up.wait()
        except BaseException:
            self._end(up)
            raise
        finally:
            undo()
            for proxy in self._proxies.values():
                proxy.stop()
            shutil.rmtree(self._folder, ignore_errors=True)
        if code != 0 and not (self._run_dir / "run_id").exists():
            raise SppoError(f"the run did not start (exit code {code}):\n{_tail(log)}")
        if code != 0:
            self._say(f"the run ended with exit code {code}; its last lines:\n{_tail(log)}")
        return self._report(outcomes, time.monotonic() - started)

    def _end(self, up: subprocess.Popen[bytes]) -> None:
        if up.poll() is None:
            up.terminate()  # not SIGINT: a shell may have told us and it to ignore that
            try:
                up.wait(150)
            except subprocess.TimeoutExpired:
                up.kill()

    # hurting --------------------------------------------------------------------------------------
    def _hurt(self, up: subprocess.Popen[bytes]) -> list[Outcome]:
        while up.poll() is None and not self._training():
            time.sleep(0.5)
        began = time.monotonic()
        outcomes = []
        for fault in self._faults:
            while up.poll() is None and time.monotonic() - began < fault.at_s:
                time.sleep(0.2)
            if up.poll() is not None or self._leaving():
                self._say("the run comes to its end before the plan")
                break
            began_at = time.time()
            outcome = replace(self._inflict(fault, up), began=began_at)
            outcomes.append(outcome)
            self._say(_line(outcome))
        return outcomes

    def _inflict(self, fault: Fault, up: subprocess.Popen[bytes]) -> Outcome:
        before, process = self._life(fault.role), self._process(fault.role)
        for _ in range(150):  # it may be starting again after the fault before
            if before and process is not None:
                break
            time.sleep(0.2)
            before, process = self._life(fault.role), self._process(fault.role)
        at, wall = time.monotonic(), time.time()
        if process is None:
            return Outcome(
                fault=fault, restarted=False, recovery_s=None, run_ended=up.poll() is not None
            )
        if fault.kind == "kill":
            process.kill()
            return self._await(fault, before, at, wall, up)
        self._disturb(fault, process, up)
        healed, progress = time.monotonic(), self._progress(fault.role)
        while time.monotonic() - healed < RECOVERY_WAIT_S and up.poll() is None:
            if self._life(fault.role) not in ("", before):  # it was taken for hung
                return self._await(fault, before, at, wall, up)
            if self._life(fault.role) == before and self._progress(fault.role) > progress:
                return Outcome(
                    fault=fault, restarted=False, recovery_s=round(time.monotonic() - healed, 1)
                )
            time.sleep(0.2)
        return Outcome(
            fault=fault, restarted=False, recovery_s=None, run_ended=up.poll() is not None
        )

    def _disturb(self, fault: Fault, process: psutil.Process, up: subprocess.Popen[bytes]) -> None:
        """Stop, delay or cut off the role for as long as the plan says; it is healed whatever
        happens here.
        """
        proxy = self._proxies.get(fault.role)
        try:
            if fault.kind == "stop":
                process.suspend()
            elif proxy is not None:
                proxy.mode = "silence" if fault.kind == "partition" else "delay"
            _sleep(fault.seconds, lambda: up.poll() is not None or not process.is_running())
        finally:
            if fault.kind == "stop":
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.resume()
            elif proxy is not None:
                proxy.mode = "pass"
                if fault.kind == "partition":
                    proxy.cut()

    def _await(
        self, fault: Fault, before: str, at: float, wall: float, up: subprocess.Popen[bytes]
    ) -> Outcome:
        """Until the role has a new life that works."""
        outcome = Outcome(fault=fault, restarted=True, recovery_s=None)
        while time.monotonic() - at < RECOVERY_WAIT_S and up.poll() is None:
            if self._works(fault.role, before, wall):
                start_s = self._engine_start_s(fault.role)
                took = time.monotonic() - at - start_s
                return replace(outcome, recovery_s=round(took, 1), engine_start_s=round(start_s, 1))
            time.sleep(0.2)
        return replace(outcome, run_ended=up.poll() is not None)

    def _training(self) -> bool:
        """Whether this life of the run has all its roles and has begun."""
        return any(e.get("phase") == "training" for e in self._events())

    def _leaving(self) -> bool:
        status = self._status()
        over = status.get("step", 0) >= self._config.learner.steps
        return over and status.get("phase") in ("saving", "exporting", "done")

    def _works(self, role: str, before: str, since: float) -> bool:
        if self._life(role) in ("", before):
            return False
        if role.startswith("learner"):  # it has resumed once it has published its weights
            kinds = [e.get("phase", e["kind"]) for e in self._events() if e["time"] > since]
            return LEARNER_BEGINS in kinds and "sync" in kinds[kinds.index(LEARNER_BEGINS) :]
        if role.startswith("generator"):
            applied = self._members().get(role, {}).get("applied", "")
            return bool(applied)
        return True

    def _life(self, role: str) -> str:
        """Names the role's present life; empty while it has none."""
        if role == "broker":
            process = self._process(role)
            if process is None:
                return ""
            # The supervisor renews its status only while the broker answers.
            answered = self._status().get("updated", 0) > process.create_time() + 0.5
            return f"{process.pid} {process.create_time()}" if answered else ""
        return str(self._members().get(role, {}).get("life", ""))

    def _progress(self, role: str) -> float:
        """A number that moves while the role gets on with its work."""
        if role == "broker":
            return float(self._status().get("updated", 0))
        return float(self._members().get(role, {}).get("progress", 0))

    def _process(self, role: str) -> psutil.Process | None:
        if role != "broker":
            return run_dirs.role_process(self._run_dir, role)
        pid = run_dirs.running(self._run_dir)
        children = psutil.Process(pid).children() if pid is not None else []
        for child in children:
            try:
                if "valkey" in child.name() and child.status() != psutil.STATUS_ZOMBIE:
                    return child
            except psutil.NoSuchProcess:
                continue
        return None

    # what the run says of itself ------------------------------------------------------------------
    def _status(self) -> dict[str, Any]:
        return run_dirs.read_json(self._run_dir / "status.json") or {}

    def _members(self) -> dict[str, dict[str, Any]]:
        members: dict[str, dict[str, Any]] = self._status().get("members", {})
        return members

    def _events(self) -> list[dict[str, Any]]:
        """What has happened since this run was started."""
        return [e for e in read_lines(self._run_dir / "events.jsonl") if e["time"] >= self._since]

    def _engine_start_s(self, role: str) -> float:
        """Seconds from the process' begin to "engine ready", by the newest life's log."""
        if not role.startswith("generator"):
            return 0.0
        text = (self._run_dir / "logs" / f"{role}.log").read_text(
            encoding="utf-8", errors="replace"
        )
        times = [_stamps(text, what) for what in (f"{role} begins in process", "engine ready")]
        return max(0.0, times[1][-1] - times[0][-1]) if all(times) else 0.0

    # the report -----------------------------------------------------------------------------------
    def _report(self, outcomes: Sequence[Outcome], seconds: float) -> dict[str, Any]:
        left = audits.orphans(self._run_dir)
        found = audits.audit(self._run_dir)
        summary = run_dirs.read_json(self._run_dir / "summary.json") or {}
        hung = hung_syncs(self._events(), self._config.weights.phase_timeout_s)
        hung += hung_learners(self._events(), outcomes)
        planned = min(1, len(self._faults))
        return {
            "run_dir": str(self._run_dir),
            "seconds": round(seconds, 1),
            "finished": summary.get("finished", False),
            "held_out_accuracy": summary.get("held_out_accuracy"),
            "restarts": summary.get("restarts"),
            "faults": [asdict(o) for o in outcomes],
            "audit": asdict(found) | {"orphans": left},
            "hung_syncs": hung,
            "checks": [
                *checks(found, outcomes, len(hung), left),
                _check("run_unfinished", int(not summary.get("finished")), "runs", 0),
                _check("plan_untouched", planned - min(planned, len(outcomes)), "faults", 0),
            ],
        }


def role_names(config: RunConfig) -> list[str]:
    """Processes that a run of this configuration has, the broker apart."""
    scorers = (
        config.scorer.replicas if config.scorer.mode == "http" and not config.scorer.url else 0
    )
    generators = [f"generator-{i}" for i in range(config.generator.replicas)]
    return ["learner-0", *generators, *(f"scorer-{i}" for i in range(scorers))]


def hung_syncs(events: Sequence[dict[str, Any]], phase_timeout_s: float) -> list[dict[str, Any]]:
    """Weight syncs that took longer than their deadlines allow.

    A sync may wait for one deadline per failure it reports, for its own phases, and for a generator
    to be there at all; a broker that is away meanwhile may add its restart.
    """
    allowance_s = 20.0
    return [
        e
        for e in events
        if e["kind"] == "sync"
        and e["ready_s"] + e["transfer_s"] - e["alone_s"]
        > (len(e["failures"]) + 2) * phase_timeout_s + allowance_s
    ]


def hung_learners(
    events: Sequence[dict[str, Any]], outcomes: Sequence[Outcome]
) -> list[dict[str, Any]]:
    """Restarts of a learner that stood still though no fault had made it: a sync that hangs would
    end so.
    """
    faults = [o for o in outcomes if o.fault.role == "learner-0" and o.fault.kind != "kill"]
    explained = [
        (o.began, o.began + o.fault.seconds + RECOVERY_BAR_S + HANG_TIMEOUT_S) for o in faults
    ]
    return [
        e
        for e in events
        if e["kind"] == "restart"
        and e["role"] == "learner-0"
        and "had hung" in e["text"]
        and not any(begin <= e["time"] <= end for begin, end in explained)
    ]


def checks(
    found: Audit, outcomes: Sequence[Outcome], hung: int, left: Sequence[str]
) -> list[dict[str, Any]]:
    """The answers that a machine reads."""
    times = [
        RECOVERY_WAIT_S if o.recovery_s is None else o.recovery_s
        for o in outcomes
        if not o.run_ended
    ]
    return [
        _check("tickets_lost", len(found.lost), "tickets", 0),
        _check("tickets_trained_twice", len(found.twice), "tickets", 0),
        _check("tickets_dead_unexplained", len(found.dead_unexplained), "tickets", 0),
        _check("syncs_hung", hung, "syncs", 0),
        _check("max_recovery_s", max(times, default=0.0), "s", RECOVERY_BAR_S),
        _check(
            "orphans",
            len(left) + len(found.leftovers),
            "processes, shared memory, what the broker holds",
            0,
        ),
    ]


def _check(name: str, value: float, unit: str, bar: float) -> dict[str, Any]:
    return {"name": name, "value": value, "unit": unit, "bar": bar, "ok": value <= bar}


def _line(outcome: Outcome) -> str:
    fault = outcome.fault
    lasting = f" for {fault.seconds:.1f} s" if fault.seconds else ""
    what = f"{fault.at_s:6.0f} s  {fault.kind} {fault.role}{lasting}: "
    if outcome.run_ended:
        return what + "the run ended before that could show"
    if outcome.recovery_s is None:
        return what + f"not working again after {RECOVERY_WAIT_S:.0f} s"
    if not outcome.restarted:
        return what + f"went on {outcome.recovery_s:.1f} s after it was over"
    engine = (
        f" and {outcome.engine_start_s:.1f} s of the engine's own start"
        if outcome.engine_start_s
        else ""
    )
    return what + f"started again, working after {outcome.recovery_s:.1f} s{engine}"


def _interrupt(_: str) -> None:
    raise KeyboardInterrupt


def _sleep(seconds: float, until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not until():
        time.sleep(0.2)


def _stamps(text: str, what: str) -> list[float]:
    found = re.findall(
        rf"^(\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d,\d{{3}}) .*{re.escape(what)}", text, re.MULTILINE
    )
    return [datetime.strptime(stamp, "%Y-%m-%d %H:%M:%S,%f").timestamp() for stamp in found]


def _tail(path: Path, lines: int = 15) -> str:
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
