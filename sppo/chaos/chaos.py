"""`sppo-cli chaos`: hurt a real run by a seeded plan, then count what became of its tickets.

Consumes what the run writes about itself (status.json, events.jsonl, logs); waits for each role to
work again; the run is a plain `sppo-cli up` in a process of its own, which knows nothing of this
but where the roles reach their broker.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sppo import config as settings
from sppo import stop
from sppo.chaos.hurt import Hurt
from sppo.chaos.plan import KINDS, OVERRIDES, Fault, Kind, Outcome, plan, role_names
from sppo.chaos.proxy import Proxy
from sppo.chaos.report import line, report
from sppo.chaos.watch import Watch
from sppo.config import RunConfig
from sppo.errors import ConfigError, SppoError
from sppo.launch import run_dir as run_dirs
from sppo.launch.supervisor import CHAOS_VARIABLE
from sppo.transport.server import private_folder

END_S = 150.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Chaos:
    """One run that is to be hurt."""

    config: RunConfig
    run_dir: Path
    command: Sequence[str]
    """Starts the run."""
    faults: Sequence[Fault]

    def run(self, say: Callable[[str], None]) -> dict[str, Any]:
        """Start the run, hurt it, wait for its end, and report. Raises SppoError if it does not
        start.
        """
        began, watch, log = time.monotonic(), Watch(self.run_dir), self.run_dir / "up.log"
        with _proxies(self.config, self.run_dir) as (folder, proxies):
            up = self._start(log, folder)
            with stop.interrupting():
                try:
                    say(f"the run is starting; its output: {log}")
                    outcomes = self._hurt(Hurt(watch, proxies, up), say)
                    code = up.wait()
                finally:
                    _end(up)
        if code != 0 and not (self.run_dir / "run_id").exists():
            raise SppoError(f"the run did not start (exit code {code}):\n{_tail(log)}")
        if code != 0:
            say(f"the run ended with exit code {code}; its last lines:\n{_tail(log)}")
        took = {"seconds": round(time.monotonic() - began, 1)}
        return took | report(
            self.run_dir, watch.events(), outcomes,
            planned=len(self.faults), config=self.config,
        )  # fmt: skip

    def _hurt(self, hurt: Hurt, say: Callable[[str], None]) -> list[Outcome]:
        outcomes = []
        for outcome in hurt.all(self.faults, self.config.learner.steps, say):
            outcomes.append(outcome)
            say(line(outcome))
        say("no more faults; waiting for the run to end")
        return outcomes

    def _start(self, log: Path, sockets: Path) -> subprocess.Popen[bytes]:
        self.run_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        with log.open("w", encoding="utf-8") as file:
            return subprocess.Popen(
                self.command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
                env=os.environ | {CHAOS_VARIABLE: str(sockets)},
            )  # fmt: skip


def prepare(
    source: str, run_dir: Path | None, set_: Sequence[str],
    *, seed: int, minutes: float, every_s: float, kinds: str,
) -> Chaos:  # fmt: skip
    """What the arguments of `sppo-cli chaos` ask for. Raises ConfigError.

    `source` is a preset, a TOML file, or the directory of a stopped run, which is resumed; `kinds`
    are parted by commas.
    """
    if not source:
        raise ConfigError(
            "name what to run: a preset, a TOML file or the directory of a stopped run"
        )
    folder = Path(source)
    if (folder / "config.toml").is_file():
        source, run_dir = str(folder / "config.toml"), folder
    wanted = _kinds(kinds)
    given = [*OVERRIDES, *set_]
    config = settings.load(source, given)
    if config.broker.url:
        raise ConfigError(
            f"broker.url = {config.broker.url!r}: chaos kills the broker, so it wants the "
            f"embedded one"
        )
    place = run_dir or Path("runs") / f"{config.name}-chaos-{seed}"
    if run_dirs.running(place) is not None:
        raise ConfigError(
            f"{place}: the run is up; chaos starts it itself: first "
            f"`{shlex.join(['sppo-cli', 'down', str(place)])}`"
        )
    up = [sys.executable, sys.argv[0], "up", source, "--run-dir", str(place)]
    return Chaos(
        config=config,
        run_dir=place,
        command=[*up, *(f"--set={s}" for s in given)],
        faults=plan(seed, minutes, every_s, [*role_names(config), "broker"], wanted),
    )


def _kinds(text: str) -> list[Kind]:
    wanted = [k.strip() for k in text.split(",") if k.strip()]
    if unknown := [k for k in wanted if k not in KINDS]:
        raise ConfigError(f"--faults {unknown[0]}: no such fault; there are {', '.join(KINDS)}")
    return [k for k in KINDS if k in wanted]


@contextmanager
def _proxies(config: RunConfig, run_dir: Path) -> Iterator[tuple[Path, dict[str, Proxy]]]:
    """A proxy for each role, and the folder of the sockets at which they listen."""
    server = private_folder(run_dir / "broker") / "broker.sock"
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="sppo-chaos-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        proxies = {}
        for name in role_names(config):
            proxies[name] = Proxy(listen=folder / f"{name}.sock", server=server)
            proxies[name].start()
            stack.callback(proxies[name].stop)
        yield folder, proxies


def _end(up: subprocess.Popen[bytes]) -> None:
    if up.poll() is None:
        up.terminate()  # not SIGINT: a shell may have told us and it to ignore that
        try:
            up.wait(END_S)
        except subprocess.TimeoutExpired:
            up.kill()


def _tail(path: Path, lines: int = 15) -> str:
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
