"""[task]: a source or several, a number or a source held out, and what is neither."""

from __future__ import annotations

import pytest

from sppo import config
from sppo.config import TaskConfig
from sppo.errors import ConfigError

LIST = '[{name = "jsonl:a", weight = 2}, {name = "jsonl:b"}]'


def load(*given: str) -> TaskConfig:
    return config.load("paper", [f"task.{item}" for item in given]).task


def test_a_list_of_sources_comes_through_toml_json_and_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted = [("jsonl:a", 2.0), ("jsonl:b", 1.0)]
    found = config.load("paper", [f"task.name={LIST}"])
    assert [(s.name, s.weight) for s in found.task.name if not isinstance(s, str)] == wanted
    assert config.from_json(config.to_json(found)) == found
    monkeypatch.setenv("SPPO_TASK__NAME", '[{"name": "jsonl:a", "weight": 2}, {"name": "jsonl:b"}]')
    assert config.load("paper") == found
    monkeypatch.setenv("SPPO_TASK__NAME", "jsonl:a")
    assert config.load("paper").task.name == "jsonl:a"


def test_what_is_held_out_is_a_number_or_a_source(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load("held_out=3").held_out == 3
    assert load("held_out=parquet:t.parquet").held_out == "parquet:t.parquet"
    monkeypatch.setenv("SPPO_TASK__HELD_OUT", "12")
    assert config.load("paper").task.held_out == 12
    assert [TaskConfig(held_out=n).evaluates for n in (0, 3, "jsonl:t")] == [False, True, True]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("name=5", "task.name = 5: must be text, or a list of tables with name and weight"),
        ("name=[]", "must be text, or a list"),
        ("name=[5]", "an entry is a table with name"),
        ("name=[{name='a', weight=0}]", "weight: .*greater than"),
        ("name=[{nam='a'}]", "name: .*required"),
        ("name=[{name='a', params={x=[1]}}]", "params"),
        ("held_out=-1", "must be a number of prompts, 0 or more, or a source"),
        ("held_out=true", "must be a number"),
        ("held_out=1.5", "must be a number"),
        ("too_long=cut", "'drop' or 'error'"),
        ("chat_template_kwargs={x=[1]}", "x must be text"),
    ],
)
def test_what_is_neither_is_refused(given: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load(given)


def test_one_setting_says_what_the_prompt_is() -> None:
    with pytest.raises(ConfigError, match=r"prompt = .* and messages = 'm': each says"):
        load("prompt={question} Briefly.", "messages=m")


def test_arguments_of_a_list_stand_in_its_entries() -> None:
    with pytest.raises(ConfigError, match="put params into its entries"):
        load("params={n=1}", f"name={LIST}")
