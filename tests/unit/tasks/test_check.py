"""The check of every prompt: what a run could not use is named with its row before anything
starts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sppo import models
from sppo.errors import ConfigError
from sppo.tasks import check
from sppo.tasks.prompts import encode
from sppo.tasks.questions import Question, Questions
from sppo.tasks.tickets import TicketFactory
from tests import makers


def questions(*texts: str, **changes: Any) -> Questions:
    rows = [
        Question(
            source=text, text=text, where=f"q.jsonl:{i}", **({"data": {"answer": i}} | changes)
        )
        for i, text in enumerate(texts, start=1)
    ]
    return Questions(train=tuple(rows), held_out=())


def run_check(found: Questions, tokenizer: Any = None, **task: Any) -> None:
    check.rows(found)
    check.prompts(makers.run_config(task=task), found, tokenizer or makers.WordTokenizer())


@pytest.fixture
def tokenizer(tmp_path: Path) -> Any:
    makers.tiny_tokenizer(tmp_path, vocabulary=61)
    return models.load_tokenizer(str(tmp_path))


def test_a_prompt_over_the_limit_is_refused_with_setting_row_and_length() -> None:
    with pytest.raises(
        ConfigError, match=r"task\.max_prompt_tokens = 3: q\.jsonl:2: a prompt of 4 tokens"
    ):
        run_check(questions("abc", "abcd"), max_prompt_tokens=3)


def test_the_row_that_the_chat_template_refuses_is_named(tokenizer: Any) -> None:
    tokenizer.chat_template = (
        "{% for m in messages %}{% if 'w3' in m['content'] %}{{ raise_exception('no w3') }}{% "
        "endif %}"
        "{{ m['content'] }}{% endfor %}"
    )
    with pytest.raises(
        ConfigError, match=r"q\.jsonl:2: the model's chat template refuses .*user.*no w3"
    ):
        run_check(questions("w1", "w2 w3", "w4"), tokenizer)


def test_a_template_that_leaves_nothing_is_named(tokenizer: Any) -> None:
    tokenizer.chat_template = "{# nothing #}"
    with pytest.raises(ConfigError, match=r"q\.jsonl:1: .*no tokens"):
        run_check(questions("w1"), tokenizer)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (2**64, "cannot be sent"),
        (float("nan"), "q.jsonl:1"),
        ((1, 2), "does not come back"),
        ("\ud800", "cannot be sent"),
    ],
)
def test_a_column_that_the_codec_would_not_carry_is_named(value: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        run_check(questions("abc", data={"answer": value}))


def test_a_row_that_is_too_large_is_named() -> None:
    with pytest.raises(ConfigError, match=r"q\.jsonl:1: 17,0.* bytes with all its columns"):
        run_check(questions("abc", data={"answer": "x" * 17_000_000}))


def test_ids_made_in_batches_are_those_of_the_chat_template_and_of_the_tickets(
    tokenizer: Any,
) -> None:
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}w7"
    )
    found = questions("w1 w2", "w3", "w4 w5 w6")
    ids = encode(tokenizer, [q.messages for q in found.train])
    alone = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": q.text}], add_generation_prompt=True, return_dict=False
        )
        for q in found.train
    ]
    assert ids == alone
    factory = TicketFactory(makers.run_config(), found, tokenizer)
    assert sorted(list(factory.training(i, 0).prompt_ids) for i in range(3)) == sorted(ids)


def test_prompts_that_must_be_short_are_not_tokenised_and_others_are(tokenizer: Any) -> None:
    # Given a tokenizer that adds no character, of which every word here is several characters
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    asked: list[str] = []

    class Counting:
        backend_tokenizer = tokenizer.backend_tokenizer
        apply_chat_template = tokenizer.apply_chat_template

        def __call__(self, texts: list[str], **kwargs: Any) -> Any:
            asked.extend(texts)
            return tokenizer(texts, **kwargs)

    # When prompts within and beyond 8 characters, and one that is not ASCII, are checked against 8
    # tokens
    run_check(questions("w1 w2", "w1 w2 w3 w4", "wé"), Counting(), max_prompt_tokens=8)
    # Then only those that might be longer were tokenised
    assert asked == ["w1 w2 w3 w4", "wé"]
