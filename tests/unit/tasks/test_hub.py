"""Data sets of `datasets`: folders, the hub's cache, and what is said where there is neither."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import httpx
import pytest

from sppo.errors import ConfigError
from sppo.tasks import hub, tables
from sppo.tasks.rows import Tally

ROWS = {"question": ["a", "b"], "answer": ["1", "2"]}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Caches of the test's own, and no hub."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "built"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "built"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()
    yield tmp_path / "hub"
    datasets.enable_progress_bars()


def load(place: object) -> list[dict[str, Any]]:
    rows = tables.rows(hub.load(str(place), "task.name = 'hf:x'"), "x", Tally(setting=""))
    return [dict(row.columns) for row in rows]


def repository(folder: Path) -> Path:
    """A data set's repository with two subsets of two splits."""
    card = ["---", "configs:"]
    for subset in ("main", "plain"):
        (folder / subset).mkdir(parents=True)
        card += [f"- config_name: {subset}", "  data_files:"]
        for split in ("train", "test"):
            rows = {"question": [f"{subset} {split}"]}
            datasets.Dataset.from_dict(rows).to_parquet(str(folder / subset / f"{split}.parquet"))
            card += [f"  - split: {split}", f"    path: {subset}/{split}.parquet"]
    (folder / "README.md").write_text("\n".join([*card, "---", ""]), encoding="utf-8")
    return folder


def snapshot(cache: Path, name: str) -> Path:
    """Where the hub's own tools keep the files of a data set."""
    folder = cache / f"datasets--{name.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("c0ffee", encoding="utf-8")
    return repository(folder / "snapshots" / "c0ffee")


def test_a_saved_data_set_is_read_with_and_without_splits(tmp_path: Path) -> None:
    saved = datasets.Dataset.from_dict(ROWS)
    saved.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": saved, "test": saved.select([1])}).save_to_disk(tmp_path / "two")
    datasets.DatasetDict({"test": saved.select([0])}).save_to_disk(tmp_path / "only")
    wanted = [{"question": "a", "answer": "1"}, {"question": "b", "answer": "2"}]
    assert load(tmp_path / "one") == wanted
    assert load(tmp_path / "two") == wanted  # train, where nothing is said
    assert load(f"{tmp_path}/two:test") == wanted[1:]
    assert load(tmp_path / "only") == wanted[:1]  # the only one


def test_a_repository_is_read_by_subset_and_split(tmp_path: Path) -> None:
    place = repository(tmp_path / "repo")
    assert load(f"{place}:main:test") == [{"question": "main test"}]
    assert load(f"{place}:plain:train") == [{"question": "plain train"}]


def test_a_folder_that_has_changed_and_one_of_the_same_name_are_read_as_they_are(
    tmp_path: Path,
) -> None:
    for parent in ("a", "b"):
        folder = repository(tmp_path / parent / "repo")
        for text in (parent, f"{parent} changed"):
            rows = datasets.Dataset.from_dict({"question": [text]})
            rows.to_parquet(str(folder / "main" / "train.parquet"))
            assert load(f"{folder}:main:train") == [{"question": text}]


def test_rows_of_several_kinds_in_one_column_come_as_they_are(tmp_path: Path) -> None:
    rows = [{"question": "q", "n": 1}, {"question": ["x"], "n": {"a": None}}]
    (tmp_path / "mixed").mkdir()
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "mixed" / "a.jsonl").write_text(text, encoding="utf-8")
    assert load(tmp_path / "mixed") == rows


def test_files_that_the_hubs_tools_have_fetched_serve_offline(cache: Path) -> None:
    snapshot(cache, "owner/Some-Set")
    assert load("owner/Some-Set:main:test") == [{"question": "main test"}]
    assert hub.absent("owner/Some-Set:main:test") == ""


def test_what_datasets_has_built_is_known_to_be_there(tmp_path: Path) -> None:
    (tmp_path / "built" / "owner___some_set").mkdir(parents=True)
    assert hub.absent("owner/SomeSet") == ""
    assert "hf download owner/other --repo-type dataset" in hub.absent("owner/other:test")
    assert hub.absent("./folder") == "no folder ./folder; put it there, or name another"


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("owner/name:test", r"not on this disk, and HF_HUB_OFFLINE is set; .*hf download owner/n"),
        ("json", "no folder json; a data set of the hub is written owner/json"),
        ("./nowhere", r"no folder \./nowhere"),
        ("one:train", "without splits; leave 'train' out"),
        ("two:val", "no split 'val'; there are train, test"),
        ("two:main:test", "no subsets such as 'main'"),
        ("repo", r"\['main', 'plain'\].* hf:repo:<subset>:<split>"),
        ("repo:nope:test", r"\['main', 'plain'\].* hf:repo:<subset>:<split>"),
        ("other", r"cannot be read together: .*other.*same columns"),
        ("latin", "is not UTF-8"),
        ("broken", "cannot be read together: "),
        ("empty", "data files"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    saved = datasets.Dataset.from_dict(ROWS)
    if place.startswith("one"):
        saved.save_to_disk("one")
    if place.startswith("two"):
        datasets.DatasetDict({"train": saved, "test": saved}).save_to_disk("two")
    if place.startswith("repo"):
        repository(Path("repo"))
    for name, files in {
        "other": {"a.jsonl": b'{"question": "q", "a": 1}\n', "b.jsonl": b'{"other": 1}\n'},
        "latin": {"a.csv": b"question\nx\xe9\n"},
        "broken": {"a.parquet": b"no parquet"},
        "empty": {"a.bin": b"x"},
    }.items():
        if place == name:
            Path(name).mkdir()
            for file, data in files.items():
                (Path(name) / file).write_bytes(data)
    with pytest.raises(ConfigError, match=rf"^task\.name = 'hf:x': .*{words}") as said:
        load(place)
    assert "\n" not in str(said.value)


def test_a_hub_that_does_not_answer_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(url: str, **_: Any) -> None:
        asked.append(url)
        raise httpx.ConnectError("no network")

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(httpx, "head", refuse)
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: pytest.fail("asked again"))
    with pytest.raises(ConfigError, match=r"https://\S+ does not answer; fetch it where"):
        load("owner/name")
    assert len(asked) == 1
    assert datasets.config.HF_HUB_OFFLINE is False


@pytest.mark.parametrize(
    ("place", "wanted"),
    [
        ("owner/name", ("owner/name", "", "")),
        ("owner/name:test", ("owner/name", "", "test")),
        ("owner/name:main:test", ("owner/name", "main", "test")),
        ("/data/a:b:main:test", ("/data/a:b", "main", "test")),
    ],
)
def test_a_place_is_name_subset_and_split(place: str, wanted: tuple[str, str, str]) -> None:
    assert hub.parts(place) == wanted


def test_a_folder_with_a_colon_is_a_name(tmp_path: Path) -> None:
    (tmp_path / "a:b").mkdir()
    assert hub.parts(f"{tmp_path}/a:b") == (f"{tmp_path}/a:b", "", "")
