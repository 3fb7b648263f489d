"""deploy/kubernetes and deploy/docker, as far as their own tools go without a cluster and without
images: manifests against the published schemas, Dockerfiles through Docker's own parser, and what
is written in both against the program.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import dockerfile
import kubernetes_validate
import pytest
import yaml
from sppo_cli.commands import app
from typer.main import get_command

from sppo import config
from sppo.errors import ConfigError
from sppo.transport.redis_broker import connect
from tests import packages
from tests.cluster import broker

REPOSITORY = Path(__file__).parents[2]
MANIFESTS = REPOSITORY / "deploy" / "kubernetes"
DOCKERFILES = sorted((REPOSITORY / "deploy" / "docker").glob("Dockerfile.*"))
VERSIONS = ("1.29", "1.33", kubernetes_validate.latest_version())


def manifests() -> list[dict[str, Any]]:
    """As `kubectl apply -k` would send them; where there is no kubectl, as they are written."""
    if shutil.which("kubectl"):
        made = subprocess.run(
            ["kubectl", "kustomize", str(MANIFESTS)], capture_output=True, text=True, check=True
        )
        texts = [made.stdout]
    else:
        named = yaml.safe_load((MANIFESTS / "kustomization.yaml").read_text())["resources"]
        texts = [(MANIFESTS / name).read_text() for name in named]
    return [found for text in texts for found in yaml.safe_load_all(text)]


def containers() -> dict[str, dict[str, Any]]:
    """Of all pods, by their names."""
    pods = [m["spec"]["template"]["spec"] for m in manifests() if "template" in m.get("spec", {})]
    return {each["name"]: each for pod in pods for each in pod["containers"]}


@pytest.mark.parametrize("version", VERSIONS)
def test_every_manifest_is_what_its_schema_says(version: str) -> None:
    found = manifests()
    for manifest in found:
        kubernetes_validate.validate(manifest, version, strict=True)
    kinds = [manifest["kind"] for manifest in found]
    assert {kind: kinds.count(kind) for kind in ("StatefulSet", "Deployment", "NetworkPolicy")} == {
        "StatefulSet": 2, "Deployment": 2, "NetworkPolicy": 4
    }  # fmt: skip


def test_a_setting_that_kubernetes_does_not_know_is_found() -> None:
    wrong = next(m for m in manifests() if m["kind"] == "Deployment")
    wrong["spec"]["template"]["spec"]["containers"][0]["lifecycles"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[0], strict=True)


def test_roles_start_with_commands_and_settings_that_there_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Given the configuration as pods see it
    monkeypatch.setenv("SPPO_BROKER__PASSWORD", broker.PASSWORD)
    authority = tmp_path / "ca.crt"
    authority.touch()
    text = (MANIFESTS / "run.toml").read_text()
    (tmp_path / "run.toml").write_text(text.replace("/etc/sppo-tls/ca.crt", str(authority)))
    run = config.load(str(tmp_path / "run.toml"))
    # Then what manifests say beside it agrees
    found = containers()
    ports = found["scorer"]["ports"]
    assert [port["containerPort"] for port in ports] == [run.scorer.port]
    limits = found["learner"]["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == run.learner.ranks
    limits = found["generator"]["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == run.generator.tensor_parallel
    (replicas,) = [
        m["spec"]["replicas"] for m in manifests() if m["metadata"]["name"] == "sppo-generators"
    ]
    assert replicas == run.generator.replicas
    # and commands are sppo-cli's own
    commands = get_command(app)
    for name in ("learner", "generator", "scorer"):
        words = found[name]["args"]
        command = commands.commands[words[0]]  # type: ignore[attr-defined]
        parsed = command.make_context(words[0], list(words[1:]))
        assert parsed.params["config"] == "/etc/sppo/run.toml"
        given = {each["name"] for each in found[name]["env"]}
        assert given >= {"SPPO_BROKER__PASSWORD", "SPPO_SCORER__TOKEN"}


def test_the_brokers_own_command_serves_with_tls_and_a_password(tmp_path: Path) -> None:
    # Given the command of the manifest with this machine's paths
    packages.fetch("redis-server")
    server = packages.program("redis-server")
    broker.certificates(tmp_path, "127.0.0.1")
    (script,) = containers()["redis"]["args"]
    for old, new in {
        "/etc/sppo-tls/tls.crt": "cert.pem", "/etc/sppo-tls/tls.key": "key.pem",
        "/etc/sppo-tls/ca.crt": "ca.pem", "--dir /data": "--dir .",
        "exec redis-server": f"exec {server}",
        "--tls-port 6379": "--tls-port 16379 --bind 127.0.0.1",
    }.items():  # fmt: skip
        assert old in script
        script = script.replace(old, new)
    environment = os.environ | packages.environment() | {"SPPO_BROKER__PASSWORD": broker.PASSWORD}
    process = subprocess.Popen(
        ["sh", "-ec", script], cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL
    )
    try:
        # Then a role reaches it with the password, and nobody without
        own = {"url": "rediss://127.0.0.1:16379", "tls_ca": str(tmp_path / "ca.pem")}
        connect(config.BrokerConfig(**own, password=broker.PASSWORD), "run", wait=True).close()
        with pytest.raises(ConfigError, match="SPPO_BROKER__PASSWORD"):
            connect(config.BrokerConfig(**own, password="falsch"), "run")
    finally:
        process.terminate()
        assert process.wait(10) == 0  # SIGTERM comes to the server itself


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_dockerfiles_are_read_by_dockers_parser_and_name_what_there_is(path: Path) -> None:
    steps = dockerfile.parse_file(str(path))
    commands = [step.cmd.upper() for step in steps]
    assert (commands[0], commands.count("FROM")) == ("ARG", 2)
    assert commands[-2:] == ["ENTRYPOINT", "CMD"]
    assert "USER" in commands
    ignored = (REPOSITORY / ".dockerignore").read_text().split()
    extras = []
    for step in steps:
        if step.cmd.upper() == "COPY" and not step.flags:
            for source in step.value[:-1]:
                assert (REPOSITORY / source).exists(), source
                assert source.split("/")[0] not in ignored
        if step.cmd.upper() == "RUN":
            subprocess.run(["bash", "-n", "-c", *step.value], check=True)
            extras += re.findall(r"whl\)\[(\w+)\]", step.value[0])
    assert extras == ([] if path.suffix == ".cpu" else ["vllm"])
    assert all(f"\n{extra} = [" in (REPOSITORY / "pyproject.toml").read_text() for extra in extras)


def test_the_stage_that_makes_the_wheel_is_built(tmp_path: Path) -> None:
    """By buildah, in a chroot, on a base that is this machine's Python. What follows that stage
    wants a registry and an index.
    """
    build = Buildah(tmp_path)
    installed = [path for path in sys.path if path.endswith("-packages")]
    (tmp_path / "pip").write_text(f'#!/bin/sh\nexec {sys.executable} -m pip "$@"\n')
    (tmp_path / "pip").chmod(0o755)
    (tmp_path / "base").write_text(
        f"FROM scratch\nCOPY pip /of/the/test/\n"
        f"ENV PATH=/of/the/test:/usr/bin:/bin PYTHONPATH={':'.join(installed)} "
        "PIP_NO_BUILD_ISOLATION=0 PIP_NO_INDEX=1 PIP_DISABLE_PIP_VERSION_CHECK=1\n"
    )
    build("bud", "--file", str(tmp_path / "base"), "--tag", "base", str(tmp_path))
    there = {"/usr", "/lib", "/lib64", "/bin", "/etc", sys.prefix, sys.base_prefix, *installed}
    mounts = [f"--volume={path}:{path}:ro" for path in sorted(there) if Path(path).is_dir()]
    said = build(
        "bud", "--isolation=chroot", "--build-arg=PYTHON=localhost/base", "--target=wheel",
        *mounts, f"--file={DOCKERFILES[0]}", "--tag=wheel", str(REPOSITORY),
    )  # fmt: skip
    folder = Path(build("mount", build("from", "localhost/wheel").strip()).strip())
    (wheel,) = (folder / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as inside:
        names = inside.namelist()
    assert {"sppo_cli/main.py", "sppo/presets/quickstart.toml"} <= set(names), said
    assert not [name for name in names if name.startswith("tests")]
    # The other file makes the same one
    first, second = (path.read_text().split("\nFROM ${PYTHON}") for path in DOCKERFILES)
    assert first[1] == second[1]


OVERLAY = f"""
there=/{packages.LIBRARIES}
mount -t overlay overlay -o "lowerdir=$0:$there" "$there" && exec "$@"
"""
"""Buildah starts itself again without LD_LIBRARY_PATH: its libraries are put among this machine's,
for it alone.
"""


class Buildah:
    """Debian's, with a store of its own."""

    def __init__(self, folder: Path) -> None:
        packages.fetch("buildah")
        self._program = packages.program("buildah")
        store = {"driver": "vfs", "runroot": f"{folder}/run", "graphroot": f"{folder}/graph"}
        lines = [f'{name} = "{value}"' for name, value in store.items()]
        (folder / "storage.conf").write_text("\n".join(["[storage]", *lines, ""]))
        (folder / "registries.conf").write_text("unqualified-search-registries = []\n")
        (folder / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        self._policy = f"--signature-policy={folder}/policy.json"
        self._environment = os.environ | {
            "CONTAINERS_STORAGE_CONF": f"{folder}/storage.conf",
            "CONTAINERS_REGISTRIES_CONF": f"{folder}/registries.conf",
        }  # fmt: skip
        if os.geteuid():
            pytest.skip("buildah in a chroot wants root")

    def __call__(self, command: str, *words: str) -> str:
        policy = [self._policy] if command in ("bud", "from") else []
        libraries = packages.environment()["LD_LIBRARY_PATH"].split(os.pathsep)[0]
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", OVERLAY, libraries, self._program, command, *policy,
             *words],
            capture_output=True, text=True, env=self._environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout
