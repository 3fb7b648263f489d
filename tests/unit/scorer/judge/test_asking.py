"""One question: kept answers, the forms that endpoints take, what cannot be read."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sppo.config import JudgeConfig
from sppo.errors import ScorerError, ScorerRefused, ScorerSpent
from sppo.scorer.judge import patience
from sppo.scorer.judge.asking import FIRST_ANSWERS, Asker, Verdict
from sppo.scorer.judge.endpoint import Endpoint
from sppo.scorer.judge.patience import Patient
from sppo.scorer.judge.store import Store
from tests.unit.scorer.judge.fake import Fake, Handler, chat, error, http, says, serve

Test = Callable[[Asker, Fake], Awaitable[None]]


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_S", 0.001)
    monkeypatch.setattr(patience, "LONGEST_S", 0.01)


def messages(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def ask(handler: Handler, test: Test, *, kept: Store | None = None, **options: Any) -> Fake:
    async def go() -> Fake:
        async with serve(handler) as fake:
            settings = JudgeConfig(url=fake.url, model="m", **options)
            one = Endpoint(fake.url, key="", timeout_s=5.0, at_once=4)
            answers = kept or Store("", max_calls=settings.max_calls)
            await test(Asker(settings, Patient(one, at_once=4), answers), fake)
            await one.close()
            return fake

    return asyncio.run(go())


def test_a_question_is_paid_for_once() -> None:
    async def test(asker: Asker, _: Fake) -> None:
        first = await asker.ask(messages("x"))
        assert first == Verdict(value=pytest.approx(0.75), words="A")
        assert await asker.ask(messages("x")) == first
        await asker.ask(messages("x"), sample=1)
        await asker.ask(messages("y"))
        assert (asker.counts.calls, asker.counts.cached) == (3, 1)
        assert (asker.counts.prompt_tokens, asker.counts.answer_tokens) == (300, 3)

    fake = ask(says(chat("A", {"A": 0.75, "B": 0.25})), test)
    assert fake.bodies[0] == {
        "model": "m", "messages": messages("x"), "temperature": 0.0, "max_tokens": 16,
        "logprobs": True, "top_logprobs": 20,
    }  # fmt: skip


def no_logprobs(most: int) -> Handler:
    async def handle(writer: asyncio.StreamWriter, body: dict[str, Any], _: int) -> None:
        if body.get("top_logprobs", 0) > most:
            writer.write(error("400 Bad Request", f"top_logprobs must be at most {most}"))
        else:
            writer.write(chat("B", {"B": 0.6, "A": 0.4} if body.get("top_logprobs") else None))

    return handle


def test_an_endpoint_gives_as_many_log_probs_as_it_does(caplog: pytest.LogCaptureFixture) -> None:
    async def fewer(asker: Asker, _: Fake) -> None:
        assert (await asker.ask(messages("x"))).value == pytest.approx(0.4)
        assert (await asker.ask(messages("y"))).value == pytest.approx(0.4)

    fake = ask(no_logprobs(5), fewer)
    assert [body.get("top_logprobs") for body in fake.bodies] == [20, 5, 5]
    assert not caplog.records


@pytest.mark.parametrize("handler", [no_logprobs(0), says(chat("B"))])
def test_without_log_probs_verdicts_are_taken_and_it_is_said_once(
    handler: Handler, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(asker: Asker, _: Fake) -> None:
        with caplog.at_level(logging.WARNING):
            for text in "xyz":
                assert (await asker.ask(messages(text))).value == 0.0

    fake = ask(handler, test)
    assert "logprobs" not in fake.bodies[-1]
    assert [record.message for record in caplog.records if "no log-probs" in record.message]
    assert len(caplog.records) == 1


@pytest.mark.parametrize("handler", [no_logprobs(0), says(chat("B"))])
def test_where_they_are_required_the_endpoint_is_refused(handler: Handler) -> None:
    async def test(asker: Asker, _: Fake) -> None:
        with pytest.raises(ScorerRefused, match=r"logprobs = 'required': .* gives no log-probs"):
            await asker.ask(messages("x"))

    ask(handler, test, logprobs="required")


@pytest.mark.parametrize("handler", [no_logprobs(0), says(chat("B"))])
def test_where_they_are_required_no_call_beside_that_one_or_after_it_is_taken(
    handler: Handler,
) -> None:
    async def test(asker: Asker, _: Fake) -> None:
        # When several questions are under way as it shows, and one more is asked later
        beside = [asker.ask(messages(text)) for text in "abcd"]
        found = [*await asyncio.gather(*beside, return_exceptions=True)]
        found += await asyncio.gather(asker.ask(messages("e")), return_exceptions=True)
        # Then each is refused, and no answer is kept for the next life
        assert [type(each) for each in found] == [ScorerRefused] * 5
        assert asker.counts.calls == 0

    ask(handler, test, logprobs="required")


def test_none_are_asked_for_where_they_are_off() -> None:
    async def test(asker: Asker, _: Fake) -> None:
        assert (await asker.ask(messages("x"))).value == 1.0

    fake = ask(says(chat("A")), test, logprobs="off")
    assert "logprobs" not in fake.bodies[0]


def test_the_other_name_of_max_tokens_is_learned() -> None:
    async def test(asker: Asker, _: Fake) -> None:
        assert (await asker.ask(messages("x"))).value == 1.0

    refusal = error("400 Bad Request", "use 'max_completion_tokens' instead of 'max_tokens'")
    fake = ask(says(refusal, chat("A")), test, logprobs="off")
    assert fake.bodies[1]["max_completion_tokens"] == 16
    assert "max_tokens" not in fake.bodies[1]


def test_a_question_that_is_refused_cannot_be_read_and_costs_nothing() -> None:
    async def test(asker: Asker, _: Fake) -> None:
        verdict = await asker.ask(messages("x"))
        assert math.isnan(verdict.value)
        assert "the prompt is too long" in verdict.words
        assert (asker.counts.refused, asker.counts.calls) == (1, 0)
        assert (await asker.ask(messages("y"))).value == 1.0

    ask(says(error("400 Bad Request", "the prompt is too long"), chat("A")), test, max_calls=1)


def test_a_limit_of_calls_counts_answers_alone() -> None:
    async def test(asker: Asker, _: Fake) -> None:
        with pytest.raises(ScorerError, match="boom"):
            await asker.ask(messages("x"))
        await asker.ask(messages("x"))
        await asker.ask(messages("x"))  # kept
        with pytest.raises(ScorerSpent, match=r"max_calls"):
            await asker.ask(messages("y"))

    fake = ask(says(*[http(b"boom", "500 X")] * patience.TRIES, chat("A")), test, max_calls=1)
    assert len(fake.bodies) == patience.TRIES + 1


def test_a_judge_that_never_answers_to_the_point_is_told_with_its_words() -> None:
    async def test(asker: Asker, _: Fake) -> None:
        for n in range(FIRST_ANSWERS - 1):
            assert math.isnan((await asker.ask(messages(str(n)))).value)
        with pytest.raises(ScorerRefused, match=r"none of 16 answers says the letter A, B or C"):
            await asker.ask(messages("x"))

    ask(says(chat("I am a teapot", finish="length")), test)


def test_one_that_did_once_is_a_judge() -> None:
    async def test(asker: Asker, _: Fake) -> None:
        await asyncio.gather(*(asker.ask(messages(str(n))) for n in range(FIRST_ANSWERS + 2)))
        assert asker.counts.unreadable == FIRST_ANSWERS + 1

    ask(says(chat("A"), chat("I am a teapot", finish="length")), test)


def test_an_answer_that_was_cut_says_so() -> None:
    async def test(asker: Asker, _: Fake) -> None:
        words = (await asker.ask(messages("x"))).words
        assert words == "Let me think (cut at scorer.judge.max_tokens = 16)"

    ask(says(chat("Let me\nthink", finish="length")), test)
