"""The inputs and figures of other projects' evaluation code, tests/golden/evaluate."""

import json
from functools import cache
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parents[1] / "golden" / "evaluate"
TIED = ("sq40_ties", "sq40_dup", "mc60x20_ties", "const8")
UNTIED = ("sq500", "mc60x20", "mcvar", "qb_test")


@cache
def figures(name):
    return json.loads((FOLDER / f"{name}.json").read_text())


@cache
def arrays(name):
    with np.load(FOLDER / f"{name}.npz") as opened:
        return dict(opened)


def retrieval_case(name):
    """Scores float32 [texts, videos] and each text's video."""
    found = arrays("retrieval")
    scores = found[f"{name}/q"].astype(np.float32) / np.float32(2) ** found[f"{name}/bits"]
    for row, column in found.get(f"{name}/nan", []):
        scores[row, column] = np.nan
    return scores, found.get(f"{name}/owner")
