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


def run_check(found: Questions, tokenizer: Any = None, **task: Any) -> Questions:
    return check.prompts(makers.run_config(task=task), found, tokenizer or makers.WordTokenizer())


@pytest.fixture
def tokenizer(tmp_path: Path) -> Any:
    makers.tiny_tokenizer(tmp_path, vocabulary=61)
    return models.load_tokenizer(str(tmp_path))


def test_a_prompt_over_the_limit_is_left_out_and_counted() -> None:
    found = run_check(questions("abc", "abcd", "ab"), max_prompt_tokens=3)
    assert [q.text for q in found.train] == ["abc", "ab"]
    assert found.describe().endswith("; 1 left out as longer than task.max_prompt_tokens")


def test_a_prompt_over_the_limit_is_refused_with_row_and_length_where_that_is_asked() -> None:
    with pytest.raises(
        ConfigError, match=r"task\.max_prompt_tokens = 3: q\.jsonl:2: a prompt of 4 tokens"
    ):
        run_check(questions("abc", "abcd"), max_prompt_tokens=3, too_long="error")


def test_a_side_with_no_short_prompt_is_refused_with_the_length_that_would_do() -> None:
    with pytest.raises(ConfigError, match=r"no prompt to train .* has 5 tokens; raise it"):
        run_check(questions("abcdef", "abcde"), max_prompt_tokens=3)
    sides = Questions(train=questions("a").train, held_out=questions("abcd").train)
    with pytest.raises(ConfigError, match="no prompt held out is that short"):
        run_check(sides, max_prompt_tokens=3)


def test_rows_that_the_chat_template_refuses_are_left_out_and_the_first_is_told(
    tokenizer: Any,
) -> None:
    tokenizer.chat_template = (
        "{% for m in messages %}{% if 'w3' in m['content'] %}{{ raise_exception('no w3') }}{% "
        "endif %}"
        "{{ m['content'] }}{% endfor %}"
    )
    found = run_check(questions("w1", "w2 w3", "w4"), tokenizer)
    assert [q.text for q in found.train] == ["w1", "w4"]
    assert found.left_out.bad == 1
    assert found.left_out.first_bad.startswith(
        "q.jsonl:2: the model's chat template refuses the prompt (messages: user): "
    )
    with pytest.raises(ConfigError, match=r"none of 1 rows .*q\.jsonl:1: .*refuses .*no w3"):
        run_check(questions("w2 w3"), tokenizer)


def test_a_template_that_leaves_nothing_is_named(tokenizer: Any) -> None:
    tokenizer.chat_template = "{# nothing #}"
    with pytest.raises(ConfigError, match=r"q\.jsonl:1: .*no tokens"):
        run_check(questions("w1"), tokenizer)


def test_options_reach_the_chat_template_and_are_refused_where_it_does_not_read_them(
    tokenizer: Any,
) -> None:
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['content'] }}{% endfor %}{% if not thinking %} w1{% endif %}"
    )
    limit = {"max_prompt_tokens": 1, "held_out": 0}
    kept = run_check(questions("w5"), tokenizer, chat_template_kwargs={"thinking": True}, **limit)
    assert len(kept.train) == 1
    with pytest.raises(ConfigError, match="the shortest has 2 tokens"):
        run_check(questions("w5"), tokenizer, **limit)
    with pytest.raises(ConfigError, match=r"kwargs\.thinkin_ = True: .*does not read thinkin_"):
        run_check(questions("w5"), tokenizer, chat_template_kwargs={"thinkin_": True})
    with pytest.raises(ConfigError, match=r"kwargs\.tokenize = True: is no option of a template"):
        run_check(questions("w5"), tokenizer, chat_template_kwargs={"tokenize": True})


def test_a_source_that_has_only_long_prompts_is_named() -> None:
    rows = [
        Question(source=t, text=t, data={}, where="q", origin=i)
        for i, t in enumerate(("a", "abcd"))
    ]
    with pytest.raises(ConfigError, match=r"task\.name\[1\]: none of its prompts is left"):
        run_check(Questions(train=tuple(rows), held_out=(), weights=(1, 1)), max_prompt_tokens=3)


def test_ids_made_in_batches_are_those_of_the_chat_template_and_of_the_tickets(
    tokenizer: Any,
) -> None:
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}w7"
    )
    found = questions("w1 w2", "w3", "w4 w5 w6")
    ids = encode(tokenizer, [q.messages for q in found.train], {})
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
