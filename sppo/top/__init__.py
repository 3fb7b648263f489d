"""A live view of a run in a terminal, from its run directory alone (docs/watch.md)."""
