"""What a name means, and a checkpoint as a folder that engines load."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sppo import compute, config
from sppo.errors import ConfigError
from sppo.evaluation import targets
from sppo.learner.adapters import Adapters
from sppo.learner.model import Logprobs, Policy
from tests import checkpoints, makers


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
    weights = load_file(f"{model}/model.safetensors")
    more = {k: w + 1 for k, w in weights.items()}
    checkpoints.save(tmp_path / "checkpoints", 4, epoch="abcd", model=more.items())
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


def test_adapters_of_a_checkpoint_are_merged_into_the_model(model: str, tmp_path: Path) -> None:
    settings = makers.run_config(model={"name": model}, adapter={"rank": 4})
    settings = settings.model_copy(update={"compute": "float32"})
    policy = Policy(
        model, device="cpu", logprobs=Logprobs(temperature=1.0), compute=torch.float32,
        adapted=Adapters.of(settings),
    )  # fmt: skip
    moved = {name: w + 0.5 for name, w in policy.masters()}
    folder = checkpoints.save(tmp_path / "checkpoints", 4, model=moved.items())
    target = targets.Target(name="it", checkpoint=folder)
    made = load_file(f"{target.resolved(settings, tmp_path)}/model.safetensors")
    expected = dict(policy._merged(moved, torch.float32))
    base = load_file(f"{model}/model.safetensors")
    assert all(torch.equal(made[name], w) for name, w in expected.items() if name in made)
    assert not all(torch.equal(made[name], w) for name, w in base.items())


def test_a_checkpoint_of_another_model_than_the_runs_is_refused_in_one_line(
    run_dir: Path, tmp_path: Path
) -> None:
    weight = {"w": torch.ones(3)}
    folder = checkpoints.save(run_dir / "checkpoints", 8, epoch="abcd", model=weight.items())
    settings = compute.decided(config.load(str(run_dir / "config.toml"), []), cuda=False)
    with pytest.raises(ConfigError, match=r"step-000008-abcd is of another model than model\.name"):
        targets.Target(name="it", checkpoint=folder).resolved(settings, tmp_path)


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
    (damaged / "model" / "00001-of-00001.safetensors").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"model/00001-.* is damaged: 0 bytes"):
        targets.find(str(damaged))
