"""`twinreel.load`: any model on disk, ready to use."""

from pathlib import Path

from jax.sharding import Mesh

from ..zoo.load import Located, load_model, locate
from .encoder import Encoder, encoder_of
from .predictor import Predictor, load_predictor
from .timeline import TASKS, TimelinePredictor
from .writer import Writer, writer_of


def load(path: str | Path, *, mesh: Mesh | None = None) -> Encoder | Predictor | TimelinePredictor | Writer:
    """Open a model: a dual tower as an `Encoder`, a fine-tuned one as its head's predictor, a decoder as a `Writer`.

    Args:
      path: a bundle, the workdir of a run (its newest checkpoint), a checkpoints folder, one checkpoint, or public
        weights (a folder or `hf:ORGANISATION/NAME`, see `twinreel convert --list`); or the s3:// or gs:// URL of any.
      mesh: the devices that compute; None = all.

    Raises:
      UserError: nothing readable there, or parameters that do not fit.
    """
    located = locate(path)
    if located.spec.task_heads:
        return predictor_of(located, mesh=mesh)
    if "decoder" in located.spec.towers:
        return writer_of(located, mesh=mesh)
    return encoder_of(located, mesh=mesh)


def predictor_of(located: Located, *, mesh: Mesh | None = None) -> Predictor | TimelinePredictor:
    """Build and fill the predictor of a fine-tuned model that was located.

    Raises:
      UserError: parameters that do not fit.
    """
    if next(iter(located.spec.task_heads)) not in TASKS:
        return load_predictor(located, mesh=mesh)
    model = load_model(located)
    return TimelinePredictor(spec=located.spec, model=model, mesh=mesh, source=str(located.path), meta=located.meta)
