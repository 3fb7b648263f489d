"""What Ray runs in a role's process."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from sppo import config as settings
from sppo import faults, marks
from sppo.errors import SppoError
from sppo.launch import run_dir as run_dirs
from sppo.launch import spread
from sppo.launch.spread import Meeting, Part

ALL = Part(number=0, of=1)


class Role:
    """The actor: a thin shell around the functions of `sppo.launch.roles`."""

    def meeting(self, config: str, broker: dict[str, Any]) -> Meeting:
        """Where the ranks of the learner will meet whose first part this is."""
        run = settings.from_json(config)
        server = settings.BrokerConfig(**broker)
        return spread.meeting(run.model_copy(update={"broker": server}))

    def run(
        self, role: str, name: str, run_key: str, config: str, broker: dict[str, Any],
        scorer_token: str, judge_key: str, run_dir: str,
        working_dir: str, again: bool, variables: dict[str, str],
        part: Part = ALL, at: Meeting | None = None, engine: bool = False,
    ) -> dict[str, Any]:  # fmt: skip
        """`at`: where the ranks meet of a learner that is spread over machines. `engine`: vLLM is
        to put the ranks of this generator's engine in the placement group.
        """
        os.environ.update(variables)  # before any library looks at them
        if engine:
            lead(os.environ)
        from sppo.launch import roles

        sys.path.insert(0, working_dir)  # a user's scorer may lie beside the configuration
        os.environ[marks.VARIABLE] = marks.mark(
            Path(run_dir), name
        )  # seen in the processes that this one starts
        import ray

        run_dirs.write_pid(Path(run_dir), name, ray.get_runtime_context().get_node_id())
        if again:
            faults.arm("")  # a crash point is passed once
        roles.redirect_output(Path(run_dir) / "logs" / f"{name}.log")
        run = settings.with_secrets(
            settings.from_json(config),
            broker=settings.BrokerConfig(**broker),
            scorer_token=scorer_token,
            judge_key=judge_key,
        )
        try:
            if role == "learner":
                return _learn(run, run_key, Path(run_dir), part, at)
            roles.run_worker(role, name, run, run_key, spread=engine)
            return {}
        except SppoError as error:
            logging.exception("%s ends", name)
            raise error.with_traceback(None) from None
        except Exception as error:
            logging.exception("%s ends", name)
            # As plain text: an exception of a library may not survive the way to the supervisor.
            raise RuntimeError(f"{type(error).__name__}: {error}".splitlines()[0]) from None


def lead(environment: MutableMapping[str, str]) -> None:
    """Let vLLM's processes find this Ray, and the GPUs of this machine, which Ray hides from an
    actor that has none of its own.
    """
    import ray

    environment["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    if not environment.get("CUDA_VISIBLE_DEVICES", "all"):
        del environment["CUDA_VISIBLE_DEVICES"]


def _learn(
    run: settings.RunConfig, run_key: str, run_dir: Path, part: Part, at: Meeting | None
) -> dict[str, Any]:
    from sppo.launch import roles

    if at is None:
        return roles.run_learner(run, run_key, run_dir)
    roles.prepare()
    return spread.run(run, part, at, lambda place: roles.run_learner(run, run_key, run_dir, place))
