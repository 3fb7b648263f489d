"""A tiny model for every rig."""

from __future__ import annotations

from pathlib import Path

import pytest

from sppo.generators.fake import VOCABULARY
from tests import makers


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = makers.tiny_model(tmp_path_factory.mktemp("model"), vocabulary=VOCABULARY)
    makers.tiny_tokenizer(Path(folder), vocabulary=VOCABULARY)
    return folder
