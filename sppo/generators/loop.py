"""The generator's loop.

Consumes tickets; waits for the engine and for the scorer; unblocks the learner with scored groups.

    lease ── sample K completions ── score ── push        many groups at a time
    heartbeats, lease renewal and weight syncs run beside it

One that is asked to leave takes no more tickets and finishes those in hand; what takes longer than
`DRAIN_S` is handed back.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sppo.config import RunConfig
from sppo.errors import ScorerError, ScorerRefused, ScorerSpent
from sppo.faults import point
from sppo.generators.engine import Engine
from sppo.generators.in_hand import IDLE_S, InHand
from sppo.generators.opponents import both_orders, opponents
from sppo.generators.presence import Presence
from sppo.metrics import BusyClock
from sppo.scorer.base import InlineScorer, Scorer, check_kind
from sppo.scorer.client import HttpScorer
from sppo.scorer.details import bounded
from sppo.scorer.pool import LOAD_S
from sppo.transport.broker import HEARTBEAT_S, GeneratorSide, PushResult, Registry
from sppo.types import Completion, Group, Lease, ScoreRequest, Scores, Ticket
from sppo.weights.receiver import WeightReceiver

log = logging.getLogger(__name__)

FULL_WAIT_S = 0.5
DRAIN_S = 20.0


class _Stopped(Exception):  # noqa: N818 - not an error
    """The run asked everyone to finish."""


class Generator:
    """One engine that works for one run until the run asks to stop."""

    def __init__(
        self, config: RunConfig, broker: GeneratorSide, engine: Engine, scorer: Scorer, name: str
    ) -> None:
        self._config = config
        self._broker = broker
        self._engine = engine
        self._scorer = scorer
        self._name = name
        self._receiver = WeightReceiver(
            broker.mailbox, engine, name, phase_timeout_s=config.weights.phase_timeout_s
        )
        self._presence = Presence(broker.registry, name)
        self._in_hand = InHand(broker.leases, config.generator.max_groups)
        self._leaving = asyncio.Event()
        self._compares: bool | None = None
        """Whether the scorer gave preferences for the first group."""

    async def run(self) -> None:
        """Start the engine and work until the run stops. Raises SppoError when something ends this
        generator.
        """
        await self._presence.take_name()
        await self._engine.start()
        await self._presence.take_name()  # it takes long; who came first has the name
        self._presence.clock = BusyClock()
        log.info("engine ready")
        try:
            async with asyncio.TaskGroup() as tasks:
                services = (
                    self._heartbeat(),
                    self._in_hand.renew(self._config.broker.renew_s),
                    self._ask_engine(),
                    self._receiver.run(),
                    self._drain(),
                )
                for service in services:
                    tasks.create_task(service)
                tasks.create_task(self._work(tasks))
        except BaseExceptionGroup as group:
            # Whatever came first ended the others; it tells the story.
            if not isinstance(group.exceptions[0], _Stopped):
                raise group.exceptions[0] from None
            log.info("asked to stop")
        finally:
            await self._leave()

    def leave(self, reason: str) -> None:
        """Finish what is in hand and end `run`. To be called in the loop's own thread."""
        if not self._leaving.is_set():
            log.info("leaving: %s; %d groups in hand", reason, len(self._in_hand))
            self._in_hand.close()
            self._leaving.set()

    async def _drain(self) -> None:
        await self._leaving.wait()
        await self._in_hand.finished(DRAIN_S)
        while self._receiver.busy:  # to its end, or its deadline: the others wait for this member
            await asyncio.sleep(IDLE_S)
        raise _Stopped

    async def _leave(self) -> None:
        await self._in_hand.give_back()
        if self._leaving.is_set():  # from here on no weight sync waits for this generator
            await self._presence.leave()
        await self._scorer.close()
        await self._engine.close()
        if not self._leaving.is_set():  # last: until then a heartbeat may be missed without blame
            await self._presence.leave()

    async def _heartbeat(self) -> None:
        while True:
            self._presence.in_hand = len(self._in_hand)
            counters = self._scorer.counters if isinstance(self._scorer, InlineScorer) else {}
            await self._presence.beat(self._receiver.applied, self._engine.world_size, counters)
            stop_reason = self._broker.registry.stop_reason
            if reason := await asyncio.to_thread(stop_reason, "workers", self._name):
                if await asyncio.to_thread(stop_reason, "workers"):
                    raise _Stopped
                self.leave(reason)
            await asyncio.sleep(HEARTBEAT_S)

    async def _ask_engine(self) -> None:
        """An engine that has hung answers no more: the heartbeat then shows no progress."""
        while True:
            await self._engine.ping()
            self._presence.answers += 1
            await asyncio.sleep(HEARTBEAT_S)

    async def _work(self, tasks: asyncio.TaskGroup) -> None:
        while lease := await self._in_hand.next(lambda: self._receiver.applied):
            tasks.create_task(self._produce(lease))

    async def _produce(self, lease: Lease) -> None:
        uid, stream = lease.ticket.uid, lease.ticket.stream
        try:
            with self._presence.clock.work():
                group = await self._sample_and_score(lease)
                await self._push(group)
        except ScorerSpent as spent:  # its ticket goes back when the run ends, for the next life
            self._in_hand.close()
            self._presence.spent = str(spent)
            log.warning("nothing more is sampled: %s", spent)
            return
        except (ScorerError, ValueError) as error:  # ValueError: the engine refused this prompt
            attempt, final = f"{self._name}.{lease.attempt}", isinstance(error, ScorerRefused)
            dead = await asyncio.to_thread(
                self._broker.leases.fail, uid, stream, attempt, f"{self._name}: {error}", final
            )
            self._presence.refused(uid, error)
            log.warning(
                "ticket %s failed%s: %s",
                uid,
                " for good" if dead else ", will be tried again",
                error,
            )
        finally:
            self._in_hand.free()
        self._in_hand.done(lease)

    async def _sample_and_score(self, lease: Lease) -> Group:
        ticket, times = lease.ticket, [lease.ticket.issued, time.time()]
        completions = await self._sample(lease)
        times.append(time.time())
        point("generator.sampled")
        beside = opponents(ticket, completions)
        with self._presence.with_scorer():
            scores = await self._scorer.score(_request(ticket, [*completions, *beside]))
            if ticket.against is not None and scores.preferences is not None:
                turned = await self._scorer.score(_request(ticket, [*beside, *completions]))
                scores = both_orders(scores, turned, len(completions))
        point("generator.scored")
        if ticket.stream == "train":
            self._check_kind(scores, ticket.uid)
        group = Group(
            gid=f"{ticket.uid}.{self._name}.{lease.attempt}.{secrets.token_hex(4)}",
            uid=ticket.uid,
            stream=ticket.stream,
            prompt_ids=np.asarray(ticket.prompt_ids, np.int32),
            completions=(*completions, *beside),
            rewards=scores.rewards,
            preferences=scores.preferences,
            details=bounded(scores.details),
            generator=self._name,
            times=(*times, time.time()),
        )
        # A reward is of one answer, whoever stood beside it.
        return group if scores.rewards is None else group.only(range(len(completions)))

    def _check_kind(self, scores: Scores, uid: str) -> None:
        """One scorer, one kind of score: a batch of both could not be trained. Raises
        ScorerRefused.
        """
        scorer = self._config.scorer.url or self._config.scorer.name
        where = f"scorer {scorer}, group {uid}"
        check_kind(scores, self._config.objective, where)
        compares = scores.preferences is not None
        if self._compares is None:
            self._compares = compares
        if compares != self._compares and self._config.objective.link == "none":
            kinds = ("rewards", "preferences")
            raise ScorerRefused(
                f"{where}: gave {kinds[compares]}, and {kinds[not compares]} for an earlier group; "
                "objective.link = 'bradley-terry' makes preferences of rewards"
            )

    async def _sample(self, lease: Lease) -> list[Completion]:
        ticket, tries = lease.ticket, 0
        while True:
            request_id = f"{ticket.uid}.{lease.attempt}.{tries}"
            completions = await self._engine.sample(ticket.prompt_ids, ticket.sampling, request_id)
            self._presence.tokens += sum(len(c.token_ids) for c in completions)
            # An evaluation must be of one version: if a weight sync came in between, sample again.
            if ticket.stream == "train" or all(len(c.spans) == 1 for c in completions):
                return completions
            tries += 1

    async def _push(self, group: Group) -> None:
        while await asyncio.to_thread(self._broker.leases.push, _now(group)) is PushResult.FULL:
            await asyncio.sleep(FULL_WAIT_S)
        point("generator.pushed")


def _now(group: Group) -> Group:
    """As it is pushed."""
    return replace(group, times=(*group.times, time.time()))


def _request(ticket: Ticket, completions: Sequence[Completion]) -> ScoreRequest:
    return ScoreRequest(
        uid=ticket.uid,
        question=ticket.question,
        completions=[c.text for c in completions],
        data=ticket.scorer_data,
        messages=ticket.messages,
        finish_reasons=[c.finish_reason for c in completions],
        lengths=[len(c.token_ids) for c in completions],
        versions=[str(c.spans[-1].version) for c in completions if c.spans],
    )


def make_scorer(config: RunConfig, registry: Registry) -> Scorer:
    """The scorer that the configuration names: in this process, or the live services in the
    registry.
    """
    if config.scorer.mode == "inline":
        settings = config.scorer
        return InlineScorer(
            settings.name, options=settings.class_options, timeout_s=settings.timeout_s
        )

    def urls() -> list[str]:
        if config.scorer.url:
            return [config.scorer.url]
        return [m.address for m in registry.members() if m.role == "scorer"]

    own_s = 0.0 if config.scorer.url else config.scorer.timeout_s + LOAD_S
    if config.scorer.keeps_time:
        own_s = math.inf
    token = config.scorer.token.get_secret_value()
    return HttpScorer(urls, token=token, timeout_s=config.scorer.timeout_s, own_s=own_s)
