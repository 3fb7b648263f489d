"""What was damaged after it was written is found, named, and the way on is said."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from sppo.errors import ConfigError
from sppo.learner import manifest

FILES = ("model/1.safetensors", "optimizer/1.safetensors", "state.json")


def make(root: Path, step: int, form: int = manifest.FORMAT) -> Path:
    folder = root / f"step-{step:06d}-abc12345"
    files = {}
    for name in FILES[:2]:
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(bytes(range(250)) * 40)
        files[name] = manifest._describe(folder / name)
    (folder / "state.json").write_text(json.dumps({"format": form, "step": step}))
    if form in (manifest.WHOLE, manifest.FORMAT):
        manifest.write(folder, files)
    return folder


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_checkpoint_as_it_was_written_is_the_newest(tmp_path: Path) -> None:
    make(tmp_path, 20)
    found = manifest.newest(tmp_path)
    assert found is None or found[0].name == "step-000020-abc12345"
    last = make(tmp_path, 40)
    assert manifest.newest(tmp_path) == (last, {"format": manifest.FORMAT, "step": 40})
    assert manifest.newest(tmp_path / "none") is None


@pytest.mark.parametrize(
    "damage", [cut, zero, flip, Path.unlink], ids=["cut", "zeroed", "one bit", "missing"]
)
@pytest.mark.parametrize("name", [*FILES, manifest.NAME])
def test_a_damaged_file_is_named_and_the_older_checkpoint_offered(
    name: str, damage: Callable[[Path], None], tmp_path: Path
) -> None:
    # Given two checkpoints, the newer one damaged
    root = tmp_path / "my runs"
    make(root, 20)
    newer = make(root, 40)
    damage(newer / name)
    # When it is looked for
    with pytest.raises(
        ConfigError, match=r"go on from step-000020-abc12345, after step 20"
    ) as refused:
        manifest.newest(root)
    # Then the message names a file of it in one line, and what it says to do leads to the older one
    assert str(newer) in str(refused.value)
    assert name in str(refused.value) or name == manifest.NAME
    assert "\n" not in str(refused.value)
    command = str(refused.value).split("start again: ")[1]
    assert shlex.split(command)[0] == "mv"
    subprocess.run(command, shell=True, check=True)
    found = manifest.newest(root)
    assert found is not None
    assert found[1]["step"] == 20


def test_only_a_whole_one_is_offered(tmp_path: Path) -> None:
    for step in (20, 40, 60):
        make(tmp_path, step)
    for step in (40, 60):
        cut(tmp_path / f"step-{step:06d}-abc12345" / "model/1.safetensors")
    with pytest.raises(
        ConfigError, match=r"after step 20.*step-000060-abc12345.damaged && mv .*step-000040"
    ):
        manifest.newest(tmp_path)


def test_without_a_whole_one_the_way_on_is_to_begin_anew(tmp_path: Path) -> None:
    cut(make(tmp_path, 20) / "optimizer/1.safetensors")
    with pytest.raises(
        ConfigError, match=r"optimizer/1\.safetensors is damaged.*no older one.*another --run-dir"
    ):
        manifest.newest(tmp_path)


def test_formats_before_are_read_and_another_one_named(tmp_path: Path) -> None:
    for step, form in ((10, manifest.WHOLE), (20, manifest.UNVERIFIED)):
        make(tmp_path, step, form=form)
        assert manifest.newest(tmp_path) is not None
    make(tmp_path, 40, form=9)
    with pytest.raises(ConfigError, match=r"format 9, this version reads 2 to 4"):
        manifest.newest(tmp_path)
