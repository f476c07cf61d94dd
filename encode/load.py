"""`twinreel.load`: any model on disk, ready to use."""

from pathlib import Path

from jax.sharding import Mesh

from ..zoo.load import load_model, locate
from .encoder import Encoder
from .predictor import Predictor, load_predictor


def load(path: str | Path, *, mesh: Mesh | None = None) -> Encoder | Predictor:
    """Open a model: a dual tower as an `Encoder`, a fine-tuned model with a head as a `Predictor`.

    Args:
      path: a bundle, the workdir of a run (its newest checkpoint), a checkpoints folder or one checkpoint.
      mesh: the devices that compute; None = all.

    Raises:
      UserError: nothing readable there, or parameters that do not fit.
    """
    located = locate(path)
    if located.spec.heads:
        return load_predictor(located, mesh=mesh)
    model = load_model(located)
    return Encoder(spec=located.spec, model=model, mesh=mesh, source=str(located.path), meta=located.meta)
