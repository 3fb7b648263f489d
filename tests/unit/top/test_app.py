"""The screen at 80 x 24, without a terminal: what is shown, keys, resizing, runs that end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from sppo import asked
from sppo.launch import run_dir as run_dirs
from sppo.launch import scaling
from sppo.top import app as top_app
from sppo.top.app import KEYS, SAID_S, Top
from tests.unit.top import runs

SCREEN = """\
run  training  step 3/60  4:45 left  held-out 0.250 at step 0
role         state      at step tokens/s  busy  does, or waits for
learner-0    up               3            80%  training
generator-0  up               3                 samples 3, 2 at scorer
scorer-0     up                                 waits for groups
groups: 3 to sample, 5 with generators, 8 ready   staleness 1.0 (max 2)
reward     ▁▅█                                                0.030
held-out   ▁▁▁▁                                               0.250
mismatch   ▁▅█                                                0.013 nats
length     ▅█▁                                                12.0 tokens
3 h ago  warning: step 2: cut
sample of step 3  train-000000003
> What is 7 - 4?
1  It is 3.
0  Two."""


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    return runs.going_on(folder)


def watch(run_dir: Path, script: Callable[[Top, Pilot[None]], Awaitable[None]]) -> None:
    async def play() -> None:
        app = Top(run_dir)
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            await script(app, pilot)

    asyncio.run(play())


async def press(pilot: Pilot[None], *keys: str) -> None:
    await pilot.press(*keys)
    await pilot.pause()


def shown(app: Top) -> list[str]:
    """The lines of the screen."""
    strips = app.screen._compositor.render_strips()
    return ["".join(segment.text for segment in strip).rstrip() for strip in strips]


def styles(app: Top) -> set[str]:
    strips = app.screen._compositor.render_strips()
    return {str(s.style.color) for strip in strips for s in strip if s.style and s.style.color}


def test_everything_of_a_run_is_on_one_small_screen(run_dir: Path) -> None:
    async def script(app: Top, pilot: Pilot[None]) -> None:
        lines = shown(app)
        assert len(lines) == 24
        assert "\n".join(lines).rstrip() == SCREEN + "\n" * (24 - SCREEN.count("\n") - 1) + KEYS

    watch(run_dir, script)


def test_what_is_new_is_shown_and_a_line_that_is_being_written_is_not(run_dir: Path) -> None:
    async def script(app: Top, pilot: Pilot[None]) -> None:
        runs.append(run_dir / "metrics.jsonl", runs.record(4, reward_mean=0.5))
        with (run_dir / "metrics.jsonl").open("a") as file:
            file.write('{"step": 5, "reward')
        app._look()
        await pilot.pause()
        assert any(line.startswith("reward") and line.endswith("0.500") for line in shown(app))

    watch(run_dir, script)


def test_keys_ask_the_learner(run_dir: Path) -> None:
    async def script(app: Top, pilot: Pilot[None]) -> None:
        await press(pilot, "c", "e", "p")
        assert asked.standing(run_dir) == ["pause", "checkpoint", "evaluate"]
        assert shown(app)[-1].startswith("after the batch at hand the learner takes no other")
        await press(pilot, "p")
        assert asked.standing(run_dir) == ["checkpoint", "evaluate"]
        assert shown(app)[-1] == "the learner goes on"
        app._said_at -= SAID_S
        app._look()
        await pilot.pause()
        assert shown(app)[-1] == KEYS

    watch(run_dir, script)


def test_scale_asks_how_many(run_dir: Path) -> None:
    async def script(app: Top, pilot: Pilot[None]) -> None:
        runs.status(run_dir, scale={"id": "an earlier one", "refused": "too many", "leaving": []})
        await press(pilot, "s", *"gen")
        assert shown(app)[-1] == "gen"
        app.query_one(Input).value = "generators=2"
        await press(pilot, "enter")
        asked_for = scaling.read(run_dir)
        assert asked_for["wanted"] == {"generator": 2}
        assert shown(app)[-1] == "asked for generators=2"
        answer = {"id": asked_for["id"], "refused": "no room", "leaving": []}
        runs.status(run_dir, scale=answer)
        app._look()
        await pilot.pause()
        assert shown(app)[-1] == "refused: no room"
        await press(pilot, "s", *"q", "enter")  # typed, not a key
        assert shown(app)[-1] == "'q': write it as generators=3 or scorers=2"
        await press(pilot, "s", "escape", "q")
        assert not app.is_running

    watch(run_dir, script)


def test_help_stands_in_place_of_the_sample(run_dir: Path) -> None:
    async def script(app: Top, pilot: Pilot[None]) -> None:
        await press(pilot, "question_mark")
        words = "\n".join(shown(app))
        assert "no batch is taken after the one at hand" in words
        assert "It is 3." not in words
        await press(pilot, "escape")
        assert "It is 3." in "\n".join(shown(app))

    watch(run_dir, script)


def test_it_is_laid_out_again_when_the_terminal_changes(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(top_app, "LOOK_S", 1000.0)  # the next look would lay it out too

    async def script(app: Top, pilot: Pilot[None]) -> None:
        for width, height in ((200, 60), (40, 12), (10, 4), (80, 24)):
            await pilot.resize_terminal(width, height)
            for _ in range(100):  # laying it out takes some messages
                if len(shown(app)) == height and shown(app)[-1].startswith(KEYS[: width - 1]):
                    break
                await pilot.pause(0.01)
            lines = shown(app)
            assert len(lines) == height
            assert max(map(len, lines)) <= width
            assert lines[0].startswith("run  training"[: width - 1])
            assert lines[-1].startswith(KEYS[: width - 1])
        assert "\n".join(lines[:15]) == SCREEN

    watch(run_dir, script)


def test_a_finished_run_is_shown_and_asked_for_nothing(run_dir: Path) -> None:
    runs.status(run_dir, phase="done", step=60)
    runs.die(run_dir)
    run_dirs.write_json(run_dir / "summary.json", {"finished": True})

    async def script(app: Top, pilot: Pilot[None]) -> None:
        lines = shown(app)
        assert lines[0].startswith("run  finished  step 60/60")
        assert "nobody is there" in lines
        await press(pilot, "p")
        assert shown(app)[-1] == "nothing is running"
        assert asked.standing(run_dir) == []

    watch(run_dir, script)


def test_a_run_that_dies_meanwhile_is_said_to_be_dead(run_dir: Path) -> None:
    async def script(app: Top, pilot: Pilot[None]) -> None:
        runs.die(run_dir)
        app._look()
        await pilot.pause()
        assert shown(app)[0] == "run  dead  step 3/60  no sign of life since 5 min ago"

    watch(run_dir, script)


def test_no_color_is_heeded(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[set[str]] = []

    async def script(app: Top, pilot: Pilot[None]) -> None:
        found.append(styles(app))

    watch(run_dir, script)
    monkeypatch.setenv("NO_COLOR", "1")
    watch(run_dir, script)
    assert len(found[0]) > 1
    assert len(found[1]) <= 1, found[1]
