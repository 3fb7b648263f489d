"""Completions that Transformers is sampling: what each draws from, which version each of its tokens
is of, and who waits for it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sppo.types import Completion, SamplingParams, Version, VersionSpan


@dataclass(slots=True)
class _Flight:
    """One completion that is being sampled."""

    done: asyncio.Future[Completion]
    starts: list[tuple[int, Version]] = field(default_factory=list)
    """(first token, version) in order; one followed by another with the same start sampled
    nothing.
    """


class Flights:
    """The requests in a manager of Transformers' continuous batching, and the version that samples
    their next tokens.

    flights = Flights(manager, tokenizer, eos)        # takes the manager's sampling step over
    flights.begin(version)
    futures = flights.expect(names, sampling)
    flights.forget(names)
    """

    def __init__(self, manager: Any, tokenizer: Any, eos: Sequence[int]) -> None:
        self._manager = manager
        self._tokenizer = tokenizer
        self._eos = eos
        self._flights: dict[str, _Flight] = {}
        self._draws: dict[str, random.Random | None] = {}
        """Random numbers of each request; None is greedy."""
        self.version: Version | None = None
        manager.batch_processor.model_runner._sample = self._sample

    def expect(
        self, names: Sequence[str], sampling: SamplingParams
    ) -> list[asyncio.Future[Completion]]:
        """Requests to come, all of one prompt: the first names it. To be called before they are
        added.
        """
        assert self.version is not None
        for i, name in enumerate(names):
            seeded = random.Random(f"{sampling.seed} {names[0]} {i}")
            self._draws[name] = seeded if sampling.temperature > 0 else None
            future = asyncio.get_running_loop().create_future()
            self._flights[name] = _Flight(future, [(0, self.version)])
            self._manager.register_result_handler(name, self._finished)
        return [self._flights[name].done for name in names]

    def landed(self, names: Sequence[str]) -> None:
        """Nothing more is drawn for these."""
        for name in names:
            self._draws.pop(name, None)

    def forget(self, names: Sequence[str]) -> None:
        """Cancel those that are still being sampled."""
        for name in names:
            if self._flights.pop(name, None) is not None:
                self._manager.cancel_request(name)
                router = self._manager.output_router
                with router._lock:
                    router.result_handlers.pop(name, None)

    def begin(self, version: Version) -> None:
        """Whatever is in flight samples its next token by this version."""
        scheduler = self._manager.batch_processor.scheduler
        states = [*scheduler.active_requests.values(), *scheduler.waiting_requests.values()]
        # Not its tokens: one that had to make room carries those it had in its prompt.
        sampled = {state.request_id: len(state.logprobs) for state in states}
        for name, flight in self._flights.items():
            flight.starts.append((sampled.get(name, 0), version))
        self.version = version

    def _sample(self, scores: Tensor, output_ids: Tensor) -> None:
        """In place of the manager's own: each request draws from its own random numbers, or takes
        the likeliest token.

        `scores` [1, rows, V] are logits over the temperature; `output_ids` [2, rows] takes tokens
        and, as bits, their float32 log-probs. A greedy request's log-prob is that of temperature 1,
        as with vLLM.
        """
        batch = self._manager.batch_processor.inputs_and_outputs.requests_in_batch
        rows = [self._draws.get(item.state.request_id) for item in batch if item.has_new_token]
        if not rows:  # a step that only fills the cache
            return
        logprob_NV = scores[0, : len(rows)].float().log_softmax(-1)
        cumulative_NV = logprob_NV.exp().cumsum(-1, dtype=torch.float64)
        drawn_N = torch.tensor(
            [[rng.random() if rng else 0.0] for rng in rows], dtype=torch.float64
        )
        at_N = drawn_N.to(scores.device) * cumulative_NV[:, -1:]
        token_N = torch.searchsorted(cumulative_NV, at_N, right=True).clamp_(
            max=logprob_NV.shape[1] - 1
        )
        greedy_N = torch.tensor([[rng is None] for rng in rows], device=scores.device)
        token_N = torch.where(greedy_N, logprob_NV.argmax(-1, keepdim=True), token_N)
        output_ids[0, : len(rows)] = token_N[:, 0].to(output_ids.dtype)
        output_ids[1, : len(rows)] = logprob_NV.gather(-1, token_N)[:, 0].view(torch.int32)

    def _finished(self, output: Any) -> None:
        """In the event loop. What ended before a pause is seen before the pause is."""
        flight = self._flights.pop(output.request_id, None)
        if flight is None or flight.done.done():
            return
        if output.error is not None:
            flight.done.set_exception(RuntimeError(f"Transformers: {output.error}"))
            return
        try:
            flight.done.set_result(self._complete(output, flight))
        except Exception as error:  # noqa: BLE001 - handed to whoever waits for this completion
            flight.done.set_exception(error)

    def _complete(self, output: Any, flight: _Flight) -> Completion:
        tokens = output.generated_tokens
        stopped = tokens[-1] in self._eos
        ends = [start for start, _ in flight.starts[1:]] + [len(tokens)]
        return Completion(
            token_ids=np.asarray(tokens, np.int32),
            behavior_logprobs=np.asarray(output.logprobs, np.float32),
            spans=tuple(
                VersionSpan(version=version, start=start, end=end)
                for (start, version), end in zip(flight.starts, ends, strict=True)
                if start < end
            ),
            finish_reason="stop" if stopped else "length",
            text=self._tokenizer.decode(
                tokens[:-1] if stopped else tokens, skip_special_tokens=True
            ),
        )
