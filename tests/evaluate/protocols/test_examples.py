"""The worked examples of the protocols run."""

import doctest
import importlib
from pathlib import Path

import pytest

ROOM = Path(__file__).parents[3] / "evaluate" / "protocols"
MODULES = sorted(path.stem for path in ROOM.glob("[a-z]*.py") if ">>> " in path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("module", MODULES)
def test_examples_run(module):
    result = doctest.testmod(importlib.import_module(f"twinreel.evaluate.protocols.{module}"))
    assert result.attempted >= 1
    assert result.failed == 0
