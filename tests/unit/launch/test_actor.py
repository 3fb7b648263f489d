"""What Ray runs: each in a process of its own, as it makes that process the role's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json, os, sys
from pathlib import Path
from types import SimpleNamespace
import ray
from sppo import config, errors, marks
from sppo.launch import roles
from sppo.launch.actor import Role

run_dir, how = Path(sys.argv[1]), sys.argv[2]
context = SimpleNamespace(get_node_id=lambda: "node-1", gcs_address="h:1")
ray.get_runtime_context = lambda: context
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # as Ray leaves it to an actor without a GPU
seen = {}

def work(role, name, run, run_key, *, spread):
    seen["spread"] = spread, os.environ.get("RAY_ADDRESS"), os.environ.get("CUDA_VISIBLE_DEVICES")
    print("at work", flush=True)
    seen.update(role=role, name=name, key=run_key, user=run.broker.username,
                password=run.broker.password.get_secret_value(), mark=os.environ[marks.VARIABLE],
                judge=run.scorer.judge.api_key.get_secret_value())
    if how == "ours":
        raise errors.ConfigError("mend it")
    if how == "other":
        raise ValueError("odd\\nvalue")

roles.run_worker = work
given = config.load("quickstart", environment=False)
broker = {"url": "unix:///s", "username": "scorer", "password": "secret"}
try:
    seen["outcome"] = Role().run("scorer", "scorer-0", "key", config.to_json(given), broker,
                                 "token", "a key", str(run_dir), "/x", False, {"SOME": "value"},
                                 engine=how == "well")
except Exception as error:
    seen["error"] = f"{type(error).__name__}: {error}"
seen["path"] = sys.path[0]
seen["variable"] = os.environ["SOME"]
(run_dir / "seen").write_text(json.dumps(seen))
"""


@pytest.mark.parametrize(
    ("how", "error"),
    [("well", None), ("ours", "ConfigError: mend it"), ("other", "RuntimeError: ValueError: odd")],
)
def test_a_role_gets_its_settings_and_secrets_and_its_errors_travel(
    how: str, error: str | None, tmp_path: Path
) -> None:
    (tmp_path / "logs").mkdir()
    subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path), how], check=True, timeout=60)
    seen = json.loads((tmp_path / "seen").read_text())
    assert (seen["role"], seen["name"], seen["key"]) == ("scorer", "scorer-0", "key")
    assert (seen["user"], seen["password"]) == ("scorer", "secret")
    # vLLM is to put its ranks in the placement group: it finds Ray, and this machine's GPUs
    assert seen["spread"] == ([True, "h:1", None] if how == "well" else [False, None, ""])
    assert seen["judge"] == "a key"
    assert seen["variable"] == "value"
    assert seen["mark"] == f"{tmp_path}:scorer-0"
    assert seen["path"] == "/x"
    assert seen.get("error") == error
    assert "at work" in (tmp_path / "logs" / "scorer-0.log").read_text()
    assert json.loads((tmp_path / "pids" / "scorer-0.json").read_text())["node"] == "node-1"
