"""MLflow: at MLFLOW_TRACKING_URI, by default the database mlflow.db of the current folder, in the
experiment MLFLOW_EXPERIMENT_NAME, or `sppo`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException

from sppo.config import flatten
from sppo.track.shape import COLUMNS, Row
from sppo.track.tracker import About

OWN = "sppo.run"
"""Tag with the run's name among all runs."""
SHOWN = "mlflow.loggedArtifacts"
"""Tag that names the tables that its page shows."""
MOST_SHOWN = 50
"""A tag holds 8,000 characters."""
PARAMS = 100
"""Settings in one request, at most; a value holds 6,000 characters."""
VALUE = 6000


class Run:
    """See `sppo.track.tracker.Tracker`. Settings are parameters, and config.toml an artifact,
    which may change.
    """

    forgets = False

    def __init__(self, about: About) -> None:
        self._client = MlflowClient()
        experiment = self._experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", "sppo"))
        found = self._client.search_runs([experiment], f"tags.`{OWN}` = '{about.id}'")
        if found:
            self._id = found[0].info.run_id
            self._client.set_terminated(self._id, "RUNNING")
            self._tables = json.loads(found[0].data.tags.get(SHOWN, "[]"))
        else:
            made = self._client.create_run(experiment, tags={OWN: about.id}, run_name=about.name)
            self._id, self._tables = made.info.run_id, []
            self._settings(about)
        self._client.log_text(self._id, about.toml, "config.toml")

    def _experiment(self, name: str) -> str:
        there = self._client.get_experiment_by_name(name)
        if there is None:
            try:
                return str(self._client.create_experiment(name))
            except MlflowException:  # another run was faster
                there = self._client.get_experiment_by_name(name)
                if there is None:
                    raise
        return str(there.experiment_id)

    def _settings(self, about: About) -> None:
        params = [
            Param(key, str(value)[:VALUE]) for key, value in flatten(dict(about.config)).items()
        ]
        for at in range(0, len(params), PARAMS):
            self._client.log_batch(self._id, params=params[at : at + PARAMS])

    def forget(self, step: int) -> None:
        """Not here."""
        raise AssertionError

    def figures(self, step: int, time: float, figures: Mapping[str, float]) -> None:
        """As metrics. The same again changes nothing."""
        at = round(time * 1000)
        self._client.log_batch(self._id, [Metric(k, v, at, step) for k, v in figures.items()])

    def samples(self, step: int, time: float, stream: str, rows: Sequence[Row]) -> None:
        """As a table of this step, in the form of MLflow's `log_table`, which would write all
        tables of one name again each time.
        """
        path = f"samples/{stream}-{step:06d}.json"
        table = {"columns": COLUMNS, "data": rows}
        self._client.log_dict(self._id, table, path)
        self._tables = [*self._tables, {"path": path, "type": "table"}][-MOST_SHOWN:]
        self._client.set_tag(self._id, SHOWN, json.dumps(self._tables))

    def flush(self) -> None:
        """Each call has answered."""

    def close(self) -> None:
        """For now."""
        self._client.set_terminated(self._id)
