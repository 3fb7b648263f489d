"""The engine that a configuration names."""

from __future__ import annotations

from sppo import compute
from sppo.generators import engine
from sppo.generators.transformers_engine import TransformersEngine
from sppo.generators.vllm_engine import VllmEngine
from tests import makers


def test_it_is_the_one_that_is_named_and_nothing_is_loaded() -> None:
    config = compute.placed(makers.run_config(), cuda=False)
    assert isinstance(engine.make(config, "nowhere"), VllmEngine)
    named = config.generator.model_copy(update={"engine": "transformers"})
    made = engine.make(config.model_copy(update={"generator": named}), "nowhere")
    assert isinstance(made, TransformersEngine)
