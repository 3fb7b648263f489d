"""The learner's loop with a tiny model, a deterministic engine, an in-memory broker and a real
weight sync.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sppo import asked, config, samples
from sppo.config import RunConfig
from sppo.errors import ScorerSpent, SppoError, WeightSyncError
from sppo.generators.fake import VOCABULARY, FakeEngine
from sppo.generators.loop import Generator
from sppo.learner import assemble
from sppo.learner.ranks import Solo
from sppo.learner.saving import Saving
from sppo.metrics import METRICS
from sppo.scorer.base import InlineScorer, Scorer, checked
from sppo.transport.memory import MemoryBroker
from sppo.types import ScoreRequest, Scores
from tests import checkpoints, makers
from tests.unit import judges


class Limited:
    """Scores so many groups of training and no more."""

    def __init__(self, groups: int) -> None:
        self._left = groups

    async def score(self, request: ScoreRequest) -> Scores:
        self._left -= len(request.completions) > 1
        if self._left < 0:
            raise ScorerSpent("that is enough")
        reply = judges.judge(request.question, request.completions, request.data)
        return checked("judge", request, reply)

    async def close(self) -> None:
        """Nothing to release."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = makers.tiny_model(tmp_path_factory.mktemp("model"), vocabulary=VOCABULARY)
    makers.tiny_tokenizer(Path(folder), vocabulary=VOCABULARY)
    return folder


@pytest.fixture
def task(tmp_path: Path) -> str:
    path = tmp_path / "questions.jsonl"
    path.write_text(
        "".join(json.dumps({"question": f"w{i} w{i + 1}", "answer": "1"}) + "\n" for i in range(60))
    )
    return f"jsonl:{path}"


def configuration(model: str, task: str, *, eval_every: int = 3, **learner: Any) -> RunConfig:
    base: dict[str, Any] = {
        "steps": 6, "groups_per_step": 2, "lr": 1e-3, "parity_threshold": 100.0,
        "checkpoint_every": 3, "device": "cpu",
        "threads": 1,
    }  # fmt: skip
    return makers.run_config(
        model={"name": model},
        task={"name": task, "held_out": 4},
        sampling={"completions": 3, "max_tokens": 4},
        **makers.sections(**base | learner),
        eval={"every_steps": eval_every},
        generator={"start_timeout_s": 20},
        scorer={"mode": "inline", "name": f"{judges.__name__}:judge"},
    )


class Life:
    """A learner and one generator on threads, until the learner is done or asked to stop."""

    def __init__(self, settings: RunConfig, run_dir: Path, scorer: Scorer | None = None) -> None:
        self.broker, self.engine, self.run_dir = MemoryBroker(), FakeEngine(), run_dir
        scorer = scorer or InlineScorer(settings.scorer.name)
        generator = Generator(settings, self.broker, self.engine, scorer, "generator-0")
        self._thread = threading.Thread(target=self._generate, args=(generator,), daemon=True)
        self._settings = settings

    def _generate(self, generator: Generator) -> None:
        with contextlib.suppress(WeightSyncError):  # a test's engine may fail
            asyncio.run(generator.run())

    def run(self, stop_after: int | None = None) -> dict[str, Any]:
        self._thread.start()
        if stop_after is not None:
            threading.Thread(target=self._stop, args=(stop_after,), daemon=True).start()
        try:
            return assemble.run(self._settings, self.broker, self.run_dir)
        finally:
            self.broker.registry.request_stop("workers", "test")
            self._thread.join(10)

    def _stop(self, step: int) -> None:
        while len(records(self.run_dir)) < step:
            time.sleep(0.01)
        self.broker.registry.request_stop("learner", "test")


def records(run_dir: Path) -> list[dict[str, Any]]:
    path = run_dir / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_generators_get_new_weights_only_when_an_iteration_ends(
    model: str, task: str, tmp_path: Path
) -> None:
    life = Life(
        configuration(
            model, task, target="half", anchor="iteration", iteration_steps=4, eval_every=2
        ),
        tmp_path,
    )
    outcome = life.run()
    # Once before the first step, at step 4, and at the end
    assert outcome["syncs"]["count"] == 3
    assert [e["step"] for e in outcome["evaluations"]] == [0, 4, 6]
    lines = records(tmp_path)
    assert all(set(line) == set(METRICS) for line in lines)
    # Δ is measured from the snapshot: none right after it was taken, then more and more
    moved = [line["delta_std"] for line in lines]
    assert moved[0] is moved[4] is None
    assert all(m > 0 for i, m in enumerate(moved) if i not in (0, 4))


def test_a_life_that_is_stopped_while_paused_leaves_no_pause_to_the_next(
    model: str, task: str, tmp_path: Path
) -> None:
    asked.ask(tmp_path, asked.PAUSE)
    outcome = Life(configuration(model, task), tmp_path).run(stop_after=0)
    assert not outcome["finished"]
    assert asked.standing(tmp_path) == []


def test_a_resumed_life_goes_on_from_the_snapshot_that_generators_ran(
    model: str, task: str, tmp_path: Path
) -> None:
    # Given a life that is stopped between two snapshots
    settings = configuration(
        model, task, target="half", anchor="iteration", iteration_steps=4, snapshot="host"
    )
    first = Life(settings, tmp_path)
    stopped = first.run(stop_after=1)
    assert not stopped["finished"]
    folder = sorted((tmp_path / "checkpoints").iterdir())[-1]
    saved = {name: checkpoints.load(folder, name) for name in ("anchor", "model")}
    assert any(not torch.equal(w.float(), saved["model"][k]) for k, w in saved["anchor"].items())
    # When the next life begins
    second = Life(settings, tmp_path)
    seen: list[dict[str, torch.Tensor]] = []
    load = second.engine.load_weights

    async def noted(update: dict[str, Any], version: Any, *moved: Any) -> None:
        await load(update, version, *moved)
        seen.append(dict(second.engine.weights))

    second.engine.load_weights = noted  # type: ignore[method-assign]
    outcome = second.run()
    # Then its generator first runs that snapshot, bit by bit, and Δ goes on being measured from it
    assert outcome["finished"]
    assert all(torch.equal(seen[0][k], w) for k, w in saved["anchor"].items())
    assert all(line["delta_std"] for line in records(tmp_path) if line["step"] in (2, 3, 4, 6))


def test_a_probe_measures_the_mismatch_where_every_batch_is_stale(
    model: str, task: str, tmp_path: Path
) -> None:
    life = Life(configuration(model, task, target="half", lookahead_steps=1), tmp_path)
    life.run()
    lines = records(tmp_path)
    # The evaluation after step 3 starts it; groups of that version are there one batch later at the
    # latest
    assert [line["mismatch_probe"] is None for line in lines[:3]] == [True] * 3
    assert lines[-1]["mismatch_probe"] > 0


@pytest.mark.parametrize("preset", ["math-7b", "paper"])
def test_the_presets_of_published_runs_train(
    preset: str, model: str, task: str, tmp_path: Path
) -> None:
    """Their objectives as they are, at the size of a test."""
    small = {
        "model.name": model, "task.name": task, "task.prompt": "{question}", "task.held_out": 4,
        "sampling.max_tokens": 4,
        "learner.steps": 8, "learner.groups_per_step": 4, "objective.iteration_steps": 4,
        "optimizer.lr": 1e-3,
        "optimizer.warmup_steps": 0, "learner.parity_threshold": 100, "learner.device": "cpu",
        "learner.threads": 1,
        "learner.ranks": 1,
        "scorer.url": "", "scorer.mode": "inline",
    }  # fmt: skip
    if preset == "math-7b":
        small |= {
            "scorer.name": f"{judges.__name__}:even",
            "task.messages": "",
            "task.answer": "answer",
            "learner.groups_per_step": 16,
        }
    else:
        small |= {"scorer.name": f"{judges.__name__}:judge"}
    settings = config.load(preset, [f"{key}={json.dumps(value)}" for key, value in small.items()])
    outcome = Life(settings, tmp_path).run()
    lines = records(tmp_path)
    assert outcome["finished"]
    assert [line["step"] for line in lines] == list(range(1, 9))
    assert all(line["loss"] > 0 and line["effective_sample_size"] == 1 for line in lines)
    if preset == "math-7b":  # two batches of four mini-batches; the first of each is its own anchor
        assert [line["delta_std"] is None for line in lines] == [True, False, False, False] * 2
        assert len({tuple(line["tickets"]) for line in lines}) == 8
    else:
        # Two iterations; two completions of five are trained, and eta = 1e3 makes losses of
        # hundreds right.
        assert [line["delta_std"] is None for line in lines] == [True, False, False, False] * 2
        assert all(line["loss"] > 100 for line in lines)
        assert all(line["length_mean"] * 8 == pytest.approx(line["tokens"]) for line in lines)


def test_a_run_ended_between_two_snapshots_publishes_its_last_weights(
    model: str, task: str, tmp_path: Path
) -> None:
    # Given a life stopped at a step that is none of an iteration's
    first = Life(
        configuration(model, task, target="half", anchor="iteration", iteration_steps=4), tmp_path
    )
    stopped = first.run(stop_after=1)
    assert stopped["steps"] < 4
    # When the user makes that step the last one
    steps = stopped["steps"]
    settings = configuration(
        model, task, target="half", anchor="iteration", iteration_steps=4, steps=steps
    )
    second = Life(settings, tmp_path)
    outcome = second.run()
    # Then the weights exported are those that were evaluated
    assert outcome["evaluations"][-1]["step"] == steps
    exported = load_file(tmp_path / "export" / "model.safetensors")
    assert all(torch.equal(w, exported[k].to(w.dtype)) for k, w in second.engine.weights.items())


def test_a_judge_is_asked_who_wins_against_the_base_model_and_so_after_a_resume(
    model: str, task: str, tmp_path: Path
) -> None:
    # Given a run by a judge, which is stopped and resumed
    settings = configuration(model, task, target="half", eval_every=2)
    Life(settings, tmp_path).run(stop_after=1)
    base = (tmp_path / "base_answers.json").read_text()
    outcome = Life(settings, tmp_path).run()
    # Then each evaluation is a win rate against the answers that were kept at step 0
    assert (tmp_path / "base_answers.json").read_text() == base
    assert len(json.loads(base)) == 4
    found = outcome["evaluations"]
    assert found[0]["step"] == 0
    assert found[-1]["step"] == 6
    assert found[0]["win_rate"] == 0.5  # against itself
    assert all(0 <= record["win_rate"] <= 1 for record in found)
    assert outcome["win_rate"]["n"] == 4
    assert outcome["held_out_accuracy"] == {"before": None, "after": None, "n": 4}
    lines = records(tmp_path)
    assert lines[0]["held_out"] == 0.5
    assert all(line["held_out_low"] <= line["held_out"] <= line["held_out_high"] for line in lines)
    kept = [s for s in samples.read(tmp_path) if s["stream"] == "eval"]
    assert kept
    assert all(s["lengths"][0] == s["lengths"][1] for s in kept)  # this engine's never change


def test_without_held_out_questions_nothing_is_evaluated(
    model: str, task: str, tmp_path: Path
) -> None:
    settings = configuration(model, task, target="half", steps=2)
    settings = settings.model_copy(
        update={"task": settings.task.model_copy(update={"held_out": 0})}
    )
    outcome = Life(settings, tmp_path).run()
    assert outcome["held_out_accuracy"] == {"before": None, "after": None, "n": 0}
    assert outcome["finished"]


def test_a_stop_while_no_generator_is_alive_loses_no_record(
    model: str, task: str, tmp_path: Path
) -> None:
    # Given a learner whose only generator leaves for good while a batch is trained
    life = Life(configuration(model, task, target="half"), tmp_path)
    apply = life.engine.load_weights

    async def leave_after_the_first(update: dict[str, Any], version: Any, *moved: Any) -> None:
        if version.n:
            life.broker.registry.request_stop("learner", "test")
            raise RuntimeError("out of memory")
        await apply(update, version, *moved)

    life.engine.load_weights = leave_after_the_first  # type: ignore[method-assign]
    # When the run is stopped meanwhile
    outcome = life.run()
    # Then the step that was taken is saved and recorded
    assert outcome["steps"] == 1
    assert [line["step"] for line in records(tmp_path)] == [1]


def test_a_spent_scorer_ends_the_run_with_a_checkpoint_from_which_it_goes_on(
    model: str, task: str, tmp_path: Path
) -> None:
    # Given a scorer that scores six groups, and a run that wants twelve
    settings = configuration(model, task, target="half", checkpoint_every=100)
    # When it ends
    with pytest.raises(ScorerSpent, match="that is enough"):
        Life(settings, tmp_path, Limited(6)).run()
    # Then its steps are saved, and a run with another limit goes on from them
    taken = len(records(tmp_path))
    assert 0 < taken <= 3
    assert [p.name for p in (tmp_path / "checkpoints").glob(f"step-{taken:06d}-*")]
    assert Life(settings, tmp_path, Limited(99)).run()["steps"] == 6
    assert [line["step"] for line in records(tmp_path)] == [1, 2, 3, 4, 5, 6]


def test_no_group_is_trained_that_is_older_than_the_limit_and_each_ticket_is_trained_once(
    model: str, task: str, tmp_path: Path
) -> None:
    # Given tickets for four batches at once, so groups of the last ones wait for three steps
    settings = configuration(model, task, target="half", lookahead_steps=3, max_staleness=1)
    outcome = Life(settings, tmp_path).run()
    # Then those too old are made again, and trained when they are young
    lines = records(tmp_path)
    assert max(line["staleness_max"] for line in lines) <= 1
    assert outcome["made_again"] > 0
    trained = [uid for line in lines for uid in line["tickets"]]
    assert sorted(trained) == [f"train-{i:09d}" for i in range(12)]
    assert outcome["tickets"] == {"issued": 12, "trained": 12, "twice": 0, "dead": 0}


def test_steps_that_are_not_finite_give_up_their_groups_and_end_the_run(
    model: str, task: str, tmp_path: Path
) -> None:
    settings = configuration(model, task, max_reward=1e30, max_skipped=2)
    scorer = settings.scorer.model_copy(update={"name": f"{judges.__name__}:huge"})
    life = Life(settings.model_copy(update={"scorer": scorer}), tmp_path)
    with pytest.raises(SppoError, match=r"2 optimizer steps in a row .*last, step 2: .*max_reward"):
        life.run()
    lines = records(tmp_path)
    assert [(line["step"], line["tickets"]) for line in lines] == [(1, []), (2, [])]
    letters = life.broker.tickets.dead_letters()
    assert [letter.uid for letter in letters] == [f"train-{i:09d}" for i in range(4)]
    assert letters[0].reason.startswith("step 1: ")


def test_whatever_ends_a_life_the_checkpoint_that_is_being_written_is_waited_for(
    model: str, task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a learner that fails while its first checkpoint is being written
    settings = configuration(model, task, target="half", checkpoint_every=1)
    life = Life(settings, tmp_path)
    let, known = threading.Event(), list[str]()

    def confirm() -> None:
        if threading.current_thread() is not threading.main_thread():
            let.wait(30)

    def noticed(team: Solo) -> None:
        known.append("noticed")
        let.set()

    def begin(saving: Saving) -> None:
        saving_begin(saving)
        raise RuntimeError("CUDA out of memory")

    saving_begin = Saving.begin
    monkeypatch.setattr(life.broker.tickets, "confirm_epoch", confirm)
    monkeypatch.setattr(Saving, "begin", begin)
    monkeypatch.setattr(Solo, "noticed", noticed)
    with pytest.raises(RuntimeError, match="out of memory"):
        life.run()
    # Then it is there in the end, and no watch has ended the learner meanwhile
    assert known == ["noticed"]
    assert [p.name[:11] for p in (tmp_path / "checkpoints").iterdir()] == ["step-000001"]
