"""What Transformers is sampling, with a manager that only keeps what it is told."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sppo.generators.in_flight import Flights
from sppo.types import Completion, SamplingParams, Version

ONE, TWO = Version(epoch="e", n=1), Version(epoch="e", n=2)
SAMPLED = SamplingParams(completions=2, temperature=1.0, max_tokens=8, seed=3)
GREEDY = SamplingParams(completions=2, temperature=0.0, max_tokens=8, seed=3)
EOS = 9


class Manager:
    """As much of the manager as `Flights` touches."""

    def __init__(self) -> None:
        self.handlers: dict[str, Callable[[Any], None]] = {}
        self.output_router = SimpleNamespace(_lock=threading.Lock(), result_handlers=self.handlers)
        self.cancelled: list[str] = []
        self.batch_processor = SimpleNamespace(
            model_runner=SimpleNamespace(_sample=None),
            inputs_and_outputs=SimpleNamespace(requests_in_batch=[]),
            scheduler=SimpleNamespace(active_requests={}, waiting_requests={}),
        )

    def register_result_handler(self, name: str, handler: Callable[[Any], None]) -> None:
        self.handlers[name] = handler

    def cancel_request(self, name: str) -> None:
        self.cancelled.append(name)

    def step(self, *names: str, scores: torch.Tensor) -> tuple[list[int], list[float]]:
        """Tokens and log-probs of one step of these requests; `scores` [rows, V]."""
        self.batch_processor.inputs_and_outputs.requests_in_batch = [
            SimpleNamespace(has_new_token=True, state=SimpleNamespace(request_id=name))
            for name in names
        ]
        out = torch.zeros(2, len(names), dtype=torch.int32)
        self.batch_processor.model_runner._sample(scores[None], out)
        return out[0].tolist(), out[1].view(torch.float32).tolist()


@pytest.fixture
def manager() -> Manager:
    return Manager()


@pytest.fixture
def flights(manager: Manager) -> Flights:
    tokenizer = SimpleNamespace(decode=lambda tokens, **_: " ".join(map(str, tokens)))
    made = Flights(manager, tokenizer, [EOS])
    made.begin(ONE)
    return made


def output(name: str, *tokens: int, error: str | None = None) -> SimpleNamespace:
    return SimpleNamespace(
        request_id=name, generated_tokens=list(tokens), logprobs=[-1.0] * len(tokens), error=error
    )


def test_each_request_draws_for_itself_and_a_greedy_one_takes_the_likeliest(
    manager: Manager, flights: Flights
) -> None:
    torch.manual_seed(0)
    scores = torch.randn(3, 20)

    async def story() -> None:
        flights.expect(["a", "a#0"], SAMPLED)
        flights.expect(["b"], GREEDY)
        alone, _ = manager.step("a", scores=scores[:1])
        flights.landed(["a", "a#0"])
        flights.expect(["a", "a#0"], SAMPLED)  # the same seed again, now beside others
        tokens, logprobs = manager.step("a", "a#0", "b", scores=scores)
        assert tokens[0] == alone[0]
        assert tokens[2] == int(scores[2].argmax())
        wanted = scores.log_softmax(-1)[range(3), tokens]
        assert logprobs == pytest.approx(wanted.tolist(), abs=1e-6)

    asyncio.run(story())


def test_a_completion_tells_which_version_sampled_which_token(
    manager: Manager, flights: Flights
) -> None:
    async def story() -> list[Completion]:
        first, second = flights.expect(["a", "a#0"], SAMPLED)
        # Given three tokens of the first before new weights came, and none of the second
        state = SimpleNamespace(request_id="a", logprobs=[-1.0] * 3)
        manager.batch_processor.scheduler.active_requests = {"a": state}
        flights.begin(TWO)
        # When
        manager.handlers["a"](output("a", 4, 5, 6, 7, EOS))
        manager.handlers["a#0"](output("a#0", 4, 5))
        return [await first, await second]

    # Then
    stopped, cut = asyncio.run(story())
    assert [(s.version, s.start, s.end) for s in stopped.spans] == [(ONE, 0, 3), (TWO, 3, 5)]
    assert (stopped.finish_reason, stopped.text) == ("stop", "4 5 6 7")
    assert [(s.version, s.start, s.end) for s in cut.spans] == [(TWO, 0, 2)]
    assert (cut.finish_reason, cut.text) == ("length", "4 5")


def test_an_error_reaches_who_waits_and_a_forgotten_one_is_cancelled(
    manager: Manager, flights: Flights
) -> None:
    async def story() -> None:
        failed, left = flights.expect(["a", "a#0"], SAMPLED)
        manager.handlers["a"](output("a", error="out of pages"))
        with pytest.raises(RuntimeError, match="Transformers: out of pages"):
            await failed
        flights.forget(["a", "a#0"])
        assert manager.cancelled == ["a#0"]
        assert set(manager.handlers) == {"a"}
        assert not left.done()

    asyncio.run(story())
