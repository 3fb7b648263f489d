"""What is evaluated: a run, one of its checkpoints, a folder or a hub id; as a folder in Hugging
Face format.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sppo import compute, models
from sppo.config import ModelConfig, RunConfig
from sppo.errors import ConfigError
from sppo.learner import manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A model, and the run that it is of."""

    name: str
    """As it was given."""
    run_dir: Path | None = None
    """The run, where it is one or one of its checkpoints."""
    checkpoint: Path | None = None
    """Whose weights to take; else `folder`."""
    folder: str = ""
    """In Hugging Face format."""

    def resolved(self, config: RunConfig, scratch: Path) -> str:
        """Its folder; a checkpoint is written to `scratch`, in the number format of the run.

        `config` is the run's, with `compute` decided.
        """
        if self.checkpoint is None:
            return self.folder
        base = models.resolve(config.model)
        return _assembled(base, self.checkpoint, config, scratch)


def find(name: str) -> Target:
    """What a name means. Raises ConfigError naming what was looked for."""
    path = Path(name)
    if (path / "config.toml").is_file():
        return _of_run(name, path)
    if (path / manifest.STATE).is_file():
        if damage := manifest.damage(path):
            raise ConfigError(damage)
        run_dir = path.resolve().parent.parent
        if not (run_dir / "config.toml").is_file():
            raise ConfigError(f"{name}: the checkpoint's run, {run_dir}, has no config.toml")
        return Target(name=name, run_dir=run_dir, checkpoint=path)
    if path.is_dir() and not (path / "config.json").is_file():
        raise ConfigError(
            f"{name} is none of a run (it holds no config.toml), a checkpoint (no "
            f"{manifest.STATE}) and a model in Hugging Face format (no config.json)"
        )
    try:
        return Target(name=name, folder=models.resolve(ModelConfig(name=name)))
    except ConfigError as error:
        if path.is_dir():
            raise
        raise ConfigError(
            f"{name}: there is no such folder (a run, a checkpoint or a model), it is not "
            f"{models.PACKAGED!r}, and the hub serves no such model"
        ) from error


def _of_run(name: str, run_dir: Path) -> Target:
    """A run's newest weights: its newest checkpoint; the export where there is none."""
    if newest := manifest.newest(run_dir / "checkpoints"):
        return Target(name=name, run_dir=run_dir, checkpoint=newest[0])
    if (run_dir / "export" / "config.json").is_file():
        return Target(name=name, run_dir=run_dir, folder=str(run_dir / "export"))
    raise ConfigError(
        f"{name}: this run has no checkpoint yet (learner.checkpoint_every) and no export"
    )


def _assembled(base: str, checkpoint: Path, config: RunConfig, scratch: Path) -> str:
    from sppo.learner.adapters import Adapters
    from sppo.learner.checkpoint import Checkpoint
    from sppo.learner.model import Logprobs, Policy
    from sppo.learner.stored import opened

    dtype = compute.dtype(config)
    policy = Policy(
        base, device="cpu", logprobs=Logprobs(temperature=1.0), compute=dtype,
        adapted=Adapters.of(config),
    )  # fmt: skip
    Checkpoint(folder=checkpoint, step=manifest.step(checkpoint), state={}).check(policy.master)
    with opened(checkpoint, "model") as there:
        policy.load(there)
    folder = scratch / "model"
    policy.export(folder, dtype)
    models.load_tokenizer(base).save_pretrained(str(folder))
    return str(folder)
