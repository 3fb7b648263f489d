"""Placement by a real Ray, on machines that are pretended."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from sppo_cli import plan_command

from sppo import config
from sppo.errors import ConfigError
from sppo.learner import replay
from tests import makers
from tests.integration import pretended
from tests.integration.conftest import REPOSITORY


@pytest.mark.timeout(240)
def test_roles_go_where_they_were_reckoned_and_ranks_train_on_two_machines(tmp_path: Path) -> None:
    makers.tiny_tokenizer(Path(makers.tiny_model(tmp_path / "model")), vocabulary=61)
    ended = subprocess.run(
        [sys.executable, "-m", "tests.integration.pretended", str(tmp_path)],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    logs = [f"== {p.name}\n{p.read_text()[-3000:]}" for p in (tmp_path / "logs").glob("*")]
    assert ended.returncode == 0, ended.stderr[-3000:] + "\n".join(logs)
    told = json.loads(ended.stdout.splitlines()[-1])
    # The learner of eight GPUs has a machine, eight generators the other; two scorers ask for none
    (learner,) = told["placed"].pop("learner-0")
    others = Counter(node for nodes in told["placed"].values() for node in nodes)
    assert list(others.values()) == [8]
    assert learner not in others
    # Two ranks of a core each, where no machine has two free, trained on both
    assert (told["trained"]["ended"], told["trained"]["steps"]) == ("learner-0", 2)
    assert sorted(told["trained"]["nodes"]) == ["learner-0", "learner-0.1"]
    assert len(set(told["trained"]["nodes"].values())) == 2
    assert "rank 1 of 2 is ready" in (tmp_path / "logs" / "learner-0.1.log").read_text()
    # and what they took together one process takes again (`sppo-cli replay`)
    again = replay.replay(tmp_path, pretended.settings(tmp_path), 2)
    assert again["recorded"]
    assert [figure for figure in again["metrics"] if not figure["same"]] == []


@pytest.mark.timeout(300)
def test_every_preset_is_planned_placed_and_shown_within_a_minute_without_a_gpu() -> None:
    began = time.process_time()  # of this process, whatever else the machine does
    for preset in config.presets():
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.suppress(ConfigError):
            # Some do not fit on this machine's CPU: that is said after the rest
            plan_command.dry_run(config.load(preset, environment=False), Path("runs/x"))
        assert all(word in said.getvalue() for word in ("placement", "learner, rank 0")), preset
    assert time.process_time() - began < 60
