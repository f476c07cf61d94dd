"""What the training of a generator took."""

import json
from pathlib import Path

from ...engine.keeping.checkpoint import FOLDER
from ...engine.loop.goodput import FILE
from ..train.stages import AUTOENCODER


def training_cost(path: str | Path) -> dict[str, float]:
    """Return steps and seconds on the clock of both stages of a run, over all of their starts.

    Args:
      path: the workdir, or one of its checkpoints.

    Returns:
      `autoencoder_steps`, `autoencoder_s`, `flow_steps` and `flow_s`; without those of a stage that has left no record.
    """
    workdir = Path(path)
    if workdir.parent.name == FOLDER:
        workdir = workdir.parent.parent
    found: dict[str, float] = {}
    for name, folder in (("autoencoder", workdir / AUTOENCODER), ("flow", workdir)):
        lines = (folder / FILE).read_text(encoding="utf-8").splitlines() if (folder / FILE).is_file() else []
        if lines:
            last = json.loads(lines[-1])
            found |= {f"{name}_steps": last["step"], f"{name}_s": round(sum(last["seconds"].values()), 1)}
    return found
