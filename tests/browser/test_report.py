"""The report in a real browser: nothing goes wrong, nothing is loaded, and what can be done can be
done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from sppo.report import gather
from sppo.report import page as report
from tests import written_runs

OPENS_S = 2.0
"""The bar for a run of 1,000 steps."""
BUSY = 5.0
"""How much longer it may take by the clock, where others use the machine too."""
READY = "body[data-ready]"
pytestmark = pytest.mark.timeout(600)  # Chromium may have to be downloaded first
XS = """[...document.querySelectorAll('.curve')].filter((each) => each.plot).map(
  (each) => [each.plot.scales.x.min, each.plot.scales.x.max])"""

Opened = Callable[..., Page]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    written_runs.make(folder / "a", steps=60)
    written_runs.make(folder / "b", steps=40, overrides=["optimizer.lr=3e-6"], seed=1)
    written_runs.broken(folder / "died")
    return folder


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Iterator[Opened]:
    """Opens the report of these runs, and looks at the end whether anything went wrong in it or was
    asked for.
    """
    wrong: list[str] = []
    asked: list[str] = []
    context = browser.new_context(viewport={"width": 1400, "height": 900})

    def open_(*run_dirs: Path) -> Page:
        path = tmp_path / "report.html"
        path.write_text(report.make(run_dirs), encoding="utf-8")
        page = context.new_page()
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_selector(READY)
        return page

    yield open_
    assert not wrong
    assert all(url.startswith("file://") for url in asked)
    assert len(asked) == 1
    context.close()


def test_a_curve_zooms_and_the_others_with_it(opened: Opened, runs: Path) -> None:
    page = opened(runs / "a")
    before = page.evaluate(XS)
    box = page.locator(".curve .u-over").first.bounding_box()
    assert box is not None
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 0.5 * box["width"], middle)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.75 * box["width"], middle, steps=4)
    page.mouse.up()
    after = page.evaluate(XS)
    assert before[0] == [0, 60]
    assert after[0] == pytest.approx([30, 45], abs=2)
    assert all(each == pytest.approx(after[0], abs=2) for each in after)
    page.locator(".curve .u-over").first.dblclick()
    assert page.evaluate(XS) == before


def test_a_sample_opens_and_hostile_text_stays_text(opened: Opened, runs: Path) -> None:
    page = opened(runs / "a")
    page.locator("#samples input[type=search]").fill("Question 2 of step 31.")
    row = page.locator("#samples tr.opens")
    assert row.count() == 1
    row.click()
    texts = page.locator("dialog pre.completion").all_text_contents()
    assert sorted(texts) == [f"Answer {k}: {written_runs.HOSTILE}" for k in range(8)]
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible()
    assert page.locator("img").count() == 0
    assert page.title() == "sppo report: a"


def test_scores_of_samples_stand_over_steps_and_follow_what_is_chosen(
    opened: Opened, runs: Path
) -> None:
    page = opened(runs / "a")
    drawn = "document.querySelector('#samples .curve').plot.data"
    steps, *curves = page.evaluate(drawn)
    groups = [sample["scores"] for sample in gather.kept_samples(runs / "a")]
    scores = {1 + i // 4: [*chain(*groups[i : i + 4])] for i in range(0, len(groups), 4)}
    assert steps == list(scores)
    assert curves[0] == [max(each) for each in scores.values()]
    assert curves[1] == pytest.approx([sum(each) / len(each) for each in scores.values()])
    assert curves[2] == [min(each) for each in scores.values()]
    page.locator("#samples input[type=search]").fill("Question 2 of step 31.")
    assert page.evaluate(drawn)[0] == [31]
    assert page.evaluate(drawn)[2] == pytest.approx([sum(groups[122]) / 8])


def test_two_runs_stand_side_by_side(opened: Opened, runs: Path) -> None:
    page = opened(runs / "a", runs / "b")
    assert page.locator(".card.run").count() == 2
    labels = page.locator(".curve").first.locator(".u-label").all_text_contents()
    assert labels == ["step", "a mean", "b mean"]
    assert page.evaluate(XS)[0] == [0, 60]
    differing = page.locator("#configuration tr.differs")
    assert differing.all_text_contents() == ["optimizer.lr0.000010.000003"]
    assert not page.locator("#configuration tr.same").first.is_visible()
    assert page.locator(".lanes").count() == 2


def test_a_lane_says_what_was_done_and_waited_for(opened: Opened, runs: Path) -> None:
    page = opened(runs / "a")
    page.locator(".lanes").scroll_into_view_if_needed()
    box = page.locator(".lanes .u-over").bounding_box()
    assert box is not None
    said = []
    for lane in range(3):
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + (lane + 0.5) / 3 * box["height"])
        said.append(page.locator(".lanes .said").text_content() or "")
    assert "learner: " in said[0]
    assert "generator-0: busy 80 %" in said[1]
    assert "else waits for tickets of the learner" in said[1]
    assert "scorer-0: busy 10 %" in said[2]


def test_what_happened_can_be_chosen_by_kind(opened: Opened, runs: Path) -> None:
    page = opened(runs / "a")
    rows = page.locator("#what-happened tbody tr")
    assert rows.count() == 3
    page.locator("#what-happened select").select_option("dead")
    assert rows.all_text_contents() == ["0:00:26adeadtrain-000000003: the scorer refused it"]
    page.locator("#curves details summary").click()
    assert page.locator("#curves details .curve").count() > 10


def test_a_run_that_died_has_a_page_too(opened: Opened, runs: Path) -> None:
    page = opened(runs / "died")
    assert "died" in (page.locator(".card.run").text_content() or "")
    assert "no samples were kept" in (page.locator("#samples").text_content() or "")


def test_a_thousand_steps_open_in_two_seconds_and_eight_megabytes(
    browser: Browser, tmp_path: Path
) -> None:
    said = written_runs.prose(100)
    run = written_runs.make(tmp_path / "long", steps=1000, groups=4, text=lambda: next(said))
    path = tmp_path / "report.html"
    path.write_text(report.make([run]), encoding="utf-8")
    page = browser.new_page()
    figures = page.context.new_cdp_session(page)
    figures.send("Performance.enable", {"timeDomain": "threadTicks"})
    began = time.monotonic()
    page.goto(path.as_uri())
    page.wait_for_selector(READY)
    seconds = time.monotonic() - began
    drawn_s, ready_s = (
        page.evaluate(f"Number(document.body.dataset.{name})") / 1000 for name in ("drawn", "ready")
    )
    metrics = figures.send("Performance.getMetrics")["metrics"]
    (cpu_s,) = [each["value"] for each in metrics if each["name"] == "TaskDuration"]
    size, kept = (file.stat().st_size / 1e6 for file in (path, run / "samples.jsonl"))
    print(f"\n  1,000 steps, {kept:.0f} MB of samples: {size:.1f} MB, curves {drawn_s:.2f} s and "
          f"all {ready_s:.2f} s after navigation, {cpu_s:.2f} s its own (bar {OPENS_S} s). "
          f"{page.locator('#samples p').first.text_content()}")  # fmt: skip
    page.close()
    assert size < 8
    assert cpu_s < OPENS_S
    assert drawn_s < ready_s < BUSY * OPENS_S
    assert seconds < BUSY * OPENS_S
