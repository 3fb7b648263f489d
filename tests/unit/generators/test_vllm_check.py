"""What vLLM says, in one line, and what becomes of a check that fails or hangs."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from sppo.errors import ConfigError
from sppo.generators import vllm_check
from sppo.generators.vllm_check import in_one_line
from tests import makers

FRAMED = """1 validation error for ModelConfig
  Value error, the model has no room [type=value_error, input_value=ArgsKwargs, input_type=x]
    For further information visit https://errors.pydantic.dev"""
UNKNOWN = """1 validation error for ModelConfig
  Value error, Model architectures ['NewModel'] are not supported for now. [type=value_error]"""


FIELD = """1 validation error for CacheConfig
block_size
  Input should be a valid integer, not a word [type=int_parsing, input_value='x']
    For further information visit https://errors.pydantic.dev"""


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (FIELD, "block_size: Input should be a valid integer, not a word"),
        (FRAMED, "the model has no room"),
        ("\n  plain words\nmore", "plain words"),
        (UNKNOWN, "it does not know 'NewModel' (model.name = 'm'); try generator.engine = "),
    ],
)
def test_the_reason_stands_alone(said: str, line: str) -> None:
    assert in_one_line(said, "m").startswith(line)


def check_that_runs(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the command of the check."""
    start = subprocess.Popen

    def other(_: list[str], **options: Any) -> subprocess.Popen[str]:
        return start([sys.executable, "-c", script], **options)

    monkeypatch.setattr(vllm_check.subprocess, "Popen", other)


def test_a_refusal_ends_what_went_on_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    check_that_runs("import sys; sys.stdin.read(); print('no room')", monkeypatch)
    done = []

    def checked() -> None:
        with vllm_check.beside(makers.run_config()) as take:
            take("m")
            done.append("the other")

    with pytest.raises(ConfigError, match=r"generator\.engine = 'vllm': no room"):
        checked()
    assert done


def test_what_went_on_beside_it_is_told_first_and_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    check_that_runs("import time; time.sleep(60)", monkeypatch)
    with pytest.raises(ConfigError, match="no such row"), vllm_check.beside(makers.run_config()):
        raise ConfigError("no such row")


def test_silence_is_consent_and_a_check_that_hangs_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check_that_runs("import sys; sys.stdin.read()", monkeypatch)
    with vllm_check.beside(makers.run_config()) as take:
        take("m")
    monkeypatch.setattr(vllm_check, "DEADLINE_S", 0.3)
    check_that_runs("import time; time.sleep(60)", monkeypatch)
    with vllm_check.beside(makers.run_config()) as take:
        take("m")


def test_a_name_that_vllm_has_not_is_told_with_the_one_that_is_near() -> None:
    vllm_check.check_names({"enforce_eager": True, "enable_log_requests": True})
    with pytest.raises(ConfigError) as refused:
        vllm_check.check_names({"max_batched_tokens": 1})
    assert str(refused.value) == (
        "generator.engine = 'vllm': generator.vllm.max_batched_tokens is no argument of its "
        "engine; did you mean max_num_batched_tokens?"
    )


def test_names_are_read_without_an_import_and_left_to_vllm_where_they_cannot_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = (
        "import sys; from sppo.generators.vllm_check import argument_names;"
        "print(len(argument_names()), 'vllm' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    count, imported = done.stdout.split()
    assert int(count) > 100
    assert imported == "False"
    monkeypatch.setattr(vllm_check, "argument_names", lambda: ())
    vllm_check.check_names({"max_batched_tokens": 1})
