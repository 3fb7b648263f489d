"""The checks before a start: which comes before which, and where they are done."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from sppo import config, models
from sppo.config import RunConfig
from sppo.errors import ConfigError
from sppo.generators import vllm_check
from sppo.launch import preflight
from tests import makers


def with_rows(folder: Path, *rows: str, **settings: str) -> RunConfig:
    """A run on a file of these rows, with a model that is not there."""
    (folder / "q.jsonl").write_text("\n".join(rows) + "\n")
    given = {
        "task.name": f"jsonl:{folder / 'q.jsonl'}", "task.held_out": "0",
        "task.prompt": "{question}",
        "task.max_prompt_tokens": "64", "model.name": "/no/such/model",
        "generator.engine": "transformers", "learner.device": "cpu",
    } | settings  # fmt: skip
    return config.load("quickstart", [f"{k}={v}" for k, v in given.items()], environment=False)


GOOD = [json.dumps({"question": f"{i} + 1?", "answer": str(i + 1)}) for i in range(8)]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ('{"question": "a"', "q.jsonl:9"),
        ('{"question": "what?", "answer": "no number"}', "q.jsonl:9"),
        ('{"question": "big?", "answer": "1", "n": 1000000000000000000000000}', "q.jsonl:9"),
    ],
)
def test_rows_of_which_most_are_bad_are_told_before_a_model_is_looked_for(
    row: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "resolve", lambda _: pytest.fail("the model was looked for"))
    with pytest.raises(ConfigError, match=words):
        preflight.check(with_rows(tmp_path, *GOOD, *[row] * 9), print)


def test_a_broker_that_is_not_there_is_told_before_a_model_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "resolve", lambda _: pytest.fail("the model was looked for"))
    run = with_rows(tmp_path, *GOOD, **{"broker.url": "redis://127.0.0.1:1"})
    with pytest.raises(ConfigError, match="is the server running"):
        preflight.check(run, print)


def test_a_service_that_does_not_answer_is_told_before_a_model_and_vllm_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "resolve", lambda *_: pytest.fail("the model was looked for"))
    monkeypatch.setattr(vllm_check, "beside", lambda _: pytest.fail("vLLM was started"))
    run = with_rows(
        tmp_path, *GOOD, **{"scorer.url": "http://127.0.0.1:9", "generator.engine": "vllm"}
    )
    with pytest.raises(ConfigError, match=r"scorer.url = 'http://127.0.0.1:9"):
        preflight.check(run, print)


def test_an_engine_that_is_not_installed_is_named_first_unless_it_runs_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    vllm = with_rows(tmp_path, "no row", **{"generator.engine": "vllm"})
    with pytest.raises(ConfigError, match="vLLM is not installed"):
        preflight.check(vllm, print)
    with pytest.raises(ConfigError, match=r"q\.jsonl:1"):
        preflight.check(vllm, print, alone=True)


def test_a_supervisor_is_light_after_the_checks(tmp_path: Path) -> None:
    # Given a process that has loaded no library, as `sppo-cli up` is one, and a run that passes
    model = makers.tiny_model(tmp_path / "model")
    makers.tiny_tokenizer(tmp_path / "model", vocabulary=61)
    run = with_rows(tmp_path, *GOOD, **{"model.name": model})
    script = f"""
import sys
from pathlib import Path
from sppo import config
from sppo.launch import preflight
run = config.from_json({config.to_json(run)!r})
folder = Path({str(tmp_path / "run")!r})
folder.mkdir()
preflight.at_once(run, folder, role="up")
tell = lambda words: print(words, flush=True)
print(preflight.thorough(run, folder, tell, role="up", accept=False))
print(*sorted({{"torch", "transformers", "tokenizers", "safetensors"}} & sys.modules.keys()))
"""
    # When it has checked it
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    # Then what was found is shown and kept, and the libraries are not here
    assert done.returncode == 0, done.stderr
    told, anew, loaded = done.stdout.splitlines()
    assert "8" in told
    assert (anew, loaded) == ("False", "")
    assert (tmp_path / "run" / "data.json").exists()
