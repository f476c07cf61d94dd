"""What several tests of fine-tuning begin with."""

from pathlib import Path

import pytest
from colour_clips import prepare_and_pretrain


@pytest.fixture(scope="session")
def colours(tmp_path_factory) -> Path:
    """A prepared data set `data` of clips by colour, and the checkpoint `pretrained`."""
    return prepare_and_pretrain(tmp_path_factory.mktemp("colours"))
