"""`twinreel.load`: any model on disk, ready to use."""

from pathlib import Path

from jax.sharding import Mesh

from ..zoo.load import locate
from .encoder import Encoder, encoder_of
from .predictor import Predictor, load_predictor


def load(path: str | Path, *, mesh: Mesh | None = None) -> Encoder | Predictor:
    """Open a model: a dual tower as an `Encoder`, a fine-tuned model with a head as a `Predictor`.

    Args:
      path: a bundle, the workdir of a run (its newest checkpoint), a checkpoints folder, one checkpoint, or public
        weights (a folder or `hf:ORGANISATION/NAME`, see `twinreel convert --list`); or the s3:// or gs:// URL of any.
      mesh: the devices that compute; None = all.

    Raises:
      UserError: nothing readable there, or parameters that do not fit.
    """
    located = locate(path)
    if located.spec.task_heads:
        return load_predictor(located, mesh=mesh)
    return encoder_of(located, mesh=mesh)
