"""What a name means, and a checkpoint as a folder that engines load."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sppo import compute, config
from sppo.errors import ConfigError
from sppo.evaluation import targets
from sppo.learner import manifest
from tests import makers


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = makers.tiny_model(tmp_path_factory.mktemp("model"))
    makers.tiny_tokenizer(Path(folder), vocabulary=61)
    return folder


@pytest.fixture
def run_dir(model: str, tmp_path: Path) -> Path:
    """A run with one checkpoint, in which every weight is 1 more."""
    settings = makers.run_config(model={"name": model})
    (tmp_path / "config.toml").write_text(config.to_toml(settings))
    folder = tmp_path / "checkpoints" / "step-000004-abcd"
    folder.mkdir(parents=True)
    weights = load_file(f"{model}/model.safetensors")
    save_file({k: w + 1 for k, w in weights.items()}, folder / "model.safetensors")
    (folder / "state.json").write_text(json.dumps({"format": manifest.FORMAT, "step": 4}))
    manifest.write(folder)
    return tmp_path


def test_a_folder_is_itself(model: str, tmp_path: Path) -> None:
    target = targets.find(model)
    assert (target.run_dir, target.folder) == (None, model)
    assert target.resolved(makers.run_config(), tmp_path) == model


def test_a_run_is_its_newest_checkpoint(model: str, run_dir: Path, tmp_path: Path) -> None:
    for name in (run_dir, run_dir / "checkpoints" / "step-000004-abcd"):
        target = targets.find(str(name))
        assert target.run_dir == run_dir
        assert target.checkpoint == run_dir / "checkpoints" / "step-000004-abcd"
    settings = config.load(str(run_dir / "config.toml"), ["compute=float32"])
    settings = compute.decided(settings, cuda=False)
    folder = target.resolved(settings, tmp_path)
    made, base = (load_file(f"{f}/model.safetensors") for f in (folder, model))
    assert made.keys() == base.keys()
    assert all(torch.equal(made[k], base[k] + 1) for k in base)
    assert (Path(folder) / "tokenizer.json").is_file()


def test_a_run_without_a_checkpoint_is_its_export_or_refused(model: str, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("")
    with pytest.raises(ConfigError, match="no checkpoint yet"):
        targets.find(str(tmp_path))
    (tmp_path / "export").symlink_to(model)
    assert targets.find(str(tmp_path)).folder == str(tmp_path / "export")


def test_what_is_none_of_these_is_told_what_was_looked_for(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ConfigError, match=r"no config.toml\), a checkpoint \(no state.json\) and"):
        targets.find(str(empty))
    with pytest.raises(ConfigError, match=r"/nowhere: there is no such folder \(a run, a check"):
        targets.find("/nowhere")
    damaged = run_dir / "checkpoints" / "step-000004-abcd"
    (damaged / "model.safetensors").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"model\.safetensors is damaged: 0 bytes"):
        targets.find(str(damaged))
