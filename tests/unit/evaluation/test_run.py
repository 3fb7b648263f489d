"""An evaluation from the plan to the figures, with an engine that needs no model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from sppo.errors import ConfigError
from sppo.evaluation import run as evaluation
from sppo.evaluation.run import Plan
from sppo.generators.fake import VOCABULARY, FakeEngine
from sppo.types import SamplingParams
from tests import makers


def shorter(question: str, completions: Sequence[str], data: Mapping[str, Any]) -> list[Any]:
    n = [len(text) for text in completions]
    return [[0.5 if a == b else float(a < b) for b in n] for a in n]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = makers.tiny_model(tmp_path_factory.mktemp("model"), vocabulary=VOCABULARY)
    makers.tiny_tokenizer(Path(folder), vocabulary=VOCABULARY)
    return folder


@pytest.fixture
def task(tmp_path: Path) -> str:
    rows = [{"question": f"w{i} w{i + 1}", "answer": str(i)} for i in range(60)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"jsonl:{tmp_path / 'rows.jsonl'}"


def plan(model: str, task: str, **changes: Any) -> Plan:
    overrides = ["task.held_out=6", "sampling.max_tokens=4", "learner.device=cpu"]
    return Plan(target=model, task=task, overrides=[*overrides, f"model.name={model}"], **changes)


def evaluated(asked: Plan) -> tuple[dict[str, Any], list[Any], list[str]]:
    said: list[str] = []
    found, items = evaluation.run(
        asked, said.append, lambda *words: said.append(" ".join(map(str, words))),
        lambda *_: FakeEngine(),
    )  # fmt: skip
    return found, items, said


def test_answers_are_scored_and_what_is_done_is_said(model: str, task: str) -> None:
    found, items, said = evaluated(plan(model, task, n=5, scorer="last-number", k=3))
    assert (found["n"], found["k"], found["temperature"], len(items)) == (5, 3, 1.0, 5)
    assert set(found["pass_at"]) == {"1", "2", "3"}
    assert said[0] == f"5 held-out prompts of {task}"
    assert said[1].startswith(f"loading {model} into vllm (")
    assert {"answered 5 5", "scoring with last-number", "scored 5 5"} <= set(said)


def test_a_model_against_itself_ties_and_against_a_file_is_compared(
    model: str, task: str, tmp_path: Path
) -> None:
    compares = f"{__name__}:shorter"
    found, items, _ = evaluated(plan(model, task, scorer=compares, against="base"))
    assert (found["against"]["win_rate"], found["against"]["ties"]) == (0.5, 6)
    assert found["accuracy"] is None
    rows = [{"question": i.ticket.question, "answer": "long " * 9} for i in items]
    path = tmp_path / "theirs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found, _, _ = evaluated(plan(model, task, scorer=compares, against=str(path)))
    assert (found["against"]["name"], found["against"]["win_rate"]) == (str(path), 1.0)


def test_a_plan_that_cannot_be_is_refused(model: str, task: str) -> None:
    with pytest.raises(ConfigError, match="is no run, so say what to ask: --task with a preset"):
        evaluation.configure(plan(model, ""))
    with pytest.raises(ConfigError, match=r"--n 9: 6 prompts are held out; .*task.held_out=9"):
        evaluated(plan(model, task, n=9, scorer="last-number"))
    _, config = evaluation.configure(plan(model, task))
    with pytest.raises(ConfigError, match="--temperature 0: 2 greedy answers"):
        evaluation.sampling(Plan(target=model, k=2, temperature=0.0), config)
    with pytest.raises(ConfigError, match="--temperature -1: must be"):
        evaluation.sampling(Plan(target=model, temperature=-1.0), config)
    without = Plan(target=model, task=task, overrides=["task.held_out=0"])
    with pytest.raises(ConfigError, match=r"task\.held_out = 0: no prompt is held out"):
        evaluated(without)


def test_settings_are_the_runs_the_presets_or_the_options(model: str, task: str) -> None:
    _, config = evaluation.configure(plan(model, "quickstart", scorer="exact-match"))
    assert config.task.name == "reasoning-gym:chain_sum"
    assert (config.scorer.name, config.scorer.mode) == ("exact-match", "inline")
    with pytest.raises(ConfigError, match=r"scorer.name = 'nobody'"):
        evaluation.configure(plan(model, task, scorer="nobody"))
    judge = ["scorer.judge.url=http://127.0.0.1:9", "scorer.judge.model=m"]
    asked = Plan(target=model, task=task, scorer="llm-judge", overrides=judge)
    assert evaluation.configure(asked)[1].scorer.judge.model == "m"
    with pytest.raises(ConfigError, match=r"needs scorer\.judge\.url and scorer\.judge\.model"):
        evaluation.configure(plan(model, task, scorer="llm-judge"))
    assert config.compute in ("float32", "bfloat16")
    _, config = evaluation.configure(plan(model, task, engine="transformers"))
    assert (config.task.name, config.generator.engine) == (task, "transformers")
    drawn = evaluation.sampling(plan(model, task), config)
    assert drawn == SamplingParams(completions=1, temperature=0.0, max_tokens=4, seed=0)
