"""Imported once by the fork server, so that each life of a role starts within a fraction of a second."""

import sppo.generators.fake
import sppo.generators.loop
import sppo.learner.loop
import sppo.scorer.loop
import sppo.transport.redis_broker
import tests.faults.rig
import transformers.models.llama.modeling_llama  # noqa: F401
