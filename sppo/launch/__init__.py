"""Launching a run: the run directory, role processes on Ray, supervision, progress."""
