"""A Ray of one run's own: on loopback addresses, with a token, and without what nobody here asks
for (ADR 0005).
"""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path

from sppo import stop

OBJECT_STORE_BYTES = 80 << 20
ENVIRONMENT = {
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # It kills workers at 95 % of the machine's memory, whoever uses it.
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_worker_niceness": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
    # This Ray starts a handful of actors and watches them: no looking several times a second, no
    # record of events.
    "RAY_raylet_report_resources_period_milliseconds": "1000",
    "RAY_object_manager_timer_freq_ms": "1000",
    "RAY_raylet_check_gc_period_milliseconds": "5000",
    "RAY_kill_idle_workers_interval_ms": "5000",
    "RAY_report_worker_backlog_interval_ms": "5000",
    "RAY_gcs_pull_resource_loads_period_milliseconds": "10000",
    "RAY_free_objects_period_milliseconds": "10000",
    "RAY_raylet_check_for_unexpected_worker_disconnect_interval_ms": "10000",
    "RAY_local_fs_monitor_interval_ms": "10000",
    "RAY_io_context_monitor_probe_interval_ms": "60000",
    "RAY_metrics_report_interval_ms": "100000",
    "RAY_ray_events_report_interval_ms": "60000",
    "RAY_debug_dump_period_milliseconds": "0",
    "RAY_event_stats": "0",
    "RAY_task_events_report_interval_ms": "0",
    "RAY_io_context_event_loop_lag_collection_interval_ms": "0",
    "RAY_enable_timeline": "0",
}
"""Set before Ray is imported, for a cluster of the user's too."""


def authenticate(*, own: bool) -> None:
    """Before Ray is imported, which looks then and never again: a token for one of our `own`; a
    cluster of the user's has one unless the user says otherwise.
    """
    if not own:
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        return
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def begin() -> None:
    """Start it on this machine, for as long as this process lives or until `ray.shutdown`."""
    authenticate(own=True)
    import ray
    from ray._private import node, services

    # Ray turns 127.0.0.1 into the host's address and then listens there; this run is on one
    # machine.
    services.resolve_ip_for_localhost = lambda host: host
    quiet()
    # Nobody reads roles' logs through Ray, adds machines to it, or asks it for jobs: three
    # processes fewer.
    for part in ("start_log_monitor", "start_monitor", "start_api_server"):
        setattr(node.Node, part, lambda *_, **__: None)
    with stop.kept_from_children():
        ray.init(
            address="local",
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            object_store_memory=OBJECT_STORE_BYTES,
            _node_ip_address="127.0.0.1",
            _temp_dir=str(Path(tempfile.gettempdir()) / "ray"),
        )


def quiet() -> None:
    """The supervisor says which role died and why; Ray's own notice on the terminal says less in
    more words.
    """
    from ray._private import worker

    worker.print_to_stdstream = lambda *_, **__: None
