"""Placement by a real Ray, on machines that are pretended."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests import makers
from tests.integration.conftest import REPOSITORY


@pytest.mark.timeout(240)
def test_roles_go_where_they_were_reckoned_and_ranks_train_on_two_machines(tmp_path: Path) -> None:
    makers.tiny_tokenizer(Path(makers.tiny_model(tmp_path / "model")), vocabulary=61)
    found = subprocess.run(
        [sys.executable, "-m", "tests.integration.pretended", str(tmp_path)],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    logs = [f"== {p.name}\n{p.read_text()[-3000:]}" for p in (tmp_path / "logs").glob("*")]
    assert found.returncode == 0, found.stderr[-3000:] + "\n".join(logs)
    told = json.loads(found.stdout.splitlines()[-1])
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
