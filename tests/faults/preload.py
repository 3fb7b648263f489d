"""Imported once by the fork server, so that each life of a role starts within a fraction of a
second.
"""

import transformers.models.llama.modeling_llama  # noqa: F401
