"""Limits that settings, data and frames share."""

MAX_INT = 2**31 - 1
"""The largest count of anything: engines and tensors count with 32 bits."""
MAX_FRAME = 1 << 30
"""Bytes of one group on the wire."""
MAX_COMPLETIONS = 4096
"""Completions of one group."""
