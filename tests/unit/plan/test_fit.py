"""What does not fit is told with setting, value and a mend that was tried."""

from __future__ import annotations

import pytest

from sppo import config
from sppo.config import RunConfig
from sppo.plan import fit, gpus, known, learner
from tests import families


def run(preset: str, *given: str) -> RunConfig:
    return config.load(preset, list(given), environment=False)


@pytest.mark.parametrize(
    ("given", "gpu", "setting", "mend"),
    [
        (["learner.ranks=1"], "h100", "learner.ranks = 1", "set learner.ranks = 2"),
        (
            ["learner.recompute=off", "learner.micro_batch_tokens=32768"], "h100",
            "learner.recompute = 'off'", "set learner.recompute = 'on'",
        ),
        (
            ["learner.ranks=4", "learner.micro_batch_tokens=200000"], "h100",
            "learner.micro_batch_tokens = 200000", "set learner.micro_batch_tokens = 1535",
        ),
    ],
)  # fmt: skip
def test_one_change_is_named_where_one_is_enough(
    given: list[str], gpu: str, setting: str, mend: str
) -> None:
    words = fit.learner_on(run("math-7b", *given), gpus.named(gpu))
    assert words.startswith(setting)
    assert words.removesuffix(", or adapter.rank = 32").endswith(mend)
    assert "\n" not in words
    name, _, value = mend.removeprefix("set ").partition(" = ")
    mended = run("math-7b", *given, f"{name}={value.strip(chr(39))}")
    assert fit.learner_on(mended, gpus.named(gpu)) == ""


def test_adapters_are_a_way_out_on_few_gpus() -> None:
    words = fit.learner_on(run("math-7b", "learner.ranks=1"), gpus.named("40GB"))
    assert words.endswith("set learner.ranks = 8, or adapter.rank = 32")
    adapted = run("math-7b", "learner.ranks=1", "adapter.rank=32")
    assert fit.learner_on(adapted, gpus.named("40GB")) == ""


def test_adapters_that_a_family_does_not_take_are_no_way_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(known, "config_of", lambda _: families.tiny("nemotron_h"))
    given = run("quickstart", "model.name=tiny nemotron_h")
    assert not fit._fits(fit.with_change(given, ("adapter.rank", 32)), gpus.named("h100"))


def test_what_nothing_mends_says_so() -> None:
    words = fit.learner_on(run("math-7b"), gpus.named("4GB"))
    assert words.endswith("choose a smaller model or a larger GPU")


def test_an_engine_that_holds_no_completion_is_told() -> None:
    small = gpus.named("16GB")
    words = fit.generator_on(run("math-7b"), small)
    assert words.startswith("generator.tensor_parallel = 1: its cache holds 0 tokens")
    assert words.endswith("set generator.tensor_parallel = 2")
    assert fit.generator_on(run("math-7b", "generator.tensor_parallel=2"), small) == ""
    on_cpu = run("quickstart", "generator.kv_cache_gib=0.01", "sampling.max_tokens=4096")
    words = fit.generator_on(on_cpu, None)
    assert words.startswith("generator.kv_cache_gib = 0.01: ")
    more = float(words.rpartition(" ")[2])
    enough = fit.with_change(on_cpu, ("generator.kv_cache_gib", more))
    assert fit.generator_on(enough, None) == ""


def test_a_sync_beyond_its_deadline_is_told() -> None:
    words = fit.sync_in_time(run("math-7b"), gpu=True, bandwidth=0.1e9)
    assert words.startswith("weights.phase_timeout_s = 60: a sync of 15.2 GB takes 152 s")
    more = run("math-7b", f"weights.phase_timeout_s={words.rpartition(' ')[2]}")
    assert fit.sync_in_time(more, gpu=True, bandwidth=0.1e9) == ""


def test_changes_leave_the_rest_as_it_is() -> None:
    before = run("math-7b")
    after = fit.with_change(before, ("learner.ranks", 8))
    assert after.learner.ranks == 8
    assert after.model == before.model
    assert learner.rank(after, gpu=True).peak < learner.rank(before, gpu=True).peak
