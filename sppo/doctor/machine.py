"""Processor, memory, shared memory, the temporary folder, limits of this user's processes."""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
from pathlib import Path

import psutil

from sppo import compute
from sppo.config import RunConfig
from sppo.doctor.findings import Finding, Run, fail, ok, warn
from sppo.launch import machine

CGROUP = Path("/sys/fs/cgroup")
FABRIC = Path("/sys/class/infiniband")
GIB = 1 << 30
FILES_LEAST, FILES_GOOD = 1024, 4096
PROCESSES_GOOD = 2048
"""Threads that this user may still start."""


def processor(run: Run) -> list[Finding]:
    """What `compute` comes to on its features, and whether threads get the cores they count on."""
    return [_number_format(run.config), _cores()]


def _number_format(config: RunConfig) -> Finding:
    has = sorted(compute.MULTIPLIES_BF16 & compute.cpu_flags())
    if compute.on_gpu(config, gpus=compute.gpus_here()):
        return ok("number format", f"{compute.resolve(config, cuda=True)}, learner on GPUs")
    chosen = compute.resolve(config, cuda=False)
    why = f"the processor has {', '.join(has)}" if has else "no AVX512_BF16 and no AMX here"
    said = f"compute = {config.compute!r} comes to {chosen}: {why}"
    if chosen == "bfloat16" and not has:
        return warn(
            "number format",
            f"{said}, so that every product is converted, and a step takes about three times as "
            "long as in float32",
            "set compute = 'auto'",
        )
    if chosen == "float32" and not has:
        said += "; engine and staged weights take twice the memory of bfloat16"
    return ok("number format", said)


def _cores() -> Finding:
    may, quota = len(os.sched_getaffinity(0)), _quota()
    if quota and quota < may:
        return warn(
            "cores",
            f"{may} are seen, and this container may use {quota:g} of them: roles start {may} "
            "threads each, which wait for each other",
            f"set learner.threads = {max(1, int(quota))} and generator.threads = "
            f"{max(1, int(quota))}, or give the container whole cores (docker run --cpuset-cpus)",
        )
    return ok("cores", f"{may}" + (f" of {os.cpu_count()}" if may != os.cpu_count() else ""))


def _quota() -> float:
    """Cores that a container's quota comes to; 0 where there is none."""
    try:
        most, period = (CGROUP / "cpu.max").read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        return 0.0
    return 0.0 if most == "max" else int(most) / int(period)


def memory(run: Run) -> list[Finding]:
    """What is free against what stands in the learner and the engines on this machine."""
    free, all_of_it = _memory()
    there = f"{free / GIB:.1f} of {all_of_it / GIB:.1f} GiB are free"
    if run.config.launch.ray_address:
        return [ok("memory", f"{there}; the cluster's machines have the roles")]
    wanted, what = _wanted(run.config)
    said = f"{there}; {what} take {wanted / GIB:.1f} GiB beside activations"
    if wanted > all_of_it:
        return [
            fail("memory", said, "a smaller model, adapter.rank = 16, or a larger machine; "
                 "sppo-cli plan shows who takes it")
        ]  # fmt: skip
    if wanted > free:
        return [warn("memory", said, "end what else runs here; `ps aux --sort=-rss | head`")]
    return [ok("memory", said)]


def _memory() -> tuple[int, int]:
    """Bytes that are free, and in all, for this container."""
    there = psutil.virtual_memory()
    free, total = int(there.available), int(there.total)
    try:
        most, used = (
            (CGROUP / f"memory.{n}").read_text(encoding="utf-8").strip() for n in ("max", "current")
        )
    except OSError:
        return free, total
    if most == "max":
        return free, total
    return min(free, max(0, int(most) - int(used))), min(total, int(most))


def _wanted(config: RunConfig) -> tuple[int, str]:
    """Host memory of what is counted without running anything, and whose it is."""
    from sppo.plan import learner, roles

    cuda = compute.on_gpu(config, gpus=compute.gpus_here())
    copies = sum(roles.host(config, gpu=cuda).values())
    if cuda:
        return copies, "the copies that the learner keeps in host memory"
    stands = sum(learner.standing(config, gpu=False).values())
    engines = config.generator.replicas * roles.generator(config, None).peak
    return stands + copies + engines, "learner, engines and a checkpoint's copy"


def shared_memory(run: Run) -> list[Finding]:
    """/dev/shm, which vLLM and Ray pass messages through."""
    folder = machine.SHARED_MEMORY
    if not folder.is_dir():
        words = f"there is no {folder}"
        return [fail("shared memory", words, "docker run --shm-size=1g, or mount a tmpfs there")]
    there = shutil.disk_usage(folder)
    machine.check_shared_memory(run.config)  # raises what a start would say
    size = f"{folder} has {there.free / GIB:.1f} of {there.total / GIB:.1f} GiB free"
    if there.free < GIB and run.config.generator.devices > 1:
        return [
            warn("shared memory", f"{size}, and NCCL takes some for each pair of GPUs that have no "
                 "peer access", "docker run --shm-size=16g, or NCCL_SHM_DISABLE=1")
        ]  # fmt: skip
    return [ok("shared memory", size)]


def temporary_folder(run: Run) -> list[Finding]:
    """TMPDIR: room for sockets' paths, and whether what is compiled there may be loaded."""
    machine.check_temporary(run.config, "up")  # raises what a start would say
    folder = tempfile.gettempdir()
    if os.statvfs(folder).f_flag & os.ST_NOEXEC:
        return [
            fail("temporary folder", f"{folder} is mounted noexec: nothing that torch, Triton or "
                 "vLLM compile there can be loaded",
                 "TMPDIR=/another/folder, or mount -o remount,exec")
        ]  # fmt: skip
    return [ok("temporary folder", f"{folder}, short enough for sockets, and executable")]


def limits(_: Run) -> list[Finding]:
    """`ulimit`: open files, processes, locked memory."""
    return [_files(), _processes(), _locked()]


def _files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = "without a limit" if soft == resource.RLIM_INFINITY else f"at most {soft:,}"
    said = f"{most} (hard limit {_amount(hard)})"
    if soft != resource.RLIM_INFINITY and soft < FILES_GOOD:
        wish = f"ulimit -n {FILES_GOOD if hard < 0 or hard >= FILES_GOOD else hard}"
        if soft < FILES_LEAST:
            return fail("open files", said, f"{wish}, before sppo-cli in the same shell")
        return warn("open files", f"{said}; many generators, and checkpoints in shards, need more",
                    f"{wish}, before sppo-cli in the same shell")  # fmt: skip
    return ok("open files", said)


def _processes() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    if soft == resource.RLIM_INFINITY or os.getuid() == 0:
        return ok("processes", "without a limit" + (" for root" if os.getuid() == 0 else ""))
    own = [p for p in psutil.process_iter(["uids"]) if _uid(p) == os.getuid()]
    used = sum(_threads(p) for p in own)
    said = f"{used:,} threads of at most {soft:,} (hard limit {_amount(hard)})"
    if soft - used < PROCESSES_GOOD:
        words = f"{said}; a role and Ray have some hundreds each"
        return warn("processes", words, f"ulimit -u {used + PROCESSES_GOOD}")
    return ok("processes", said)


def _uid(process: psutil.Process) -> int:
    uids = process.info.get("uids")
    return int(uids.real) if uids else -1


def _threads(process: psutil.Process) -> int:
    try:
        return process.num_threads()
    except psutil.Error:  # it has just ended
        return 0


def _locked() -> Finding:
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    cards = sorted(card.name for card in FABRIC.iterdir()) if FABRIC.is_dir() else []
    said = f"{_amount(soft)} bytes" if soft >= 0 else "without a limit"
    if cards and soft != resource.RLIM_INFINITY:
        return warn(
            "locked memory", f"{said}, and NCCL pins its buffers for {', '.join(cards[:4])}",
            "ulimit -l unlimited (docker run --ulimit memlock=-1)",
        )  # fmt: skip
    return ok("locked memory", said + ("" if cards else "; no InfiniBand here that needs it"))


def _amount(limit: int) -> str:
    return "none" if limit == resource.RLIM_INFINITY else f"{limit:,}"
