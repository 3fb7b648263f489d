"""One life of the learner: put together, run, and ended with a checkpoint and an outcome."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import Any

from sppo import compute, families, locks, models
from sppo.config import RunConfig, is_loopback, to_json
from sppo.errors import ConfigError, RoleDiedError, ScorerSpent
from sppo.learner import by_hand, objectives, rank, ranks
from sppo.learner.base_answers import BaseAnswers
from sppo.learner.batches import Batches
from sppo.learner.evaluation import Evaluation
from sppo.learner.fleet import Fleet
from sppo.learner.groups import InHand
from sppo.learner.kept import Kept
from sppo.learner.lineage import Lineage
from sppo.learner.loop import Learner
from sppo.learner.model import check_device, export_dtype
from sppo.learner.notes import Notes
from sppo.learner.orders import Export, Rank
from sppo.learner.parity import Parity
from sppo.learner.place import Place
from sppo.learner.pulse import Pulse
from sppo.learner.queue import GroupQueue
from sppo.learner.ranks import Ranks, Solo
from sppo.learner.records import Records
from sppo.learner.refusals import DeadLetters, Refusals
from sppo.learner.samples import Samples
from sppo.learner.saving import Saving
from sppo.learner.schedule import Schedule
from sppo.learner.skips import Skips
from sppo.learner.spans import Spans
from sppo.learner.spool import Spool
from sppo.learner.stops import Stopped, Stops
from sppo.learner.turn import Turn
from sppo.learner.wishes import Wishes
from sppo.scorer import rules
from sppo.tasks import check, fingerprint, questions
from sppo.tasks.tickets import TicketFactory
from sppo.transport.broker import Broker
from sppo.weights.protocol import WeightSender
from sppo.weights.publisher import WeightPublisher

log = logging.getLogger(__name__)


def run(
    config: RunConfig, broker: Broker, run_dir: Path, place: Place | None = None
) -> dict[str, Any]:
    """Train until `learner.steps` or until the run asks to stop; returns the outcome for the
    summary.

    `place`: rank 0's, where the other ranks are started by hand.

    Raises SppoError with what went wrong. A checkpoint is written before a requested stop, and when
    the scorer is spent.
    """
    config = compute.here(config)
    with _locked(run_dir), Pulse(broker.registry) as pulse:
        with pulse.busy():
            config = families.settled(config, models.resolve(config.model))
            team = _make_team(config, broker, run_dir, place)
        try:
            outcome = _live(config, broker, run_dir, pulse, team)
        except BaseException as error:
            lost = team.lost() if isinstance(error, RuntimeError | RoleDiedError) else ""
            team.close(at_once=True)  # where the others wait nobody knows
            if lost:
                raise RoleDiedError(f"{lost}; what it said is in the learner's log") from error
            raise
        team.close()
        return outcome


def _live(
    config: RunConfig, broker: Broker, run_dir: Path, pulse: Pulse, team: Ranks
) -> dict[str, Any]:
    with pulse.busy():
        learner, own = _assemble(config, broker, run_dir, pulse, team)
    with learner.stops.by_signals():
        learner.lineage.begin()
        try:
            learner.run()
            stopped = False
        except Stopped:
            stopped = True
            log.info("asked to stop at step %d", learner.lineage.n)
        except ScorerSpent:
            _finish(config, learner, own, run_dir, stopped=True)
            raise
        except Exception:
            team.noticed()
            learner.saving.rescue()
            raise
        return _finish(config, learner, own, run_dir, stopped=stopped)


def _finish(
    config: RunConfig, learner: Learner, own: Rank, run_dir: Path, *, stopped: bool
) -> dict[str, Any]:
    """A checkpoint; the export of a run that is over; the outcome."""
    learner.wishes.drop()
    records, lineage = learner.records, learner.lineage
    busy, time = records.usage.shares(), records.usage.by_step(lineage.n)
    learner.saving.begin()
    learner.saving.finish()
    if not stopped:
        with records.long_work("exporting", "export"):
            folder = run_dir / "export"
            dtype = export_dtype(config, own.policy)
            (left,) = own.stream(Export(folder=str(folder), dtype=dtype))
            # In bf16 generators ran, and answered with, weights rounded just so.
            records.exported(dtype, left if config.compute == "float32" else None)
            models.load_tokenizer(models.resolve(config.model)).save_pretrained(str(folder))
    learner.fleet.close()
    records.phase("stopped" if stopped else "done")
    return records.outcome(lineage, stopped=stopped, busy=busy, time=time)


def _assemble(
    config: RunConfig, broker: Broker, run_dir: Path, pulse: Pulse, team: Ranks
) -> tuple[Learner, Rank]:
    """Resumed from the newest checkpoint, if there is one. Raises ConfigError."""
    records = Records(config, broker, run_dir, pulse)
    records.phase("loading the model")
    own, trainer = rank.make(config, team, config.learner.device, InHand(team, ()), pulse.beat)
    reference = "reference" in objectives.make(config.objective).needs
    lineage = Lineage(config, own, broker.tickets, run_dir / "checkpoints", reference=reference)
    if lineage.resume():
        records.event("resume", step=lineage.n)
    records.keep_until(lineage.n)
    tokenizer = models.load_tokenizer(models.resolve(config.model))
    found = questions.load(config.task, config.seed, rules.readable(config.scorer))
    found = check.prompts(config, found, tokenizer)
    fingerprint.refuse_changes(run_dir, found)  # the file may have changed since `up`
    tickets = TicketFactory(config, found, tokenizer)
    samples = Samples(config, run_dir, tokenizer, tickets)
    base = BaseAnswers(run_dir, tokenizer)
    spans = Spans(run_dir)
    spans.resume(lineage.n)
    samples.resume(lineage.n, [record["step"] for record in lineage.evaluations])
    kept = Kept(run_dir, config.learner)
    notes = Notes(records=records, kept=kept, samples=samples, spans=spans)
    queue = GroupQueue(
        broker, tickets, lineage.ledger, Spool(run_dir),
        limits=config.broker,
        vocabulary=own.policy.vocabulary,
        max_reward=config.objective.max_reward,
        dead=DeadLetters(records.event),
    )  # fmt: skip
    stops = Stops(broker.registry, pulse, Refusals(records.event))
    publisher = WeightPublisher(
        broker.registry, broker.mailbox, _make_sender(config, own.policy.device),
        phase_timeout_s=config.weights.phase_timeout_s,
        alone_timeout_s=config.generator.start_timeout_s,
    )  # fmt: skip
    turn = Turn(config, broker.run_key, records, stops)
    fleet = Fleet(config, broker.registry, publisher, own, records, stops, turn)
    evaluation = Evaluation(config, queue, fleet, records, notes, base, stops)
    saving = Saving(lineage, queue, records)
    learner = Learner(
        schedule=Schedule.of(config),
        lineage=lineage,
        trainer=trainer,
        queue=queue,
        batches=Batches(config, lineage, queue, fleet, records, stops),
        skips=Skips(config.optimizer.max_skipped),
        fleet=fleet,
        evaluation=evaluation,
        parity=Parity(config, own, turn.within("checking parity", trainer.mismatch), records),
        records=records,
        notes=notes,
        saving=saving,
        stops=stops,
        wishes=Wishes(run_dir, lineage, queue, fleet, evaluation, saving, records, stops, pulse),
    )
    return learner, own


@contextmanager
def _locked(run_dir: Path) -> Iterator[None]:
    """Hold the run directory. Raises ConfigError if another learner has it."""
    refusal = ConfigError(
        f"{run_dir}: another learner is training here; `sppo-cli down {quote(str(run_dir))}` "
        "ends it"
    )
    with locks.held(run_dir / "learner.lock", refusal):
        yield


def _make_sender(config: RunConfig, device: str) -> WeightSender:
    if config.weights.transport == "nccl":
        from sppo.weights.nccl import NcclSender

        return NcclSender(config.weights.host, device)
    if config.weights.transport == "shared":
        from sppo.weights.shared import SharedSender

        return SharedSender(config.weights.host, device)
    from sppo.weights.gloo import GlooSender

    return GlooSender(config.weights.host)


def _make_team(config: RunConfig, broker: Broker, run_dir: Path, place: Place | None) -> Ranks:
    """The other ranks, started or met; they fetch their groups themselves."""
    if config.learner.ranks == 1:
        return Solo()
    device = config.learner.device
    settings: dict[str, Any] = {
        "config": to_json(config),
        "run_key": broker.run_key,
        "run_dir": str(run_dir.resolve()),
    }
    if place is not None:
        team = by_hand.meet(place, device, config.rank_deadline_s)
        team.broadcast(settings)
        return team
    check_device(device, config.learner.ranks - 1)
    secret = {"password": config.broker.password.get_secret_value()}
    settings |= {"broker": config.broker.model_dump(mode="json") | secret, "device": device}
    return ranks.lead(
        config.learner.ranks,
        device,
        settings,
        here=is_loopback(config.weights.host),
        owner=str(run_dir.resolve()),
        deadline_s=config.rank_deadline_s,
    )
