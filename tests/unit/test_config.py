"""Configuration: sources and their order, errors that name the setting, secrets that stay
secret.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sppo import config
from sppo.errors import ConfigError


def test_sources_override_each_other_in_the_documented_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a file, the environment and --set that disagree
    file = tmp_path / "a.toml"
    file.write_text("[optimizer]\nlr = 1e-5\n[learner]\nsteps = 10\n[objective]\neta = 2.0\n")
    monkeypatch.setenv("SPPO_LEARNER__STEPS", "20")
    monkeypatch.setenv("SPPO_OBJECTIVE__ETA", "3")
    # When they are loaded
    loaded = config.load(str(file), ["objective.eta=4", "name=mine"])
    # Then --set beats the environment, which beats the file, which beats the default
    assert (loaded.optimizer.lr, loaded.learner.steps, loaded.objective.eta) == (1e-5, 20, 4.0)
    assert loaded.name == "mine"
    assert loaded.learner.groups_per_step == 8


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("optimizer.lrr=1", ["optimizer.lrr", "no such setting"]),
        ("nonsense.key=1", ["nonsense", "no such setting"]),
        ("sampling.completions=1", ["sampling.completions = 1", "centered", "2 or more"]),
        ("objective.weight_cap=0.9", ["weight_cap = 0.9", "above 1"]),
        ("learner.kernels=cuda", ["learner.kernels", "cuda", "'auto', 'triton' or 'torch'"]),
        (
            "objective.label=hard",
            ["label = 'hard'", "target = 'half'", "best_worst", "not 'centered' and 'all'"],
        ),
        ("objective.target=quarter", ["objective.target", "quarter", "softmean"]),
        ("sampling.top_p=0.9", ["sampling.top_p", "0.9", "use 1.0"]),
        ("optimizer.lr=-1", ["optimizer.lr", "-1"]),
        ("learner.mini_batches=3", ["mini_batches = 3", "groups_per_step = 8"]),
        ("broker.renew_s=50", ["renew_s = 50", "lease_s = 20"]),
        ("broker.url=redis://me:secret@host", ["broker.url", "SPPO_BROKER__PASSWORD"]),
        ("learner.steps", ["--set", "section.setting=value"]),
    ],
)
def test_a_bad_setting_is_named_with_its_mend(override: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load("quickstart", [override])
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_an_unknown_file_lists_the_presets() -> None:
    with pytest.raises(ConfigError, match="quickstart"):
        config.load("no-such-file.toml")


def test_secrets_appear_in_no_form_of_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPPO_BROKER__PASSWORD", "hunter2")
    monkeypatch.setenv("SPPO_SCORER__TOKEN", "hunter2")
    loaded = config.load("quickstart")
    assert loaded.broker.password.get_secret_value() == "hunter2"
    for text in (config.to_json(loaded), config.to_toml(loaded), repr(loaded)):
        assert "hunter2" not in text


def test_json_carries_everything_but_secrets() -> None:
    loaded = config.load("quickstart", ["seed=3"])
    assert config.from_json(config.to_json(loaded)) == loaded


def test_the_documentation_lists_every_setting_as_it_is() -> None:
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    assert page.endswith(config.reference()), "run `make docs`"


def test_parsing_loads_nothing_heavy() -> None:
    code = (
        "import sys; from sppo import config; config.load('quickstart')\n"
        "heavy = {'torch', 'ray', 'vllm', 'transformers', 'redis'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_each_setting_says_where_it_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPPO_OBJECTIVE__ETA", "2")
    monkeypatch.setenv("SPPO_BROKER__PASSWORD", "hunter2")
    found = config.origins("quickstart", ["optimizer.lr=1e-6", "objective.eta=3"])
    assert found["optimizer.lr"] == (1e-6, "--set optimizer.lr")
    assert found["objective.eta"] == (3.0, "--set objective.eta")
    assert found["learner.steps"] == (60, "quickstart")
    assert found["task.params"][1] == "quickstart"
    assert found["objective.kl_coef"] == (0.0, "default")
    assert found["broker.password"] == ("(set)", "environment")
    assert "hunter2" not in str(found)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("optimizer.lrr=1", ["--set optimizer.lrr", "did you mean optimizer.lr"]),
        ("lerner.lr=1", ["lerner", "did you mean learner"]),
        ("learner.zzzzzz=1", ["docs/configuration.md"]),
    ],
)
def test_an_unknown_setting_names_the_nearest_and_its_source(
    override: str, words: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load("quickstart", [override])
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_an_unknown_variable_names_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPPO_OPTIMIZR__LR", "1")
    with pytest.raises(ConfigError, match="did you mean SPPO_OPTIMIZER__LR"):
        config.load("quickstart")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("Learner.steps=5", ["--set Learner.steps", "no such setting", "did you mean learner?"]),
        ("LEARNER.STEPS=3", ["LEARNER", "no such setting", "did you mean learner?"]),
        ("learner.Steps=5", ["learner.Steps", "no such setting", "did you mean learner.steps?"]),
        ("Seed=1", ["Seed", "no such setting", "did you mean seed?"]),
    ],
)
def test_a_setting_in_another_case_is_no_setting(override: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load("quickstart", [override])
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_two_cases_of_one_section_are_not_merged(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text('[learner]\nranks = 2\n[Learner]\nsteps = 5\n[Scorer]\nname = "exact-match"\n')
    with pytest.raises(ConfigError) as caught:
        config.load(str(file))
    assert "did you mean learner?" in str(caught.value)
    assert "did you mean scorer?" in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "text", "words"),
    [
        ("SPPO_Learner__Steps", "5", "did you mean SPPO_LEARNER__STEPS"),
        ("sppo_learner__steps", "5", "did you mean SPPO_LEARNER__STEPS"),
        ("SPPO_LEARNER__STEPSS", "5", "did you mean SPPO_LEARNER__STEPS"),
        ("SPPO_SEED__X", "5", "did you mean SPPO_SEED"),
        (
            "SPPO_OPTIMIZER",
            '{"LR": 1}',
            r"optimizer\.LR \(from environment\): no such setting; did you mean optimizer\.lr\?",
        ),
        (
            "SPPO_OPTIMIZER",
            '{"lr": 1, "lr": 2}',
            "SPPO_OPTIMIZER in the environment: the key 'lr' stands twice",
        ),
        ("SPPO_LEARNER", "5", "learner = 5: .*dictionary"),
        ("SPPO_TASK", "[1]", "task = .*dictionary"),
        ("SPPO_LEARNER", "lr=1", "SPPO_LEARNER in the environment: .*written as JSON"),
    ],
)
def test_a_variable_that_is_no_setting_is_refused(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str, words: str
) -> None:
    monkeypatch.setenv(variable, text)
    with pytest.raises(ConfigError, match=words):
        config.load("quickstart")


def test_no_password_is_shown_in_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, text in (
        ("SPPO_BROKER__URL", "redis://:hunter2@127.0.0.1:6379"),
        ("SPPO_SCORER__URL", "http://me:hunter2@127.0.0.1"),
        ("SPPO_BROKER__PASSWORD", "hunter2\udce9"),
    ):
        monkeypatch.setenv(variable, text)
        with pytest.raises(ConfigError) as caught:
            config.load("quickstart")
        assert "hunter2" not in str(caught.value)
        monkeypatch.delenv(variable)


def test_a_check_may_change_on_resume_as_its_message_says() -> None:
    assert {"learner.parity_threshold", "compute"} <= config.RESUME_MAY_CHANGE


def test_variables_set_sections_tables_lists_and_single_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SPPO_LEARNER", '{"ranks": 2, "steps": 4}')
    monkeypatch.setenv("SPPO_OPTIMIZER", '{"lr": 0.5}')
    monkeypatch.setenv("SPPO_LEARNER__STEPS", "7")
    monkeypatch.setenv("SPPO_OPTIMIZER__BETAS", "[0.5, 0.6]")
    monkeypatch.setenv("SPPO_TASK__PARAMS__MIN_TERMS", "3")
    monkeypatch.setenv("SPPO_TASK__PARAMS__KIND", "easy")
    loaded = config.load("quickstart")
    assert (loaded.optimizer.lr, loaded.learner.steps, loaded.optimizer.betas) == (
        0.5,
        7,
        (0.5, 0.6),
    )
    assert (
        loaded.task.params["min_terms"],
        loaded.task.params["kind"],
        loaded.task.params["max_terms"],
    ) == (
        3,
        "easy",
        2,
    )


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (
            b'name = "a"\n[task]\nprompt = "R\xe9ponds: {question}"\n',
            r":3: not UTF-8: byte 0xe9 at byte 12 of the line",
        ),
        (b'\xef\xbb\xbfname = "\xff"\n', r":1: not UTF-8: byte 0xff at byte 12"),
        ('name = "a"\n'.encode("utf-16"), r":1: not UTF-8"),
        (b'name = "a"\nname = "b"\n', "not valid TOML.*line 2"),
        (b"a = " + b"[" * 5000, "not valid TOML"),
        (b"seed = " + b"9" * 5000, "not valid TOML"),
        (b"[optimizer]\nlr = nan\n", r"optimizer\.lr = nan.*finite"),
        (b"[task]\nparams = { x = inf }\n", r"task\.params: x must be .*inf"),
        (b"[learner]\nsteps = true\n", r"learner\.steps = True: must be a number"),
        (b"name = 2024\n", r"name = 2024: .*in quotes"),
    ],
)
def test_a_file_that_cannot_be_read_as_written_is_refused(
    tmp_path: Path, data: bytes, words: str
) -> None:
    file = tmp_path / "a.toml"
    file.write_bytes(data)
    with pytest.raises(ConfigError, match=words):
        config.load(str(file))


def test_a_byte_order_mark_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_bytes(
        b'\xef\xbb\xbfname = "a"\r\n[task]\r\nprompt = "R\xc3\xa9ponds: {question}"\r\n'
    )
    loaded = config.load(str(file))
    assert (loaded.name, loaded.task.prompt) == ("a", "Réponds: {question}")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("seed=4294967296", "seed = 4294967296: .*less than 4294967296"),
        ("seed=1732550000000", "seed = 1732550000000: .*less than 4294967296"),
        ("sampling.completions=4097", "sampling.completions = 4097: .*4096"),
        ("sampling.max_tokens=1000000000000", "sampling.max_tokens"),
        (
            "sampling.max_tokens=10000000",
            "completions = 8 of max_tokens = 10000000: one group may take",
        ),
        ("sampling.temperature=0.001", "sampling.temperature = 0.001: .*0.01"),
        ("learner.batch_timeout_s=1e10", "learner.batch_timeout_s"),
        ("objective.eta=1e300", "objective.eta"),
        ("optimizer.betas=[0.9, 1.0]", r"optimizer\.betas"),
        ("broker.max_bytes=99999999999999999999", "broker.max_bytes"),
        ("broker.url=redis://127.0.0.1:99999", "broker.url.*0-65535"),
        ("scorer.url=http://127.0.0.1:99999", "scorer.url.*0-65535"),
        ("scorer.url=http://", "scorer.url.*no host"),
        ("model.name=", "model.name = '': must not be empty"),
        ("task.prompt=", "task.prompt = '': must not be empty"),
        ("weights.host=", "weights.host = '': must not be empty"),
        ("task.prompt=R\udce9ponds {question}", "task.prompt.*not UTF-8"),
        ("seed=" + "9" * 5000, "--set seed"),
    ],
)
def test_a_value_that_would_fail_deep_in_a_run_is_refused_by_its_setting(
    override: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        config.load("quickstart", [override])


def test_the_largest_seed_is_one_that_numpy_and_torch_take() -> None:
    import numpy as np
    import torch

    seed = config.load("quickstart", [f"seed={2**32 - 1}"]).seed
    np.random.RandomState(seed)
    torch.Generator().manual_seed(seed)


def test_every_preset_is_within_the_limits() -> None:
    for name in config.presets():
        config.load(name, environment=False)
