"""A run in all four trackers at once, offline; killed and gone on with. Each is read back by its
own library.

Everything is real but the engine: the learner as `sppo-cli learner` runs it, checkpoints, weight
syncs, the trackers' processes.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from sppo import config as settings
from sppo import spans
from sppo.config import BrokerConfig
from sppo.generators.fake import VOCABULARY
from sppo.launch import run_dir as run_dirs
from sppo.metrics import read_lines
from sppo.track import shape, tracker
from sppo.track.follower import Passed
from tests import makers
from tests.faults.rig import CONTEXT, RUN, Rig

STEPS, SAVED = 14, 7
TRACKERS = tuple(tracker.TRACKERS)


def learn(config: str, broker: dict[str, Any], run_dir: str, environment: dict[str, str]) -> None:
    """The learner's process."""
    from sppo.launch import roles

    os.environ |= environment
    os.chdir(Path(run_dir).parent)  # where MLflow puts its artifacts
    log = os.open(f"{run_dir}/logs/learner-0.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    run = settings.with_secrets(
        settings.from_json(config), broker=BrokerConfig(**broker), scorer_token=""
    )
    token = SecretStr(environment.get("SPPO_METRICS__TOKEN", ""))
    run = run.model_copy(update={"metrics": run.metrics.model_copy(update={"token": token})})
    roles.run_learner_alone(run, RUN, Path(run_dir))


class Story:
    """One run: begun, killed when every tracker has some steps of it, gone on with to its end."""

    def __init__(self, folder: Path, model: str) -> None:
        self.folder = folder
        self.environment = {
            "WANDB_MODE": "offline",
            "TRACKIO_DIR": str(folder / "trackio"),
            "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        }
        self.rig = Rig(
            folder, model, steps=STEPS, checkpoint_every=SAVED,
            scorer={"name": "tests.faults.rig:even", "mode": "inline"},
        )  # fmt: skip
        track = settings.TrackConfig(to=TRACKERS)
        self.rig.config = self.rig.config.model_copy(update={"track": track})
        self.run_dir = self.rig.run_dir
        run_dirs.claim(self.run_dir, self.rig.config)
        self.id = f"test-{(self.run_dir / 'run_id').read_text()}"

    def begin(self) -> Any:
        credentials = self.rig.server.credentials(self.rig.broker_config, "learner")
        secret = {"password": credentials.password.get_secret_value()}
        process = CONTEXT.Process(
            target=learn,
            args=(
                settings.to_json(self.rig.config), credentials.model_dump(mode="json") | secret,
                str(self.run_dir), self.environment,
            ),
        )  # fmt: skip
        process.start()
        return process

    def passed(self, name: str) -> Passed:
        return Passed.load(self.run_dir / "track" / f"{name}.json", "")

    def tell(self) -> None:
        """Play it."""
        with self.rig:
            self.rig.start("generator-0")
            first = self.begin()
            self.wait(lambda: self.steps() > SAVED)
            os.kill(self.rig.pid("generator-0"), signal.SIGSTOP)
            self.wait(lambda: min(self.passed(name).step for name in TRACKERS) > SAVED)
            os.kill(first.pid, signal.SIGKILL)
            first.join()
            os.kill(self.rig.pid("generator-0"), signal.SIGCONT)
            self.killed_at = self.steps()
            self.before = list(read_lines(self.run_dir / "metrics.jsonl"))
            again = self.begin()
            again.join(60)
            assert again.exitcode == 0, self.rig.logs()
            self.rig.broker.registry.request_stop("workers", "done")

    def wait(self, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not ready():
            assert time.monotonic() < deadline, self.rig.logs()
            time.sleep(0.05)

    def steps(self) -> int:
        return sum(1 for _ in read_lines(self.run_dir / "metrics.jsonl"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = makers.tiny_model(tmp_path_factory.mktemp("model"), vocabulary=VOCABULARY)
    makers.tiny_tokenizer(Path(folder), vocabulary=VOCABULARY)
    return folder


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory, model: str) -> Story:
    played = Story(tmp_path_factory.mktemp("trackers"), model)
    played.tell()
    return played


def test_steps_were_given_up_and_no_tracker_was_in_the_way(story: Story) -> None:
    records = list(read_lines(story.run_dir / "metrics.jsonl"))
    assert [record["step"] for record in records] == list(range(1, STEPS + 1))
    assert story.killed_at % SAVED
    assert records[: story.killed_at] != story.before
    events = list(read_lines(story.run_dir / "events.jsonl"))
    assert [event for event in events if event["kind"] == "warning"] == []
    for name in TRACKERS:
        assert story.passed(name).step == story.passed(name).evaluated == STEPS, name


def expected(story: Story) -> dict[str, dict[int, float]]:
    """Figures by name and step, as the run's own files have them."""
    found: dict[str, dict[int, float]] = {}
    for record in read_lines(story.run_dir / "metrics.jsonl"):
        for name, value in shape.figures(record).items():
            found.setdefault(name, {})[record["step"]] = value
    for event in read_lines(story.run_dir / "events.jsonl"):
        if event["kind"] == "eval":
            for name, value in shape.evaluation(event["record"]).items():
                found.setdefault(name, {})[event["record"]["step"]] = value
    return found


def same(story: Story, found: dict[str, list[tuple[int, float]]], *, exact: bool) -> None:
    """Each step once under each name, with the run's own figures: `exact`, or but for steps
    that were trained twice.
    """
    wanted = expected(story)
    assert {"loss", "eval/accuracy", "eval/interval_low"} <= wanted.keys() <= found.keys()
    assert [step for step, _ in found["loss"]] == list(range(1, STEPS + 1))
    again = range(SAVED + 1, story.killed_at + 1)
    for name, figures in wanted.items():
        told = dict(found[name])
        assert len(told) == len(found[name]), name
        for step in figures.keys() | told.keys():
            if exact or step not in again:
                assert told[step] == pytest.approx(figures[step], rel=1e-6), (name, step)


def test_tensorboard_has_what_metrics_has(story: Story) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(story.run_dir / "tensorboard"), {"scalars": 0}).Reload()
    scalars = {name: [(e.step, e.value) for e in read.Scalars(name)] for name in expected(story)}
    same(story, scalars, exact=True)
    assert {"samples/train", "samples/eval", "config"} <= set(read.Tags()["tensors"])


def test_trackio_has_each_step_once(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", story.environment["TRACKIO_DIR"])
    from trackio.sqlite_storage import SQLiteStorage

    (run,) = SQLiteStorage.get_run_records("sppo")
    assert run["name"] == story.id
    rows = SQLiteStorage.get_logs("sppo", story.id, run_id=run["id"])
    same(story, by_name(rows), exact=False)
    tables = [row["step"] for row in rows if row.get("samples/train")]
    assert tables == list(range(1, STEPS + 1))
    settings = SQLiteStorage.get_run_config("sppo", story.id, run_id=run["id"])
    assert settings["learner"]["steps"] == STEPS


def test_wandb_has_each_step_once(story: Story) -> None:
    files = sorted((story.run_dir / "wandb").glob("offline-run-*/*.wandb"))
    rows, tables, names = [], [], set()
    for record in (record for file in files for record in wandb_records(file)):
        if record.HasField("run"):
            names.add((record.run.run_id, record.run.project))
        if record.HasField("history"):
            items = {
                i.key or i.nested_key[0]: json.loads(i.value_json) for i in record.history.item
            }
            rows.append(items)
            tables += [items["step"]] if "samples/train" in items else []
    assert names == {(story.id, "sppo")}
    assert len(files) == 2
    same(story, by_name(rows), exact=False)
    assert tables == list(range(1, STEPS + 1))


def test_mlflow_has_each_step_once(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(story.environment["MLFLOW_TRACKING_URI"])
    experiment = client.get_experiment_by_name("sppo")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("test", "FINISHED")
    assert run.data.params["learner.steps"] == str(STEPS)
    found = {
        name: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)]
        for name in expected(story)
    }
    same(story, found, exact=False)
    monkeypatch.chdir(story.folder)  # its artifacts lie below the folder that the run began in
    tables = [each.path for each in client.list_artifacts(run.info.run_id, "samples")]
    assert len([path for path in tables if "train" in path]) == STEPS
    table = client.load_table(experiment.experiment_id, tables[-1], [run.info.run_id])
    assert list(table.columns) == list(shape.COLUMNS)


def test_each_group_has_its_whole_life(story: Story) -> None:
    lines = spans.read(story.run_dir)
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    lives = spans.lives(lines)
    assert len(lives) == sum(len(line["groups"]) for line in lines) == 2 * STEPS
    assert spans.shifts(lines) == {"generator-0": 0.0}  # one machine, one clock
    for life in lives:
        sampled = {name: end - begin for name, begin, end in life.stages()}["sample"]
        assert 0 < sampled < 30


def by_name(rows: list[dict[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        for name, value in row.items():
            if isinstance(value, (int, float)):
                found.setdefault(name, []).append((row["step"], value))
    return found


def wandb_records(file: Path) -> Iterator[Any]:
    """Messages of its own protocol, out of the file that `wandb sync` reads: a log in blocks of
    32 KiB, each piece with checksum, length and whether it is whole, first, middle or last.
    """
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, message = file.read_bytes(), 7, b""
    while at < len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        message += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield Record.FromString(message)
            message = b""
