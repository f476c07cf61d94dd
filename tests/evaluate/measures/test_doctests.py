"""Each measure has a worked example that runs."""

import doctest
import importlib
from pathlib import Path

import pytest

ROOM = Path(__file__).parents[3] / "evaluate" / "measures"
MODULES = sorted(".".join(p.relative_to(ROOM).with_suffix("").parts) for p in ROOM.rglob("[a-z]*.py"))


@pytest.mark.parametrize("module", MODULES)
def test_doctests_pass(module):
    result = doctest.testmod(importlib.import_module(f"twinreel.evaluate.measures.{module}"))
    assert result.attempted >= 1
    assert result.failed == 0
