"""deploy/slurm by Debian's Slurm: two machines of eight pretended GPUs for the run, a third for an
array of generators, the shipped scripts, and roles that find their GPUs there and compute on the
CPU (`learner.device`).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from sppo import config
from tests.cluster import broker
from tests.cluster import slurm as slurms
from tests.cluster.machines import lan
from tests.cluster.roles import TINY, pace, records, write_scorer

REPOSITORY = Path(__file__).parents[2]
SCRIPTS = REPOSITORY / "deploy" / "slurm"
GROUPS, STEPS = 4, 16
SETTINGS = TINY | {
    "name": "slurm", "learner.steps": STEPS, "learner.groups_per_step": GROUPS,
    "learner.checkpoint_every": 100, "weights.phase_timeout_s": 4,
}  # fmt: skip


class Job:
    """The run of one configuration under Slurm."""

    def __init__(self, slurm: slurms.Slurm, folder: Path, settings: dict[str, object]) -> None:
        self.slurm, self.folder = slurm, folder
        self.run_dir = folder / "run"
        write_scorer(folder)
        given = [f"{key}={value}" for key, value in settings.items()]
        (folder / "run.toml").write_text(
            config.to_toml(config.load("quickstart", given, environment=False))
        )
        (folder / "secrets").write_text(
            f"SPPO_BROKER__PASSWORD={broker.PASSWORD}\nSPPO_SCORER__TOKEN=scorer-token\n"
        )
        slurm.environment |= {
            "PATH": f"{Path(sys.executable).parent}:{slurm.environment['PATH']}",
            "SECRETS": str(folder / "secrets"), "CONFIG": str(folder / "run.toml"),
            "RUN": str(self.run_dir), "OMP_NUM_THREADS": "1", "AGAIN_S": "1",
        }  # fmt: skip

    def submit(self, script: str, *options: str, **variables: object) -> str:
        own = [f"--chdir={self.folder}", f"--output={self.folder}/job-%j.out"]
        return self.slurm.submit(SCRIPTS / script, *own, *options, **variables)

    def wait(self, ready: Callable[[], Any], seconds: float = 60) -> Any:
        """Until something is there; returns it."""
        deadline = time.monotonic() + seconds
        while not (found := ready()):
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.1)
        return found

    def gpus(self) -> dict[str, str]:
        """CUDA_VISIBLE_DEVICES of each role's process, by the name of its step or job."""
        found = {}
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            role = [w for w in words if w in ("learner", "generator", "scorer")]
            if role and str(self.folder / "run.toml") in words and "python" in words[0]:
                seen = process.environ()
                name = words[words.index("--name") + 1] if "--name" in words else role[0]
                found[name] = seen.get("CUDA_VISIBLE_DEVICES", "")
        return found

    def process(self, name: str) -> psutil.Process:
        """A generator's."""
        return next(
            p
            for p in psutil.process_iter(["cmdline"])
            if name in (p.info["cmdline"] or []) and "python" in p.info["cmdline"][0]
        )

    def at_work(self) -> set[str]:
        """Generators that have sampled, by what the learner says of its members."""
        status = self.run_dir / "status.json"
        members = json.loads(status.read_text()).get("members", {}) if status.exists() else {}
        return {name.removeprefix("generator-") for name, m in members.items() if m.get("tokens")}

    def logs(self) -> str:
        files = [*self.folder.glob("*.out"), *(self.run_dir / "logs").glob("*.log")]
        return "\n".join(f"== {p.name}\n{p.read_text()[-2500:]}" for p in files)


@pytest.fixture
def job(tmp_path: Path, tiny_model: str) -> Iterator[Job]:
    with ExitStack() as stack:
        names = ("east", "west", "north")
        network = stack.enter_context(lan(*names))
        east, *others = [network.add(name) for name in names]
        slurm = stack.enter_context(slurms.running(tmp_path, east, *others))
        at = stack.enter_context(broker.serving(east, tmp_path))
        yield Job(slurm, tmp_path, SETTINGS | at | {"model.name": tiny_model})


@pytest.mark.timeout(420)
def test_the_shipped_scripts_run_save_come_back_and_replace(
    job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    slurm, told, began = job.slurm, {}, time.monotonic()
    # Given a run of a learner with eight GPUs and a generator with one
    number = job.submit("sppo.sbatch", GENERATORS=1)
    own = f"{number}-0"
    job.wait(lambda: len(records(job.run_dir)) >= 2, 150)
    told["from sbatch to the second step"] = time.monotonic() - began
    # Then each role sees the GPUs that its step asked for, and the scorer none
    assert job.gpus() == {"learner": "0,1,2,3,4,5,6,7", own: "0", "scorer": ""}
    steps = slurm.steps(number)
    assert {"learner", "scorer", "generator-0"} <= steps.keys()
    pace(job.folder, 0.3)
    # When an array of generators comes, and a generator of the job is killed
    array = job.submit("generators.sbatch", "--array=0-1")
    came = time.monotonic()
    job.process(own).kill()
    there = {own, f"{array}-0", f"{array}-1"}
    job.wait(lambda: there <= job.at_work(), 150)
    told["from a kill and an array of two to three at work"] = time.monotonic() - came
    assert sorted(job.gpus()[name] for name in there)[0] == "0"
    assert slurm.steps(number)["generator-0"] != steps["generator-0"]
    # When the array goes, and the job is told to save and come back
    slurm.call("scancel", array)
    saving = time.monotonic()
    before = len(records(job.run_dir))
    slurm.call("scancel", "--batch", "--signal=USR1", number)
    job.wait(lambda: slurm.job(number).get("Restarts") == "1", 90)
    told["from the signal to saved and put back"] = time.monotonic() - saving
    pace(job.folder, 0)
    saved = json.loads((job.run_dir / "summary.json").read_text())["steps"]
    assert saved >= before
    # Then it comes back by itself, goes on from there, and ends
    job.wait(lambda: slurm.job(number)["JobState"] == "COMPLETED", 120)
    told["from put back to the end"] = time.monotonic() - saving
    told["in all"] = time.monotonic() - began
    with capsys.disabled():
        print(*(f"\n  {what}: {seconds:.1f} s" for what, seconds in told.items()))
    lines = records(job.run_dir)
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert len({line["epoch"] for line in lines}) == 2
    issued = GROUPS * STEPS
    assert sorted(uid for line in lines for uid in line["tickets"]) == [
        f"train-{i:09d}" for i in range(issued)
    ]
    tickets = json.loads((job.run_dir / "summary.json").read_text())["tickets"]
    assert tickets == {"issued": issued, "trained": issued, "twice": 0, "dead": 0}
