"""A learner whose ranks are on two machines: two network namespaces with a cable between them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests import checkpoints, makers
from tests.integration import rank

NAME = "centered"


def ip(*words: str) -> bool:
    return subprocess.run(["ip", *words], capture_output=True).returncode == 0


@contextmanager
def machines() -> Iterator[tuple[list[list[str]], str]]:
    """What begins a command on each of two machines, and the address of the first. Where this user
    may have no namespaces: this machine twice.
    """
    names = [f"sppo-{side}-{os.getpid()}" for side in "ab"]
    try:
        if not all(ip("netns", "add", name) for name in names):
            yield [[], []], "127.0.0.1"
            return
        ends = [f"sa{os.getpid()}"[:15], f"sb{os.getpid()}"[:15]]
        assert ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        for name, end, address in zip(names, ends, ("10.97.0.1", "10.97.0.2"), strict=True):
            assert ip("link", "set", end, "netns", name)
            inside = ["ip", "-n", name]
            for words in (
                ["addr", "add", f"{address}/24", "dev", end],
                ["link", "set", end, "up"],
                ["link", "set", "lo", "up"],
            ):
                subprocess.run([*inside, *words], check=True)
        yield [["ip", "netns", "exec", name] for name in names], "10.97.0.1"
    finally:
        for name in names:
            ip("netns", "del", name)


@pytest.mark.timeout(200)
def test_a_step_of_two_machines_is_that_of_one_rank(tmp_path: Path) -> None:
    # Given what one rank makes of a batch
    makers.tiny_model(tmp_path / "model", vocabulary=rank.VOCABULARY)
    expected = rank.alone(NAME, tmp_path)
    # When two ranks do that meet over the network
    with machines() as (ways, address):
        at = os.environ | {"MASTER_ADDR": address, "MASTER_PORT": "29517"}
        script = [sys.executable, "-m", "tests.integration.rank"]
        ranks = [
            subprocess.Popen([*way, *script, str(r), "2", str(tmp_path), NAME], env=at)
            for r, way in enumerate(ways)
        ]
        try:
            assert [p.wait(120) for p in ranks] == [0, 0]
        finally:
            for p in ranks:
                p.kill()
    # Then gradients and losses are the same, and the checkpoint of both is read by one
    one, two = (load_file(tmp_path / f"gradients-{NAME}-{n}.safetensors") for n in (1, 2))
    assert two.keys() == one.keys()
    for key, value in one.items():
        assert float((two[key] - value).norm()) <= 1e-5 * float(value.norm()) + 1e-9, key
    figures = json.loads((tmp_path / f"figures-{NAME}-2.json").read_text())
    assert figures["1.loss"] == pytest.approx(expected["1.loss"], rel=1e-4)
    rank.alone_again(NAME, tmp_path)
    saved = {p.name: next(p.iterdir()) for p in (tmp_path / f"saved-{NAME}").iterdir()}
    written, read = (checkpoints.load(saved[key]) for key in ("2", "2-1"))
    assert all(torch.equal(read[name], w) for name, w in written.items())
