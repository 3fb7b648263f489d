"""A run scraped by Debian's Prometheus: it finds it by the run's own file, its checker has nothing
to say against the names, and every query of the Grafana dashboard has an answer.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sppo import config as settings
from sppo.generators.fake import VOCABULARY
from sppo.launch import run_dir as run_dirs
from tests import makers, packages
from tests.faults.rig import CONTEXT, Rig
from tests.integration.test_trackers import learn

REPOSITORY = Path(__file__).parents[2]
DASHBOARD = REPOSITORY / "deploy" / "grafana" / "sppo.json"
SCRAPES = REPOSITORY / "deploy" / "prometheus" / "prometheus.yml"
TOKEN = "letmein"


def fetch(url: str, token: str = "") -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    with opener.open(request, timeout=10) as answer:
        body: bytes = answer.read()
    return body


def wait(ready: Callable[[], Any], rig: Rig, seconds: float = 40, what: str = "") -> Any:
    deadline = time.monotonic() + seconds
    while not (found := ready()):
        assert time.monotonic() < deadline, f"{what}\n{rig.logs()}"
        time.sleep(0.1)
    return found


class Prometheus:
    """A server that scrapes the run, as deploy/prometheus says but more often."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "token").write_text(TOKEN)
        scrapes = yaml.safe_load(SCRAPES.read_text())
        scrapes["scrape_configs"][0] |= {
            "scrape_interval": "500ms",
            "file_sd_configs": [
                {"files": [f"{folder}/run/prometheus.json"], "refresh_interval": "1s"}
            ],
            "authorization": {"credentials_file": str(folder / "token")},
        }
        self.config = folder / "prometheus.yml"
        self.config.write_text(yaml.safe_dump(scrapes))
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.place = f"127.0.0.1:{free.getsockname()[1]}"
        self._log = (folder / "prometheus.log").open("wb")
        self._process = subprocess.Popen(
            [
                packages.program("prometheus"), f"--config.file={self.config}",
                f"--web.listen-address={self.place}", f"--storage.tsdb.path={folder}/tsdb",
                f"--web.console.templates={folder}", f"--web.console.libraries={folder}",
            ],
            stdout=self._log, stderr=self._log, env=packages.environment(),
        )  # fmt: skip

    def query(self, expression: str) -> list[Any]:
        url = f"http://{self.place}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
        found = json.loads(fetch(url))
        assert found["status"] == "success", (expression, found)
        result: list[Any] = found["data"]["result"]
        return result

    def there(self) -> bool:
        try:
            return bool(fetch(f"http://{self.place}/-/ready"))
        except OSError:
            assert self._process.poll() is None, (self.folder / "prometheus.log").read_text()
            return False

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(20)
        self._log.close()


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Prometheus]:
    packages.fetch("prometheus")
    started = Prometheus(tmp_path)
    yield started
    started.close()


def test_every_query_of_the_dashboard_has_an_answer(tmp_path: Path, prometheus: Prometheus) -> None:
    # Given a run that serves its figures to who brings the token
    model = makers.tiny_model(tmp_path / "model", vocabulary=VOCABULARY)
    makers.tiny_tokenizer(Path(model), vocabulary=VOCABULARY)
    rig = Rig(tmp_path, model, steps=400, options={"token_s": 0.02})
    metrics = settings.MetricsConfig(address="127.0.0.1:0")
    rig.config = rig.config.model_copy(update={"metrics": metrics})
    run_dirs.claim(rig.run_dir, rig.config)
    with rig:
        for name in ("scorer-0", "generator-0"):
            rig.start(name)
        credentials = rig.server.credentials(rig.broker_config, "learner")
        secret = {"password": credentials.password.get_secret_value()}
        arguments = (
            settings.to_json(rig.config), credentials.model_dump(mode="json") | secret,
            str(rig.run_dir), {"SPPO_METRICS__TOKEN": TOKEN},
        )  # fmt: skip
        learner = CONTEXT.Process(target=learn, args=arguments, daemon=True)
        learner.start()
        try:
            ask_all(rig, prometheus)
        finally:
            learner.kill()
            learner.join()


def ask_all(rig: Rig, prometheus: Prometheus) -> None:
    # When Prometheus has found and scraped it for a while
    wait(prometheus.there, rig)
    place = wait(lambda: run_dirs.read_json(rig.run_dir / "prometheus.json"), rig)[0]["targets"][0]
    wait(lambda: prometheus.query("sppo_learner_mismatch"), rig)
    wait(lambda: prometheus.query("rate(sppo_learner_tokens_total[1m]) > 0"), rig)
    # Then its checker agrees with the names
    text = fetch(f"http://{place}/metrics", TOKEN)
    checked = subprocess.run(
        [packages.program("promtool"), "check", "metrics"], input=text, capture_output=True
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")
    # each role is there
    roles = {each["metric"]["role"] for each in prometheus.query("sppo_role_alive")}
    assert roles == {"learner", "generator", "scorer"}
    assert prometheus.query("sppo_broker_groups_queued")
    # and so is what the dashboard asks for
    for title, expression in queries():
        answer = wait(lambda e=expression: prometheus.query(e), rig, 15, title)  # type: ignore[misc]
        assert all(each["metric"].get("run", "test") == "test" for each in answer), title


def queries() -> list[tuple[str, str]]:
    """Panels' titles and what they ask, for any run."""
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    return [
        (panel["title"], target["expr"].replace("$run", ".+"))
        for panel in panels
        for target in panel["targets"]
    ]


def test_the_published_configuration_is_one(tmp_path: Path) -> None:
    packages.fetch("prometheus")
    shutil.copytree(SCRAPES.parent, tmp_path / "deploy" / "prometheus")
    (tmp_path / "runs").mkdir()
    copy = tmp_path / "deploy" / "prometheus" / SCRAPES.name
    done = subprocess.run(
        [packages.program("promtool"), "check", "config", copy], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
