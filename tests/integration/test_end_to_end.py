"""The whole loop as a user runs it, from the wheel and in an empty folder: `sppo-cli up`,
interrupted, resumed, finished, looked at.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from sppo import config, samples
from sppo.learner import kept
from sppo.metrics import METRICS
from sppo.report import gather
from sppo.tasks import questions
from sppo.tasks.order import Order
from tests.integration.conftest import processes_below

CLI = str(Path(sys.executable).with_name("sppo-cli"))
HELD_OUT = 24
STEPS, GROUPS = 8, 3  # steps that go on while the run is looked at
TICKETS = STEPS * GROUPS
SETTINGS = [
    "--set", f"learner.steps={STEPS}", "--set", "learner.checkpoint_every=2", "--set",
    f"task.held_out={HELD_OUT}",
    "--set", "compute=float32", "--set", "model.export_dtype=float32",
    "--set", "eval.every_steps=100", "--set", "sampling.completions=4", "--set",
    f"learner.groups_per_step={GROUPS}",
]  # fmt: skip
MINUTES = 60


def start(up: list[Any], folder: Path, log: Path) -> subprocess.Popen[str]:
    with log.open("w") as file:
        return subprocess.Popen(
            up, stdout=file, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            cwd=folder, env=plain(),
        )  # fmt: skip


def plain() -> dict[str, str]:
    """An environment in which Python finds what is installed and no more."""
    return {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}


def status(run_dir: Path) -> dict[str, Any]:
    done = subprocess.run(
        [CLI, "status", str(run_dir), "--json"], capture_output=True, text=True, check=True
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def records(run_dir: Path) -> list[dict[str, Any]]:
    path = run_dir / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def listening_beyond_loopback(pid: int) -> list[str]:
    """Addresses on which the run's processes accept strangers."""
    root = psutil.Process(pid)
    found = []
    for process in [root, *root.children(recursive=True)]:
        try:
            connections = process.net_connections("inet")
        except psutil.NoSuchProcess:
            continue
        doors = [c.laddr for c in connections if c.status == psutil.CONN_LISTEN]
        strange = [
            d
            for d in doors
            if not d.ip.removeprefix("::ffff:").startswith("127.") and d.ip != "::1"
        ]
        found += [f"{process.name()} {d.ip}:{d.port}" for d in strange]
    return found


@pytest.fixture(scope="module")
def story(environment: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One run: started, interrupted by Ctrl-C after a step, resumed to its end."""
    folder, log = tmp_path_factory.mktemp("empty"), tmp_path_factory.mktemp("e2e") / "up.log"
    run_dir, up = folder / "runs/quickstart", [environment / "sppo-cli", "up", "quickstart"]
    up += SETTINGS
    told: dict[str, Any] = {"folder": folder, "run_dir": run_dir}
    told["installed"] = subprocess.run(
        [environment / "python", "-c", "import sppo; print(sppo.__file__)"],
        cwd=folder, env=plain(), capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip

    def wait(process: subprocess.Popen[str], ready: Any, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not ready():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)

    first = start(up, folder, log)
    wait(first, lambda: len(records(run_dir)) >= 1, 4 * MINUTES)
    wait(
        first, lambda: status(run_dir).get("step", 0) >= 1, MINUTES
    )  # `up` writes it a moment later
    told["while running"] = status(run_dir)
    told["open doors"] = listening_beyond_loopback(first.pid)
    second = subprocess.run(
        up, capture_output=True, text=True, check=False, cwd=folder, env=plain()
    )
    told["second up"] = (second.returncode, second.stderr)
    os.killpg(first.pid, signal.SIGINT)  # as a terminal does
    told["interrupted code"] = first.wait(2 * MINUTES)
    told["interrupted log"] = log.read_text()
    told["left after interrupt"] = processes_below(run_dir)
    told["interrupted"] = json.loads((run_dir / "summary.json").read_text())
    told["records before"] = records(run_dir)
    again = start(up, folder, log)
    told["resumed code"] = again.wait(5 * MINUTES)
    told["resumed log"] = log.read_text()
    told["left at the end"] = processes_below(run_dir)
    told["summary"] = json.loads((run_dir / "summary.json").read_text())
    return told


pytestmark = pytest.mark.timeout(12 * MINUTES)


def test_an_interrupt_saves_and_leaves_nothing_running(story: dict[str, Any]) -> None:
    assert story["interrupted code"] == 0, story["interrupted log"]
    assert story["left after interrupt"] == []
    assert story["interrupted"]["finished"] is False
    assert "resume with: sppo-cli up" in story["interrupted log"]


def test_a_second_up_continues_the_count_and_trains_no_ticket_twice(story: dict[str, Any]) -> None:
    assert story["resumed code"] == 0, story["resumed log"]
    assert story["left at the end"] == []
    lines = records(story["run_dir"])
    assert [r["step"] for r in lines] == list(range(1, STEPS + 1))
    assert len({r["epoch"] for r in lines}) == 2
    done = story["interrupted"]["steps"]
    assert lines[:done] == story["records before"][:done]
    uids = [uid for r in lines for uid in r["tickets"]]
    assert len(uids) == len(set(uids)) == TICKETS
    assert sorted(uids) == [f"train-{i:09d}" for i in range(TICKETS)]


def test_checkpoints_hold_training_up_by_at_most_a_tenth_of_their_writing(
    story: dict[str, Any],
) -> None:
    lines = (story["run_dir"] / "events.jsonl").read_text().splitlines()
    written = [e for e in map(json.loads, lines) if e["kind"] == "checkpoint"]
    assert written
    assert all(e["nbytes"] > 1.6e9 for e in written)  # the default model and its moments
    held, took = (sum(e[key] for e in written) for key in ("held_s", "written_s"))
    assert held <= 0.1 * took


def test_it_was_the_wheel_that_ran_and_it_wrote_where_it_says(
    story: dict[str, Any], environment: Path
) -> None:
    assert story["installed"].startswith(str(environment.parent))  # not the tree's
    assert [path.name for path in story["folder"].iterdir()] == ["runs"]


def test_the_summary_tells_the_outcome(story: dict[str, Any]) -> None:
    summary = story["summary"]
    assert (summary["finished"], summary["steps"]) == (True, STEPS)
    assert summary["tickets"] == {"issued": TICKETS, "trained": TICKETS, "twice": 0, "dead": 0}
    assert summary["held_out_accuracy"]["n"] == HELD_OUT
    assert [e["step"] for e in summary["evaluations"]] == [0, STEPS]
    assert set(summary["busy"]) == {"learner", "generator", "scorer"}
    assert all(0 <= share <= 1 for share in summary["busy"].values())
    assert summary["syncs"]["count"] >= STEPS + 2  # one at each start, one after each step
    assert 0 < summary["syncs"]["mean_s"] <= summary["syncs"]["max_s"]
    assert 0 < summary["peak_memory_mb"] < 12_000
    assert story["interrupted"]["wall_s"] < summary["wall_s"]


def test_every_step_is_measured(story: dict[str, Any]) -> None:
    for record in records(story["run_dir"]):
        assert set(record) == set(METRICS)
        assert record["tokens"] > 0
        assert 0 < record["effective_sample_size"] <= 1


def test_groups_of_every_step_are_kept_and_can_be_read(story: dict[str, Any]) -> None:
    kept = samples.read(story["run_dir"])
    tickets = {r["step"]: r["tickets"] for r in records(story["run_dir"])}
    train = [s for s in kept if s["stream"] == "train"]
    assert {s["step"] for s in train} == set(tickets)
    assert all(s["uid"] in tickets[s["step"]] for s in train)
    assert len({(s["step"], s["uid"]) for s in kept}) == len(kept)  # the resume left none twice
    assert {s["step"] for s in kept if s["stream"] == "eval"} == {0, STEPS}
    for sample in kept:
        assert sample["messages"][-1]["role"] == "user"
        assert len(sample["completions"]) == len(sample["lengths"]) == len(sample["rewards"])
    asked = [CLI, "samples", str(story["run_dir"]), "--step=-1", "--sort=best"]
    shown = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    assert f"── step {STEPS}  train  train-" in shown


def test_parity_was_checked_and_printed(story: dict[str, Any]) -> None:
    assert "parity: mean |engine - learner| log-prob" in story["interrupted log"]
    assert "threshold 0.01, float32" in story["interrupted log"]
    assert 0 < records(story["run_dir"])[0]["mismatch"] < 1e-3


def test_status_shows_a_running_run_and_a_second_up_is_refused(story: dict[str, Any]) -> None:
    seen = story["while running"]
    assert (seen["state"], seen["steps"]) == ("running", STEPS)
    assert seen["step"] >= 1
    assert seen["held_out_accuracy"] is not None
    code, error = story["second up"]
    assert code == 2
    assert "sppo-cli down" in error
    finished = status(story["run_dir"])
    assert (finished["state"], finished["pid"]) == ("finished", None)


def test_nothing_listens_beyond_loopback(story: dict[str, Any]) -> None:
    assert story["open doors"] == []


def test_each_role_has_its_log_and_no_secret_is_written(story: dict[str, Any]) -> None:
    run_dir = story["run_dir"]
    assert sorted(p.name for p in (run_dir / "logs").iterdir()) == [
        "generator-0.log", "learner-0.log", "scorer-0.log", "up.log"
    ]  # fmt: skip
    resolved = (run_dir / "config.toml").read_text()
    assert "password" not in resolved
    assert "token =" not in resolved


def test_the_report_tells_what_every_role_did_and_the_groups_are_kept(
    story: dict[str, Any],
) -> None:
    found = gather.run(story["run_dir"])
    assert found["state"] == "finished"
    assert found["metrics"]["step"] == list(range(1, STEPS + 1))
    lanes = found["timeline"]["lanes"]
    assert list(lanes) == ["learner", "generator-0", "scorer-0"]
    assert {"trains", "weight sync", "evaluating"} <= {
        what for *_, what in lanes["learner"]["spans"]
    }
    assert max(lanes["generator-0"]["busy"]) > 0
    assert sum(lanes["generator-0"]["tokens_s"]) > 0
    assert {"sppo", "torch"} <= found["versions"].keys()
    assert list(kept.files(story["run_dir"] / "groups")) == list(range(1, STEPS + 1))


def test_no_held_out_question_was_trained(story: dict[str, Any]) -> None:
    # The tickets of this run are those of its configuration by index; see also tests/unit/tasks.
    run = config.load(str(story["run_dir"] / "config.toml"))
    loaded = questions.load(run.task, run.seed)
    order = Order(loaded, run.seed)
    trained = {order.question(i).text for i in range(TICKETS)}
    assert not trained & {q.text for q in loaded.held_out}


def test_plain_transformers_gives_the_exported_model_the_same_accuracy(
    story: dict[str, Any],
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from sppo.scorer.rules import last_number

    run = config.load(str(story["run_dir"] / "config.toml"))
    export = str(story["run_dir"] / "export")
    tokenizer = AutoTokenizer.from_pretrained(export, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(export, dtype=torch.float32)
    held_out = questions.load(run.task, run.seed).held_out
    chats = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": q.text}], add_generation_prompt=True, tokenize=False
        )
        for q in held_out
    ]
    inputs = tokenizer(chats, return_tensors="pt", padding=True)
    with torch.no_grad():
        options = {
            "max_new_tokens": 16,
            "do_sample": False,
            "output_logits": True,
            "return_dict_in_generate": True,
        }
        outputs = model.generate(**inputs, **options)
    tokens_NL = outputs.sequences[:, inputs["input_ids"].shape[1] :]
    texts = tokenizer.batch_decode(tokens_NL, skip_special_tokens=True)
    right_N = torch.tensor(
        [last_number(q.text, [t], q.data)[0] == 1 for q, t in zip(held_out, texts, strict=True)]
    )
    # The export has the run's own number format, so only a near-tie may turn out otherwise: rounded
    # to bf16, so few small steps would be gone.
    best_NL2 = torch.stack([logits_NV.topk(2).values for logits_NV in outputs.logits], 1)
    stop_NL = tokens_NL == tokenizer.eos_token_id
    over_NL = stop_NL.cumsum(1) > stop_NL.long()
    decided_N = (best_NL2[..., 0] - best_NL2[..., 1]).masked_fill(over_NL, torch.inf).amin(1) > 0.05
    answers = round(story["summary"]["held_out_accuracy"]["after"] * len(held_out))
    certain = int((right_N & decided_N).sum())
    undecided = int((~decided_N).sum())
    assert certain <= answers <= certain + undecided
    assert undecided < len(held_out) / 2


def test_a_role_that_dies_at_start_ends_up_with_its_last_lines(tmp_path: Path) -> None:
    done = subprocess.run(
        [CLI, "up", "quickstart", "--run-dir", str(tmp_path / "run"), "--set",
         "generator.kv_cache_gib=60000"],
        capture_output=True, text=True, check=False, timeout=3 * MINUTES,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert "generator-0 ended by itself" in done.stderr
    assert "Hint:" in done.stderr
    assert processes_below(tmp_path / "run") == []
