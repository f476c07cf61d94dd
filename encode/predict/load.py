"""`twinreel.load`: any model on disk, ready to use."""

from pathlib import Path

from jax.sharding import Mesh

from ...zoo.load import Located, load_model, locate
from ..embed.encoder import Encoder, encoder_of
from .answers import AnswerPredictor
from .multitask import MultiTaskPredictor
from .predictor import Predictor
from .recommender import Recommender
from .steps import StepPredictor
from .timeline import TimelinePredictor
from .verifier import Verifier
from .writer import Writer, writer_of

PREDICTORS = {
    "classify": Predictor,
    "localise": TimelinePredictor,
    "highlight": TimelinePredictor,
    "summarise": TimelinePredictor,
    "anomaly": StepPredictor,
    "identify": Verifier,
    "recommend": Recommender,
    "answer": AnswerPredictor,
    "multitask": MultiTaskPredictor,
}
"""Name of a task in `spec.heads` -> what applies its model to files."""
AnyPredictor = (
    Predictor | TimelinePredictor | StepPredictor | Verifier | Recommender | AnswerPredictor | MultiTaskPredictor
)


def load(path: str | Path, *, mesh: Mesh | None = None) -> Encoder | AnyPredictor | Writer:
    """Open a model: a dual tower as an `Encoder`, a fine-tuned one as its head's predictor, a decoder as a `Writer`.

    Args:
      path: a bundle, the workdir of a run (its newest checkpoint; of a fine-tuned run the best), one checkpoint, or
        public weights (a folder or `hf:ORGANISATION/NAME`, see `twinreel convert --list`); or the s3:// or gs:// URL of
        any.
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


def predictor_of(located: Located, *, mesh: Mesh | None = None) -> AnyPredictor:
    """Build and fill the predictor of a fine-tuned model that was located.

    Raises:
      UserError: parameters that do not fit.
    """
    made = PREDICTORS[next(iter(located.spec.task_heads))]
    model = load_model(located)
    return made(spec=located.spec, model=model, mesh=mesh, source=str(located.path), meta=located.meta)
