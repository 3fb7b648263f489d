"""What this machine is like for a run, looked at before one is started: `sppo-cli doctor`.

Each check gives findings: ok, warn or fail with the mend, or skip with the reason why it could not
be made. No engine is started and no model loaded.
"""
