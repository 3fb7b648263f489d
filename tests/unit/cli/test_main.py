"""The command line as a user meets it: real processes, exit codes, one clear line."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from sppo_cli import commands, train_commands

from sppo import __version__
from sppo.errors import SppoError

CLI = str(Path(sys.executable).with_name("sppo-cli"))


def call(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [CLI, *arguments], capture_output=True, text=True, timeout=60, cwd=cwd, check=False
    )


def test_help_and_version() -> None:
    assert __version__ in call("--version").stdout
    shown = call("--help").stdout
    assert all(word in shown for word in ("up", "status", "down", "Example"))
    assert "optimizer.lr=1e-6" in call("up", "--help").stdout


@pytest.mark.parametrize(
    "command",
    ["up", "learner", "generator", "scorer", "broker", "scale", "status", "down", "chaos",
     "config show", "config diff",
     "config "
     "schema", "bench objective", "bench transport", "bench sync", "bench kernels", "bench loop",
     "bench judge"],
)  # fmt: skip
def test_every_command_shows_an_example(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["sppo-cli", *command.split(), "--help"])
    with pytest.raises(SystemExit):
        commands.run()
    shown = capsys.readouterr().out
    assert "Example" in shown
    assert f"sppo-cli {command}" in shown


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from sppo_cli.commands import app\n"
        "try: app(['up', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'ray', 'vllm', 'transformers', 'redis', 'fastapi'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["up", "nope.toml"], ["nope.toml", "quickstart"]),
        (
            ["up", "quickstart", "--set", "sampling.completions=1"],
            ["sampling.completions", "2 or more"],
        ),
        (
            ["up", "quickstart", "--set", "sampling.top_p=0.5"],
            ["sampling.top_p: gone", "the whole distribution"],
        ),
        (["up", "quickstart", "--set", "optimizer.lrr=1"], ["optimizer.lrr"]),
        (
            ["up", "quickstart", "--set", "model.name=/no/such/model"],
            ["model.name", "/no/such/model"],
        ),
        (["up", "quickstart", "--set", "task.name=reasoning-gym:nope"], ["task.name", "nope"]),
        (["up", "quickstart", "--set", "scorer.name=nope"], ["scorer.name", "last-number"]),
        (
            ["up", "quickstart", "--set", "task.max_prompt_tokens=10"],
            ["task.max_prompt_tokens = 10"],
        ),
        (
            ["up", "quickstart", "--set", "broker.url=redis://127.0.0.1:1"],
            ["broker.url", "is the server running"],
        ),
        (
            ["up", "quickstart", "--run-dir", "/proc/nope"],
            ["--run-dir /proc/nope", "cannot be written"],
        ),
        (["up", "quickstart", "--set", "broker.url=redis://localhost:abc"], ["broker.url"]),
        (["up", "quickstart", "--set", "broker.password=x"], ["SPPO_BROKER__PASSWORD"]),
        (
            ["up", "quickstart", "--set", "weights.host=10.0.0.1"],
            ["weights.host", "weights.trusted_network = true"],
        ),
        (
            ["up", "quickstart", "--set", "generator.host=10.0.0.1"],
            ["generator.host", "weights.trusted_network"],
        ),
        (
            ["up", "quickstart", "--set", "scorer.host=10.0.0.1", "--set", "weights.host=0.0.0.0"],
            ["weights.host"],
        ),
        (["up", "cluster"], ["launch.ray_address = 'auto'", "SPPO_BROKER__URL"]),
        (["generator", "quickstart"], ["broker.url is empty", "sppo-cli broker"]),
        (["learner", "quickstart"], ["broker.url is empty", "sppo-cli broker"]),
        (["scorer", "quickstart", "--set", "scorer.mode=inline"], ["scorer.mode = 'inline'"]),
        (
            ["broker", "quickstart", "--set", "broker.url=redis://127.0.0.1:0"],
            ["SPPO_BROKER__PASSWORD"],
        ),
        (
            ["broker", "quickstart", "--set", "broker.url=unix:///tmp/x"],
            ["broker.url", "redis://127.0.0.1:6379"],
        ),
        (["scale", "generators=2", "--run-dir", "nowhere"], ["nowhere", "holds no run"]),
        (["scale", "learners=2"], ["'learners=2'", "generators=3"]),
        (["scale", "generators=0"], ["'generators=0'", "at least one"]),
        (["scale", "scorers"], ["'scorers'", "scorers=2"]),
        (
            [
                "up",
                "quickstart",
                "--set",
                "generator.engine=transformers",
                "--set",
                "generator.tensor_parallel=2",
            ],
            ["generator.tensor_parallel = 2", "use 1"],
        ),
        (
            ["up", "quickstart", "--set", "scorer.url=http://127.0.0.1:1"],
            ["scorer.url", "is the service running"],
        ),
        (["status", "nowhere"], ["nowhere", "holds no run"]),
        (
            ["up", "quickstart", "--set", "broker.url=redis://10.0.0.5:6379"],
            ["broker", "rediss://"],
        ),
        (
            ["up", "quickstart", "--set", "launch.hang_timeout_s=180"],
            ["launch.hang_timeout_s: gone", "weights.phase_timeout_s"],
        ),
        (["chaos"], ["a preset"]),
        (["chaos", "quickstart", "--faults", "kill,bite"], ["--faults bite", "partition"]),
        (
            ["chaos", "quickstart", "--set", "broker.url=redis://127.0.0.1:1"],
            ["broker.url", "embedded"],
        ),
        (["config", "show", "nope"], ["nope", "quickstart"]),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_code_2(
    arguments: list[str], words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["sppo-cli", *arguments])
    with pytest.raises(SystemExit) as ended:
        commands.run()
    error = capsys.readouterr().err.strip()
    assert ended.value.code == 2, error
    assert error.startswith("error: ")
    assert "\n" not in error
    assert all(word in error for word in words), error


LIBRARIES = "import typer.rich_utils, rich.console, pydantic_settings"


@pytest.mark.parametrize("arguments", [["--help"], ["up", "quickstart", "--set", "optimizer.lr=0"]])
def test_help_and_a_configuration_error_cost_little_more_than_the_libraries(
    arguments: list[str],
) -> None:
    # 0.6 s where those libraries take 0.3 s. Processor time, and the least of several: what is
    # meant is the program, not what else the machine does.
    bare = min(seconds(sys.executable, "-c", LIBRARIES) for _ in range(3))
    assert min(seconds(CLI, *arguments) for _ in range(3)) < 2.5 * bare


def seconds(*command: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, capture_output=True, timeout=60, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("SPPO_LERNER__LR", "1", ["SPPO_LERNER__LR", "no such setting"]),
        ("SPPO_OPTIMIZER__LRR", "1", ["SPPO_OPTIMIZER__LRR", "no such setting"]),
        ("SPPO_TASK__PARAMS", "notjson", ["environment", "JSON"]),
        ("SPPO_BROKER__PASSWORD", "", []),
    ],
)
def test_a_bad_environment_is_named(
    variable: str, value: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    done = call("up", "quickstart", "--set", "optimizer.lr=0", cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert all(word in done.stderr for word in words), done.stderr


def test_configurations_are_looked_at_without_starting_anything(tmp_path: Path) -> None:
    shown = json.loads(
        call("config", "show", "quickstart", "--set", "optimizer.lr=1e-6", "--json").stdout
    )
    assert shown["optimizer.lr"] == {"value": 1e-6, "from": "--set optimizer.lr"}
    assert shown["broker.password"] == {"value": "(not set)", "from": "default"}
    changed = json.loads(call("config", "diff", "quickstart", "paper", "--json").stdout)
    assert changed["objective.target"] == ["centered", "half"]
    assert "learner" in json.loads(call("config", "schema").stdout)["properties"]
    unknown = "model.name=nobody/knows-this"  # counting takes seconds, and is tried elsewhere
    planned = call("up", "math-7b", "--dry-run", "--set", unknown, cwd=tmp_path)
    assert planned.returncode == 0
    assert "tickets in flight 1024" in planned.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPPO_CACHE", "/proc/nope")
    monkeypatch.setattr(sys, "argv", ["sppo-cli", "up", "quickstart"])
    with pytest.raises(SystemExit) as ended:
        commands.run()
    assert ended.value.code == 2
    assert (
        "/proc/nope, where converted models are kept, cannot be written" in capsys.readouterr().err
    )


def test_what_nobody_foresaw_is_one_line_and_its_traceback_is_in_the_log(tmp_path: Path) -> None:
    log = tmp_path / "up.log"
    with pytest.raises(SppoError) as told, train_commands._explained(log):
        {}["a\nkey"]
    assert str(told.value) == rf"KeyError: 'a\nkey'; the traceback is in {log}"
    assert "Traceback" in log.read_text()


@pytest.mark.parametrize("locale", [{"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}])
def test_files_and_the_terminal_are_utf8_whatever_the_locale(
    locale: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "ß.toml").write_text(
        'name = "a"\n[task]\nprompt = "wie groß ist {question}?"\n', encoding="utf-8"
    )
    shown = subprocess.run(
        [CLI, "config", "show", "ß.toml"], cwd=tmp_path, env=locale, capture_output=True, check=True
    ).stdout.decode()
    assert json.dumps("wie groß ist {question}?") in shown or "wie groß ist {question}?" in shown


def test_a_reader_that_has_gone_leaves_no_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        f"'{CLI}' config schema | head -n 1",
        shell=True,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("{\n", "")
