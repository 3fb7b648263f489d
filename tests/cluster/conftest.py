"""A model that fits anywhere."""

from __future__ import annotations

import pytest

from sppo import models
from sppo.config import ModelConfig
from tests import makers


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two layers of random weights behind the tokenizer of the default model."""
    tokenizer = models.load_tokenizer(models.resolve(ModelConfig(name=models.PACKAGED)))
    folder = tmp_path_factory.mktemp("model")
    makers.tiny_model(folder, vocabulary=len(tokenizer), head_dim=32)
    tokenizer.save_pretrained(str(folder))
    return str(folder)
