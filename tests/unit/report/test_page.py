"""The report as one file: what is inside, what is not, and how large it is."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from sppo.errors import ConfigError
from sppo.report import page
from tests import written_runs


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def inside(text: str, name: str) -> Any:
    found = re.search(rf'id="run-{name}">([^<]*)<', text)
    assert found is not None
    return json.loads(zlib.decompress(base64.b64decode(found[1])))


def test_nothing_is_loaded_and_only_our_script_may_run(tmp_path: Path) -> None:
    text = page.make([written_runs.make(tmp_path / "run", steps=3)])
    tags = Tags()
    tags.feed(text)
    assert not [attrs for _, attrs in tags.found if {"src", "href", "style"} & attrs.keys()]
    assert {tag for tag, _ in tags.found} <= {
        "html", "head", "meta", "title", "style", "body", "header", "h1", "nav", "noscript", "p",
        "main", "dialog", "script",
    }  # fmt: skip
    (policy,) = [a["content"] for _, a in tags.found if a.get("http-equiv")]
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    assert len(digests) == 2
    assert all(f"'sha256-{digest}'" in policy for digest in digests)
    assert "unsafe" not in policy


def test_the_script_puts_nothing_on_the_page_as_html() -> None:
    script = (Path(page.__file__).parent / "page.js").read_text(encoding="utf-8")
    code = re.sub(r"//.*", "", script)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", code)


def test_a_hostile_name_stays_text(tmp_path: Path) -> None:
    run = written_runs.make(tmp_path / "<img src=x onerror=alert(1)>", steps=1)
    assert "<img" not in page.make([run])


def test_every_metric_has_a_chart(tmp_path: Path) -> None:
    text = page.make([written_runs.make(tmp_path / "run", steps=3)])
    data = inside(text, "data")
    charts = [*data["charts"]["main"], *data["charts"]["rest"]]
    shown = {name for chart in charts for name, _ in chart["series"]}
    assert shown | set(page.OTHERS) >= data["runs"][0]["metrics"].keys()


def test_runs_of_one_name_are_told_apart_and_a_run_is_named_once(tmp_path: Path) -> None:
    runs = [written_runs.make(tmp_path / each / "run", steps=1) for each in "ab"]
    names = [run["name"] for run in inside(page.make(runs), "data")["runs"]]
    assert names == ["a/run", "b/run"]
    with pytest.raises(ConfigError, match="name each run once"):
        page.make([runs[0], tmp_path / "a" / "." / "run"])


def test_samples_that_do_not_fit_are_left_out_by_whole_steps_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = written_runs.make(tmp_path / "run", steps=8, groups=2)
    whole = inside(page.make([run]), "samples")
    assert (whole["every"], len(whole["kept"][0]), whole["there"]) == (1, 16, [16])
    monkeypatch.setattr(page, "MOST_TEXT_BYTES", len(json.dumps(whole)) // 3)
    fewer = inside(page.make([run]), "samples")
    assert fewer["every"] == 4
    assert [sample["step"] for sample in fewer["kept"][0]] == [1, 1, 5, 5]
    assert fewer["there"] == [16]


def test_a_page_that_is_full_already_has_no_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = written_runs.make(tmp_path / "run", steps=2)
    monkeypatch.setattr(page, "MOST_BYTES", 1000)
    found = inside(page.make([run]), "samples")
    assert found["kept"] == [[]]
    assert found["there"] == [8]
