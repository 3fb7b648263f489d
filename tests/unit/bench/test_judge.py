"""A judge against labels: the file, the figures, and a judge on a real socket."""

from __future__ import annotations

import asyncio
import json
import math
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sppo_cli import commands
from typer.testing import CliRunner

from sppo.bench import judge as bench
from sppo.bench.judge import Judged, Label, Pair
from sppo.config import JudgeConfig
from sppo.errors import ConfigError, ScorerError
from sppo.scorer.judge import patience
from tests.unit.scorer.judge.fake import Handler, http, judges, longer, says, serve


def written(folder: Path, *rows: object) -> Path:
    path = folder / "labelled.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return path


def judged(a: str, b: str, label: Label, first: float, second: float, prompt: str = "q") -> Judged:
    return Judged(
        pair=Pair(prompt=prompt, a=a, b=b, label=label), shown_first=first, shown_second=second
    )


class Serving:
    """A fake judge on a thread of its own."""

    def __init__(self, handler: Handler) -> None:
        self.url = ""
        self._up, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._serve(handler),))
        self._thread.start()
        self._up.wait(10)

    async def _serve(self, handler: Handler) -> None:
        async with serve(handler) as fake:
            self.url = fake.url
            self._up.set()
            while not self._stop.is_set():
                await asyncio.sleep(0.01)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


@pytest.fixture
def by_length() -> Iterator[str]:
    serving = Serving(judges(longer))
    yield serving.url
    serving.stop()


def test_lines_are_pairs_or_several_answers_with_scores(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        {"prompt": "q", "a": "x", "b": "y", "label": "b", "note": 1},
        {"prompt": "r", "answers": ["x", "y", "z"], "scores": [1, 1, 2.5]},
    )
    first, *rest = bench.read(path)
    assert (first.a, first.b, first.label, first.row["note"]) == ("x", "y", "b", 1)
    assert [(p.a, p.b, p.label) for p in rest] == [
        ("x", "y", "tie"), ("x", "z", "b"), ("y", "z", "b"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (
            {"question": "q", "a": "x", "b": "y"},
            r"jsonl:1: a line is .*this one holds a, b",
        ),
        ({"prompt": "q", "a": "x", "b": "y", "label": "A"}, "label a, b or tie"),
        ({"prompt": "q", "answers": ["x", "y"], "scores": [1]}, "a line is"),
        ({"prompt": "q", "answers": ["x", 2], "scores": [1, 2]}, "answers are texts"),
        (7, "this one holds int"),
    ],
)
def test_a_line_of_another_form_is_refused(tmp_path: Path, row: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        bench.read(written(tmp_path, row))


def test_a_file_without_pairs_or_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no pairs"):
        bench.read(written(tmp_path))
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        bench.read(tmp_path / "gone")


def test_figures_by_hand() -> None:
    found = bench.figures(
        [
            judged("long", "b", "a", 1.0, 1.0),  # right, for the longer
            judged("long", "b", "b", 0.9, 0.8),  # wrong, for the longer
            judged("a", "long", "a", 1.0, 0.0),  # a tie by position
            judged("even", "same", "tie", 0.52, 0.5),  # right
            judged("a", "b", "a", math.nan, 1.0),  # not read
        ]
    )
    assert (found["pairs"], found["read"], found["answers"]) == (5, 4, 10)
    assert found["agreement"] == 0.5
    assert found["agreement_low"] < 0.5 < found["agreement_high"]
    assert found["agreement_decided"] == 0.5
    assert found["flips"] == 0.25
    assert found["first_wins"] == pytest.approx((0.5 + 0.55 + 1.0 + 0.51) / 4)
    assert found["longer_wins"] == pytest.approx(2.5 / 3)
    assert found["longer_labelled"] == pytest.approx(1 / 3)


def test_triples_that_go_round_are_counted() -> None:
    def three(prompt: str, *wins: float) -> list[Judged]:
        names = (("x", "y"), ("y", "z"), ("z", "x"))
        return [judged(a, b, "a", w, w, prompt) for (a, b), w in zip(names, wins, strict=True)]

    found = bench.figures(
        [*three("1", 1, 1, 1), *three("2", 0, 0, 0), *three("3", 1, 1, 0), *three("4", 1, 0.5, 1),
         judged("x", "y", "a", 1, 1, "5")]
    )  # fmt: skip
    assert (found["triples"], found["intransitive"]) == (4, 2)


def test_a_judge_by_length_is_found_out(by_length: str, tmp_path: Path) -> None:
    path = written(
        tmp_path,
        {"prompt": "q", "a": "short", "b": "much longer", "label": "a"},
        {"prompt": "r", "answers": ["aaa", "bb", "c"], "scores": [3, 2, 1]},
    )
    arguments = ["bench", "judge", str(path), "--set", f"scorer.judge.url={by_length}"]
    arguments += ["--set", "scorer.judge.model=m", "--set", "scorer.judge.prices=[10, 1000]"]
    shown = CliRunner().invoke(commands.app, [*arguments, "--json"])
    found = json.loads(shown.stdout)
    assert found["agreement"] == 0.75
    assert (found["flips"], found["first_wins"]) == (0.0, 0.5)
    assert (found["longer_wins"], found["longer_labelled"]) == (1.0, 0.75)
    assert (found["triples"], found["intransitive"], found["unreadable"]) == (1, 0, 0)
    assert (found["calls"], found["prompt_tokens"], found["answer_tokens"]) == (8, 800, 8)
    assert found["cost"] == pytest.approx((8000 + 8000) / 1e6)
    shown = CliRunner().invoke(commands.app, arguments)
    assert "agreement      0.750 of 4 pairs" in shown.stdout
    assert "0 of 1 are intransitive" in shown.stdout


def test_a_judge_that_is_wrong_about_everything_is_told_so(by_length: str, tmp_path: Path) -> None:
    rows = [{"prompt": f"{n}", "a": "long", "b": "s", "label": "b"} for n in range(5)]
    arguments = ["bench", "judge", str(written(tmp_path, *rows))]
    settings = [f"scorer.judge.url={by_length}", "scorer.judge.model=m"]
    for setting in settings:
        arguments += ["--set", setting]
    shown = CliRunner().invoke(commands.app, arguments)
    said = "warning: scorer.judge.model = 'm' says the opposite of the labels: right of 0.000 of 5 "
    assert said in shown.stderr
    assert "have scorer.judge.rubric ask for" in shown.stderr
    written(tmp_path, *rows[1:], {**rows[0], "label": "a"})  # 1 of 5 may be chance
    assert "opposite" not in CliRunner().invoke(commands.app, arguments).stderr


def test_a_judge_that_cannot_be_used_is_said_in_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "FIRST_S", 0.001)
    pairs = bench.read(written(tmp_path, {"prompt": "q", "a": "x", "b": "y", "label": "a"}))
    serving = Serving(says(http(b"boom", "500 X")))
    try:
        with pytest.raises(ScorerError, match="500: boom"):
            bench.measure(JudgeConfig(url=serving.url, model="m"), pairs, lambda _: None)
    finally:
        serving.stop()
    with pytest.raises(ConfigError, match=r"needs scorer\.judge\.url"):
        bench.measure(JudgeConfig(), pairs, lambda _: None)
    with pytest.raises(ConfigError, match=r"mode = 'rating'"):
        bench.measure(JudgeConfig(mode="rating"), pairs, lambda _: None)
