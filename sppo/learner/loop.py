"""The learner's loop.

Consumes scored groups; waits for a whole batch of them; unblocks generators with tickets and
weights.

    admit tickets ── wait for a batch ── train ── publish ── (checkpoint, evaluate) ── again

Tickets of the next batches are out while this one trains (`learner.lookahead_steps`), so neither
side waits for the other's slowest piece of work.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from sppo import compute, families, models, stop
from sppo.config import RunConfig, cpu_threads, is_loopback, resolve_transport, to_json
from sppo.errors import ConfigError, RoleDiedError, ScorerError, SppoError, WeightSyncError
from sppo.faults import point
from sppo.learner import checkpoint
from sppo.learner.checkpoint import Checkpoint
from sppo.learner.ledger import Ledger
from sppo.learner.model import Logprobs, Policy, Snapshot, check_device, export_dtype, pick_device
from sppo.learner.optim import Optimizer
from sppo.learner.parity import Gaps, Parity
from sppo.learner.pulse import Pulse
from sppo.learner.queue import GroupQueue
from sppo.learner.ranks import Alone, Team
from sppo.learner.refusals import DeadLetters, Refusals
from sppo.learner.spool import Spool
from sppo.learner.step import Trainer
from sppo.metrics import BusyClock, JsonLines, Spent
from sppo.tasks import fingerprint, questions
from sppo.tasks.tickets import TicketFactory
from sppo.transport import codec
from sppo.transport.broker import Broker
from sppo.types import Group, Version
from sppo.weights.protocol import WeightSender
from sppo.weights.publisher import WeightPublisher

if TYPE_CHECKING:
    from sppo.learner.sharded import ShardedPolicy

log = logging.getLogger(__name__)

WAIT_S = 0.5
HEARTBEAT_LAG_S = 3.0
LATE_LAG_DEADLINES = 2


class _Stopped(Exception):  # noqa: N818 - not an error
    """The run asked everyone to finish."""


def run(config: RunConfig, broker: Broker, run_dir: Path) -> dict[str, Any]:
    """Train until `learner.steps` or until the run asks to stop; returns the outcome for the
    summary.

    Raises SppoError with what went wrong. A checkpoint is written before a requested stop.
    """
    config = compute.resolved(config, cuda=pick_device(config.learner.device) == "cuda")
    with _locked(run_dir), Pulse(broker) as pulse:
        with pulse.busy():
            config = families.settled(config, models.resolve(config.model))
            team = _make_team(config, broker, run_dir)
        try:
            with pulse.busy():
                learner = Learner(config, broker, run_dir, pulse, team)
            with learner.stopped_by_signals():
                outcome = learner.run()
        except BaseException as error:
            lost = team.lost() if isinstance(error, RuntimeError | RoleDiedError) else ""
            team.close(at_once=True)  # where the others wait nobody knows
            if lost:
                raise RoleDiedError(f"{lost}; what it said is in the learner's log") from error
            raise
        team.close()
        return outcome


class Learner:
    """One life of the learner."""

    def __init__(
        self,
        config: RunConfig,
        broker: Broker,
        run_dir: Path,
        pulse: Pulse,
        team: Alone | None = None,
    ) -> None:
        self._config = config
        self._team = team or Alone()
        self._broker = broker
        self._run_dir = run_dir
        self._pulse = pulse
        self._signal = ""
        self._phase("loading the model")
        device = pick_device(config.learner.device)
        _use_threads(config, device)
        device = check_device(device, 0) if self._team.size > 1 else device
        self._model_path = models.resolve(config.model)
        self._tokenizer = models.load_tokenizer(self._model_path)
        self._policy = self._load_policy(device)
        self._optimizer = Optimizer(config.optimizer, self._policy.master, self._team)
        self._trainer = Trainer(config, self._policy, self._optimizer, self._team)
        self._version = Version(epoch=uuid.uuid4().hex, n=0)
        self._parity = Parity(config)
        self._probe: float | None = None
        self._probed: Version | None = None
        self._take_snapshot()
        self._keep_reference()
        self._evaluations: list[dict[str, Any]] = []
        self._saved = (-1, 0)
        self._parent = ""
        self._life: dict[str, float] = {"wall_s": 0.0, "syncs": 0, "sync_s": 0.0, "sync_max_s": 0.0}
        ledger = self._resume(checkpoint.newest(run_dir / "checkpoints"))
        self._ledger = ledger
        found = questions.load(config.task, config.seed)
        fingerprint.refuse_changes(run_dir, found)  # the file may have changed since `up`
        tickets = TicketFactory(config, found, self._tokenizer)
        self._queue = GroupQueue(
            broker, tickets, ledger, Spool(run_dir), limits=config.broker,
            vocabulary=self._policy.vocabulary,
            dead=DeadLetters(self._event),
        )  # fmt: skip
        self._refusals = Refusals(self._event)
        sender = _make_sender(config, device)
        self._publisher = WeightPublisher(
            broker, sender, phase_timeout_s=config.weights.phase_timeout_s,
            alone_timeout_s=config.generator.start_timeout_s,
        )  # fmt: skip
        self._published_at = 0.0
        self._metrics = JsonLines(run_dir / "metrics.jsonl")
        self._metrics.keep_until(self._version.n)
        self._started = time.monotonic()
        self._clock = BusyClock()
        self._spent, self._begun_at = Spent(), self._version.n
        self._usage_before: dict[tuple[str, str], tuple[float, float]] = {}

    def _load_policy(self, device: str) -> Policy | ShardedPolicy:
        how: dict[str, Any] = {
            "device": device,
            "logprobs": Logprobs.of(self._config, device),
            "compute": compute.dtype(self._config),
            "on_forward": self._pulse.beat,
        }
        log.info("computing in %s", self._config.compute)
        if not isinstance(self._team, Team):
            return Policy(self._model_path, **how)
        from sppo.learner.sharded import ShardedPolicy

        return ShardedPolicy(self._model_path, self._team, **how)

    def run(self) -> dict[str, Any]:
        """See the module's `run`."""
        self._broker.open_epoch(self._version.epoch)
        point("learner.epoch.opened")
        stopped = False
        try:
            self._prepare()
            while self._version.n < self._config.learner.steps:
                self._batch()
            self._evaluate()
        except _Stopped:
            stopped = True
            log.info("asked to stop at step %d", self._version.n)
        usage = self._usage()
        self._time = self._spent.by_step(self._version.n - self._begun_at)
        self._save()
        if not stopped:
            self._phase("exporting")
            with self._pulse.busy():
                dtype = export_dtype(self._config, self._policy)
                self._policy.export(self._run_dir / "export", self._tokenizer, dtype)
        self._publisher.close()
        self._phase("stopped" if stopped else "done")
        return self._outcome(stopped, usage)

    # one step -------------------------------------------------------------------------------------
    def _prepare(self) -> None:
        """Everything before the first step: generators ready, weights published, evaluation of
        where we begin.
        """
        self._await_members()
        if self._version.n >= self._config.learner.steps:
            self._take_snapshot()  # learner.steps was lowered to the checkpoint's step: no batch will refresh it
        self._publish()
        self._queue.reconcile(self._published.n)
        self._usage_before = self._role_seconds()
        if self._version.n >= self._config.learner.steps:
            return  # only the last evaluation, or the export, was missing
        if self._version.n == 0:
            self._evaluate()
        self._admit()
        self._phase("waiting for the first batch")
        groups = self._await_batch()
        self._check_parity(groups)
        self._usage_before = self._role_seconds()
        self._clock = BusyClock()
        self._spent, self._begun_at = Spent(), self._version.n
        self._phase("training")

    def _batch(self) -> None:
        with self._spent.on("wait") as waiting:
            groups = self._await_batch()
        waited = waiting.seconds
        self._check_stop()
        self._finish_probe()
        records: list[dict[str, Any]] = []
        with self._clock.work(), self._spent.on("train"):
            for record in self._trainer.train(groups, self._version, self._published):
                records.append(record | {"wait_s": 0.0 if records else waited, "sync_s": 0.0})
        point("learner.step.taken")
        self._queue.use(groups)
        before, self._version = (
            self._version.n,
            Version(epoch=self._version.epoch, n=records[-1]["step"]),
        )
        last = self._version.n >= self._config.learner.steps
        try:
            if last or self._config.objective.anchor != "iteration" or self._refreshes(before):
                self._take_snapshot()
                records[-1]["sync_s"] = self._publish()
        finally:  # a stop while no generator is alive must not lose the records of steps that were taken
            for record in records:
                self._record(record)
        point("learner.recorded")
        self._judge(self._trainer.gaps)
        self._admit()
        if _crossed(before, self._version.n, self._config.eval.every_steps) or last:
            self._evaluate()
        if not last and (
            self._parity.doubtful
            or _crossed(before, self._version.n, self._config.eval.every_steps)
        ):
            self._start_probe()
        if _crossed(before, self._version.n, self._config.learner.checkpoint_every) and not last:
            self._save()

    def _refreshes(self, before: int) -> bool:
        return _crossed(before, self._version.n, self._config.objective.iteration_steps)

    def _take_snapshot(self) -> None:
        """From here on these weights are what generators run, and the anchor of `iteration`."""
        self._published = self._version
        if self._config.objective.anchor == "iteration":
            self._policy.keep("anchor", device=self._snapshot_device())

    def _published_snapshot(self) -> Snapshot | None:
        """Where the weights that generators run are kept; None: they are the policy's own."""
        return "anchor" if self._published != self._version else None

    def _keep_reference(self) -> None:
        if self._config.objective.kl_coef:
            self._policy.keep("reference", device=self._snapshot_device())

    def _snapshot_device(self) -> str:
        return "cpu" if self._config.learner.snapshot == "host" else self._policy.device

    def _admit(self) -> None:
        """Tickets for the batch in use and `lookahead_steps` more; none beyond the last step."""
        settings = self._config.learner
        batches_left = (settings.steps - self._version.n) // settings.mini_batches
        cap = min(settings.lookahead_steps + 1, batches_left) * settings.groups_per_step
        self._queue.admit(cap, self._published.n)

    def _await_batch(self) -> list[Group]:
        """The next batch. Raises SppoError when nothing arrives for `batch_timeout_s`."""
        deadline = time.monotonic() + self._config.learner.batch_timeout_s
        while (groups := self._queue.batch(self._config.learner.groups_per_step)) is None:
            self._check_stop()
            if self._queue.receive(WAIT_S) or self._meet_newcomers():
                deadline = time.monotonic() + self._config.learner.batch_timeout_s
            elif time.monotonic() > deadline:
                names = [m.name for m in self._broker.members() if m.role == "generator"]
                raise SppoError(
                    f"no group arrived for {self._config.learner.batch_timeout_s:.0f} s "
                    f"(learner.batch_timeout_s); live generators: {', '.join(names) or 'none'}; "
                    f"{self._queue.describe()}"
                )
            else:
                self._admit()  # dead letters make room
        return groups

    def _publish(self) -> float:
        """Bring every generator to the published version; returns the seconds it took."""
        with self._clock.work(), self._spent.on("sync"):
            report = self._publisher.publish(
                self._published,
                self._policy.weights(self._published_snapshot()),
                while_alone=self._check_stop,
            )
        self._published_at = time.monotonic()
        self._life["syncs"] += 1
        self._life["sync_s"] += report.total_s
        self._life["sync_max_s"] = max(self._life["sync_max_s"], report.total_s)
        self._event(
            "sync", step=self._published.n, members=list(report.members), stage_s=round(report.stage_s, 3),
            ready_s=round(report.ready_s, 3), alone_s=round(report.alone_s, 3),
            transfer_s=round(report.transfer_s, 3),
            failures=list(report.failures),
        )  # fmt: skip
        log.info(
            "published %d to %s: stage %.2f s, ready %.2f s, transfer %.2f s",
            self._published.n, ", ".join(report.members), report.stage_s, report.ready_s,
            report.transfer_s,
        )  # fmt: skip
        return report.total_s

    def _meet_newcomers(self) -> bool:
        """Publish again if a generator has come since, or was late, and holds other weights.

        True if one was met that held none: one that is late again and again must not prolong a wait
        for groups.
        """
        generators = [m for m in self._broker.members() if m.role == "generator"]
        behind = [m.applied for m in generators if m.applied != str(self._published)]
        # One without weights is met as soon as heartbeats tell of the time after the last sync; one
        # that was late then is given time, as its next lateness would keep the others waiting
        # again.
        lag_s = (
            HEARTBEAT_LAG_S
            if "" in behind
            else LATE_LAG_DEADLINES * self._config.weights.phase_timeout_s
        )
        if not behind or time.monotonic() - self._published_at < lag_s:
            return False
        self._publish()
        return "" in behind

    def _record(self, record: dict[str, Any]) -> None:
        record |= {"epoch": self._version.epoch, "wall_s": time.monotonic() - self._started}
        record["mismatch_probe"] = self._probe
        if record["effective_sample_size"] < 0.5:
            self._warn(
                "effective sample size",
                f"step {record['step']}: effective sample size "
                f"{record['effective_sample_size']:.2f}: the batch is far "
                "from the policy; lower learner.lookahead_steps or look at the mismatch",
            )
        if record["truncated_share"] == 1:
            self._warn(
                "truncation",
                f"step {record['step']}: every completion ended at sampling.max_tokens = "
                f"{self._config.sampling.max_tokens}; raise it, or look at whether this model ends "
                f"its turns at all",
            )
        self._metrics.append(record)
        self._event("step", record=record)

    # before the first step ------------------------------------------------------------------------
    def _await_members(self) -> None:
        """Wait for the generators and scorers of the configuration; go on with fewer when time is
        up.
        """
        self._phase("waiting for generators")
        wanted = {"generator": self._config.generator.replicas, "scorer": 0}
        if self._config.scorer.mode == "http" and not self._config.scorer.url:
            wanted["scorer"] = 1
        deadline = time.monotonic() + self._config.generator.start_timeout_s
        while True:
            self._check_stop()
            roles: list[str] = [m.role for m in self._broker.members()]
            missing = {
                role: n - roles.count(role) for role, n in wanted.items() if roles.count(role) < n
            }
            if not missing:
                return
            if time.monotonic() > deadline:
                what = ", ".join(f"{n} {role}(s)" for role, n in missing.items())
                if "scorer" in missing or "generator" not in roles:
                    raise WeightSyncError(
                        f"generator.start_timeout_s is over and {what} did not come; see their logs"
                    )
                log.warning("going on without %s", what)
                return
            time.sleep(WAIT_S)

    def _check_parity(self, groups: list[Group]) -> None:
        """Raises ParityError when engine and learner disagree about the same tokens at the same
        version.
        """
        self._phase("checking parity")
        gaps = self._trainer.mismatch(groups, self._published, self._published_snapshot())
        if gaps.mean is None:
            log.info(
                "parity: no completion of the first batch was sampled at this version; not checked"
            )
            return
        threshold = self._parity.threshold
        self._event("parity", mismatch=gaps.mean, threshold=threshold, compute=self._config.compute)
        log.info(
            "parity: mean |engine − learner| log-prob %.2g nats (threshold %g)",
            gaps.mean,
            threshold,
        )
        self._parity.check(gaps)

    def _judge(self, gaps: Gaps) -> None:
        """Warn of a mismatch. Raises ParityError when it stays."""
        if warning := self._parity.judge(gaps, self._version.n):
            self._warn("parity", warning)

    def _warn(self, topic: str, text: str) -> None:
        log.warning("%s", text)
        self._event("warning", topic=topic, text=text)

    def _start_probe(self) -> None:
        """Remember these weights, so that parity can be measured on what generators sample with
        them meanwhile.

        Where groups are stale no step sees a completion of its own version. An iteration's groups
        are seen anyway.
        """
        if self._config.objective.anchor != "iteration":
            self._policy.keep("probe", device="cpu")
            self._probed = self._version

    def _finish_probe(self) -> None:
        """Measure on what has come in of the remembered version, if anything has."""
        version = self._probed
        if version is None:
            return
        groups = [g for g in self._queue.waiting() if version in g.versions()]
        with self._spent.on("probe"):
            gaps = self._trainer.mismatch(
                groups[: self._config.learner.groups_per_step], version, "probe"
            )
        if gaps.mean is None:
            return
        self._probe, self._probed = gaps.mean, None
        self._policy.drop("probe")
        log.info(
            "probe: mean |engine − learner| log-prob %.2g nats at step %d", gaps.mean, version.n
        )
        if version != self._published:  # else the step sees the same tokens, and is judged by them
            self._judge(gaps)

    # evaluation -----------------------------------------------------------------------------------
    def _evaluate(self) -> None:
        """Greedy completions of the held-out questions, all at the published version: no sync
        happens meanwhile.
        """
        if not self._config.task.held_out or self._evaluated():
            return
        with self._spent.on("evaluate"):
            self._run_evaluation()

    def _run_evaluation(self) -> None:
        self._phase("evaluating")
        n = self._published.n
        uids = self._queue.start_evaluation(f"{self._version.epoch[:8]}-{n}", n)
        deadline = time.monotonic() + self._config.eval.timeout_s
        while (groups := self._queue.finish_evaluation()) is None:
            self._check_stop()
            if time.monotonic() > deadline:
                raise SppoError(
                    f"the evaluation of step {n} took longer than eval.timeout_s = "
                    f"{self._config.eval.timeout_s:.0f}; {self._queue.describe()}"
                )
            self._queue.receive(WAIT_S)
            if self._meet_newcomers():
                deadline = time.monotonic() + self._config.eval.timeout_s
        if not groups:
            raise ScorerError(
                f"every ticket of the evaluation of step {n} was given up; the last, "
                f"{self._queue.dead.last}"
            )
        rewards = [float(g.rewards[0]) for g in groups if g.rewards is not None]
        record = {
            "step": n,
            "accuracy": sum(r >= 1.0 for r in rewards) / len(rewards),
            "reward_mean": sum(rewards) / len(rewards),
            "n": len(rewards),
            "dead": len(uids) - len(rewards),
        }
        self._evaluations.append(record)
        self._event("eval", record=record)
        log.info(
            "evaluation at step %d: accuracy %.3f of %d",
            record["step"],
            record["accuracy"],
            record["n"],
        )
        self._phase("training")

    def _evaluated(self) -> bool:
        return bool(self._evaluations) and self._evaluations[-1]["step"] == self._published.n

    # checkpoints ----------------------------------------------------------------------------------
    def _resume(self, found: Checkpoint | None) -> Ledger:
        if found is None:
            return Ledger()
        log.info("resuming from %s", found.folder)
        if found.step > self._config.learner.steps:
            raise ConfigError(
                f"learner.steps = {self._config.learner.steps} is below step {found.step} of "
                f"{found.folder}; raise it"
            )
        state = found.state
        self._policy.load(found.model)
        self._optimizer.load(found.optimizer)
        checkpoint.restore_rng(state)
        self._version = Version(epoch=self._version.epoch, n=found.step)
        self._resume_snapshot(found)
        self._evaluations = list(state["evaluations"])
        self._life = dict(state["life"])
        self._parent = found.folder.name
        self._event("resume", step=found.step)
        return Ledger.restore(state["ledger"])

    def _resume_snapshot(self, found: Checkpoint) -> None:
        """Generators go on from the weights that the checkpoint's life had published last."""
        self._published = Version(epoch=self._version.epoch, n=found.state["published"])
        file = found.anchor if self._published != self._version else None
        if self._config.objective.anchor == "iteration":
            self._policy.keep("anchor", device=self._snapshot_device(), file=file)

    def _save(self) -> None:
        """Write a checkpoint, unless this state is saved, then tell the broker that what it covers
        is done.
        """
        if self._saved == (self._version.n, len(self._evaluations)):
            return
        self._phase("saving")
        with self._pulse.busy(), self._spent.on("save"):
            folder = self._write_checkpoint()
        self._queue.settle()
        self._saved, self._parent = (self._version.n, len(self._evaluations)), folder.name
        log.info("saved %s", folder)
        self._phase("training")

    def _write_checkpoint(self) -> Path:
        life = self._life | {"wall_s": self._wall_s()}
        return checkpoint.save(
            self._run_dir / "checkpoints",
            step=self._version.n,
            epoch=self._version.epoch,
            model=self._policy.masters(),
            optimizer=self._optimizer.state(),
            anchor=self._policy.kept("anchor") if self._published != self._version else (),
            state={
                "published": self._published.n,
                "parent": self._parent,
                "ledger": self._ledger.state(),
                "evaluations": self._evaluations,
                "life": life,
            },
            keep=self._config.learner.keep_checkpoints,
            confirm=self._broker.confirm_epoch,
        )

    # outcome --------------------------------------------------------------------------------------
    def _outcome(self, stopped: bool, usage: dict[str, float]) -> dict[str, Any]:
        syncs = int(self._life["syncs"])
        used = [uid for record in self._metrics.read() for uid in record["tickets"]]
        return {
            "finished": not stopped,
            "steps": self._version.n,
            "wall_s": round(self._wall_s(), 1),
            "held_out_accuracy": {
                "before": self._evaluations[0]["accuracy"] if self._evaluations else None,
                "after": self._evaluations[-1]["accuracy"] if self._evaluations else None,
                "n": self._evaluations[-1]["n"] if self._evaluations else 0,
            },
            "evaluations": self._evaluations,
            "busy": {role: round(share, 3) for role, share in usage.items()},
            "time": self._time,
            "tickets": {
                "issued": self._ledger.next_index,
                "trained": len(set(used)),
                "twice": len(used) - len(set(used)),
                "dead": self._ledger.dead,
            },
            "syncs": {
                "count": syncs,
                "mean_s": round(self._life["sync_s"] / syncs, 3) if syncs else None,
                "max_s": round(self._life["sync_max_s"], 3),
            },
        }

    def _wall_s(self) -> float:
        return self._life["wall_s"] + time.monotonic() - self._started

    def _role_seconds(self) -> dict[tuple[str, str], tuple[float, float]]:
        """(busy, ready) seconds of every live member so far, by role and life."""
        return {(m.role, m.life): (m.busy_s, m.ready_s) for m in self._broker.members()}

    def _usage(self) -> dict[str, float]:
        """Busy share of each role since training began; members of one role are averaged."""
        shares: dict[str, list[float]] = {
            "learner": [self._clock.busy_s / max(1e-9, self._clock.ready_s)]
        }
        for (role, life), (busy, ready) in self._role_seconds().items():
            busy_before, ready_before = self._usage_before.get((role, life), (0.0, 0.0))
            if role != "learner" and ready > ready_before:
                shares.setdefault(role, []).append((busy - busy_before) / (ready - ready_before))
        return {role: sum(values) / len(values) for role, values in shares.items()}

    @contextmanager
    def stopped_by_signals(self) -> Iterator[None]:
        """A signal that asks this process to stop saves a checkpoint and ends it."""

        def note(name: str) -> None:
            self._signal = name

        undo = stop.catch(note)
        try:
            yield
        finally:
            undo()

    def _check_stop(self) -> None:
        self._pulse.beat()
        self._refusals.hear(self._broker.members())
        if self._signal:
            log.info("%s", self._signal)
            raise _Stopped
        if self._broker.stop_reason("learner"):
            raise _Stopped

    def _phase(self, name: str) -> None:
        self._pulse.beat()
        self._event("phase", phase=name)

    def _event(self, kind: str, **fields: Any) -> None:
        self._broker.send("metrics", codec.pack({"kind": kind, **fields}))


@contextmanager
def _locked(run_dir: Path) -> Iterator[None]:
    """Hold the run directory. Raises ConfigError if another learner has it."""
    with (run_dir / "learner.lock").open("a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"{run_dir}: another learner is training here; `sppo-cli down "
                f"{quote(str(run_dir))}` ends it"
            ) from None
        yield


def _make_sender(config: RunConfig, device: str) -> WeightSender:
    if resolve_transport(config, cuda=device.startswith("cuda")) == "nccl":
        from sppo.weights.nccl import NcclSender

        return NcclSender(config.weights.host, device)
    from sppo.weights.gloo import GlooSender

    return GlooSender(config.weights.host)


def _make_team(config: RunConfig, broker: Broker, run_dir: Path) -> Alone:
    """The other ranks, started; they fetch their groups themselves."""
    if config.learner.ranks == 1:
        return Alone()
    device = pick_device(config.learner.device)
    check_device(device, config.learner.ranks - 1)
    secret = {"password": config.broker.password.get_secret_value()}
    settings = {
        "config": to_json(config),
        "broker": config.broker.model_dump(mode="json") | secret,
        "run_key": broker.run_key,
        "run_dir": str(run_dir.resolve()),
        "device": device,
    }
    return Team.lead(
        config.learner.ranks,
        device,
        settings,
        here=is_loopback(config.weights.host),
        owner=str(run_dir.resolve()),
    )


def _use_threads(config: RunConfig, device: str) -> None:
    import torch

    if device == "cpu":
        torch.set_num_threads(max(1, cpu_threads(config.learner.threads) // config.learner.ranks))
    log.info("%s, %d CPU threads, process %d", device, torch.get_num_threads(), os.getpid())


def _crossed(before: int, after: int, every: int) -> bool:
    """Whether a multiple of `every` lies in (before, after]."""
    return after // every > before // every
