"""Tickets from questions."""

from __future__ import annotations

import pytest

from sppo import config
from sppo.tasks import questions
from sppo.tasks.tickets import TicketFactory, held_out_number, training_index, training_uid
from sppo.types import Answer
from tests.makers import WordTokenizer


@pytest.fixture(scope="module")
def quickstart() -> config.RunConfig:
    return config.load("quickstart")


@pytest.fixture(scope="module")
def split(quickstart: config.RunConfig) -> questions.Questions:
    return questions.load(quickstart.task, seed=0)


def test_no_held_out_question_is_ever_a_training_ticket(
    quickstart: config.RunConfig, split: questions.Questions
) -> None:
    # Given every ticket of two passes over the training questions, under two seeds
    held_out = {q.text for q in split.held_out}
    for seed in (0, 1):
        run = quickstart.model_copy(update={"seed": seed})
        factory = TicketFactory(run, questions.load(run.task, seed), WordTokenizer())
        issued = [factory.training(i, 0).question for i in range(2 * len(split.train))]
        # Then none asks a held-out question, and a pass asks each question once
        assert not held_out & set(issued)
        assert len(set(issued[: len(split.train)])) == len(split.train)


def test_the_same_index_always_makes_the_same_ticket(
    quickstart: config.RunConfig, split: questions.Questions
) -> None:
    one, other = (TicketFactory(quickstart, split, WordTokenizer()) for _ in range(2))
    other.training(4000, 0)  # another pass first
    assert one.training(7, 3) == other.training(7, 3)
    assert training_index(training_uid(7)) == 7


def test_a_uid_leads_back_to_the_whole_prompt(
    quickstart: config.RunConfig, split: questions.Questions
) -> None:
    factory = TicketFactory(quickstart, split, WordTokenizer())
    for ticket in (factory.training(9000, 0), *factory.evaluation("ab-3", 3)[7:9]):
        assert factory.messages(ticket.uid) == ticket.messages


def test_a_uid_names_its_index() -> None:
    assert training_index(training_uid(123456)) == 123456


def test_an_evaluation_asks_each_held_out_question_once_and_greedily(
    quickstart: config.RunConfig, split: questions.Questions
) -> None:
    factory = TicketFactory(quickstart, split, WordTokenizer())
    tickets = factory.evaluation("5", 5)
    assert [t.question for t in tickets] == [q.text for q in split.held_out]
    assert len({t.uid for t in tickets}) == len(tickets)
    for ticket in tickets:
        assert ticket.stream == "eval"
        assert (ticket.sampling.completions, ticket.sampling.temperature) == (1, 0.0)
        assert ticket.min_version == 5
        assert (ticket.paired, ticket.against) == (False, None)


def test_an_evaluation_against_known_answers_asks_those_questions_alone(
    quickstart: config.RunConfig, split: questions.Questions
) -> None:
    factory = TicketFactory(quickstart, split, WordTokenizer())
    answer = Answer(token_ids=(1,), text="4", finish_reason="stop")
    tickets = factory.evaluation("7", 7, against={3: answer, 9: answer})
    assert [held_out_number(t.uid) for t in tickets] == [3, 9]
    assert [t.question for t in tickets] == [split.held_out[i].text for i in (3, 9)]
    assert all(t.paired and t.against == answer for t in tickets)
    first = factory.evaluation("0", 0, paired=True)
    assert len(first) == len(split.held_out)
    assert all(t.paired and t.against is None for t in first)
