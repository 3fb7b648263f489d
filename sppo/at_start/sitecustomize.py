"""Imported by each interpreter at its start where `sppo.builds` has found something to hide."""

import sppo  # noqa: F401 - hides it
