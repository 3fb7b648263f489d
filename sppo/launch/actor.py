"""What Ray runs in a role's process."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any

from sppo import config as settings
from sppo import faults, marks
from sppo.errors import SppoError
from sppo.launch import run_dir as run_dirs


class Role:
    """The actor: a thin shell around the functions of `sppo.launch.roles`."""

    def run(
        self, role: str, name: str, run_key: str, config: str, broker: dict[str, Any],
        scorer_token: str, judge_key: str, run_dir: str,
        working_dir: str, again: bool,
    ) -> dict[str, Any]:  # fmt: skip
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
                return roles.run_learner(run, run_key, Path(run_dir))
            roles.run_worker(role, name, run, run_key)
            return {}
        except SppoError as error:
            logging.exception("%s ends", name)
            raise error.with_traceback(None) from None
        except Exception as error:
            logging.exception("%s ends", name)
            # As plain text: an exception of a library may not survive the way to the supervisor.
            raise RuntimeError(f"{type(error).__name__}: {error}".splitlines()[0]) from None
