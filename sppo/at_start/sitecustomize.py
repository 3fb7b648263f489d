"""Imported by each interpreter at its start where `sppo.builds` has found something to hide.

Then comes the `sitecustomize` that would have been imported without this one. An interpreter of
another environment, which has no sppo, has nothing to hide.
"""

import contextlib
import importlib.util
import os
import sys
from importlib.machinery import PathFinder

with contextlib.suppress(ImportError):
    import sppo  # noqa: F401 - hides it

_behind = sys.path[sys.path.index(os.path.dirname(__file__)) + 1 :]
_spec = PathFinder.find_spec("sitecustomize", _behind)
if _spec is not None and _spec.loader is not None:
    _next = importlib.util.module_from_spec(_spec)
    sys.modules["sitecustomize"] = _next
    _spec.loader.exec_module(_next)
