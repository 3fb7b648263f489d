"""vLLM's own verdict on a run's engine arguments, in a process of its own: importing vLLM takes
seconds.

    python -m sppo.generators.vllm_check < {"path": model folder, "config": configuration's JSON}

prints why vLLM refuses them, in one line, or nothing.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sppo import compute, stop
from sppo import config as settings
from sppo.config import RunConfig
from sppo.errors import ConfigError

DEADLINE_S = 60.0


@contextmanager
def beside(config: RunConfig) -> Iterator[Callable[[str], None]]:
    """Check a configuration whose `compute` is decided while something else is done, and wait for
    the verdict after it: vLLM is imported at once, and judges once it has the model's folder.

        with beside(config) as take:
            take(models.resolve(config.model))

    Raises ConfigError if vLLM refuses the arguments. A check that takes longer than a minute is
    given up: the engine will say the same.
    """
    child = subprocess.Popen(
        [sys.executable, "-m", "sppo.generators.vllm_check"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        preexec_fn=stop.end_with_parent,
    )  # fmt: skip

    def take(path: str) -> None:
        assert child.stdin is not None
        with suppress(BrokenPipeError):
            child.stdin.write(json.dumps({"path": path, "config": settings.to_json(config)}))
            child.stdin.close()
        child.stdin = None

    try:
        yield take
        with suppress(subprocess.TimeoutExpired):
            said, _ = child.communicate(timeout=DEADLINE_S)
            if reason := said.strip():
                raise ConfigError(f"generator.engine = 'vllm': {reason}")
    finally:
        child.kill()
        child.wait()


def refusal(config: RunConfig, path: str) -> str:
    """Why vLLM refuses the arguments of a run's engine, or nothing."""
    from vllm.engine.arg_utils import AsyncEngineArgs

    from sppo.generators.vllm_engine import engine_arguments, set_environment

    on_cpu = not compute.gpus_here()
    set_environment(config, on_cpu=on_cpu)
    try:
        arguments = AsyncEngineArgs(**engine_arguments(config, path, on_cpu=on_cpu))
        if not config.launch.ray_address:  # a cluster's devices are not those of this machine
            arguments.create_engine_config()
    except (ValueError, TypeError, NotImplementedError, RuntimeError) as error:
        return in_one_line(str(error), config.model.name)
    return ""


def check_names(given: Mapping[str, Any]) -> None:
    """Raises ConfigError for the first that is no argument of vLLM's engine."""
    known = argument_names() if given else ()
    for name in given:
        if known and name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(
                f"generator.engine = 'vllm': generator.vllm.{name} is no argument of its "
                f"engine{hint}"
            )


def argument_names() -> tuple[str, ...]:
    """The arguments of vLLM's engine as its source names them: read, since an import takes
    seconds. Nothing if it is laid out in another way: then `beside` is told by vLLM itself.
    """
    vllm = importlib.util.find_spec("vllm")
    for folder in vllm.submodule_search_locations or () if vllm else ():
        source = Path(folder, "engine", "arg_utils.py")
        if source.is_file():
            classes = (
                each for each in ast.parse(source.read_bytes()).body
                if isinstance(each, ast.ClassDef) and each.name in ("EngineArgs", "AsyncEngineArgs")
            )  # fmt: skip
            return tuple(
                line.target.id for each in classes for line in each.body
                if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
            )  # fmt: skip
    return ()


def in_one_line(said: str, name: str) -> str:
    """The reason in what vLLM raises, without pydantic's frame around it."""
    lines = [line.strip() for line in said.strip().splitlines() if line.strip()]
    reason = next(
        (line for line in lines if line.startswith(("Value error,", "Assertion failed,"))), lines[0]
    )
    if (
        " validation error" in reason and len(lines) > 2
    ):  # of one field: its name, and what is wrong
        reason = f"{lines[1]}: {lines[2]}"
    reason = (
        reason.partition(", ")[2]
        if reason.startswith(("Value error,", "Assertion failed,"))
        else reason
    )
    if reason.startswith("Model architectures"):
        architectures = reason.partition("[")[2].partition("]")[0]
        return (
            f"it does not know {architectures} (model.name = {name!r}); try generator.engine = "
            "'transformers'"
        )
    return reason.partition(" [type=")[0][:400]


def main() -> None:
    """See the module."""
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what vLLM prints is no answer
    os.environ["VLLM_LOGGING_LEVEL"] = "ERROR"
    importlib.import_module("vllm.engine.arg_utils")  # while the folder is being looked for
    asked = json.loads(sys.stdin.read())
    answer.write(refusal(settings.from_json(asked["config"]), asked["path"]))
    answer.close()
    os._exit(0)  # vLLM's libraries take a second to leave, and somebody waits


if __name__ == "__main__":
    main()
