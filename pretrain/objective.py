"""The contrastive objective: a dual tower and InfoNCE over the global batch."""

import dataclasses
from typing import Any

from flax import nnx
from jaxtyping import Array

from ..configs.section import section
from ..losses.infonce import info_nce, text_group
from ..models.dual import DualTower, build
from ..models.shapes import Scalar


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossOptions:
    """`config.loss`.

    Attributes:
      mask_same_text: pairs of clips whose captions in this batch are token for token equal are not negatives of each
        other (they would be false negatives).
    """

    mask_same_text: bool = True


class Contrastive:
    """What `engine.train` needs to know of contrastive pretraining."""

    trainable: tuple[str, ...] = ()

    def __init__(
        self,
        *,
        model: dict[str, Any],
        loss: dict[str, Any],
        num_frames: int,
        context_length: int,
        vocab_size: int,
        trainable: tuple[str, ...] = (),
    ):
        """Describe the model and the loss; nothing is allocated until `init`.

        Args:
          model: `config.model`, arguments of `models.dual.build`.
          loss: `config.loss`, fields of `LossOptions`.
          num_frames: T.
          context_length: L.
          vocab_size: V.
          trainable: regexes over parameter paths; () trains all (LiT: all but `^video/`).
        """
        self._model = dict(model)
        self._sizes = {"num_frames": num_frames, "context_length": context_length, "vocab_size": vocab_size}
        self._options = section(LossOptions, loss, name="loss")
        self.trainable = tuple(trainable)

    def init(self, rngs: nnx.Rngs) -> DualTower:
        """Build the model with fresh parameters."""
        return section(build, self._model, name="model", **self._sizes, rngs=rngs)

    def loss(
        self, model: DualTower, batch: dict[str, Array], *, rngs: nnx.Rngs | None
    ) -> tuple[Scalar, dict[str, Scalar]]:
        """Return InfoNCE in nats over the valid rows of the global batch, with in-batch accuracies and `scale`."""
        video = model.encode_video(batch["video"], rngs=rngs)
        text = model.encode_text(batch["text"], mask=batch["text_mask"], rngs=rngs)
        group = text_group(batch["text"], mask=batch["text_mask"]) if self._options.mask_same_text else None
        loss, metrics = info_nce(x=video, y=text, scale=model.scale, valid=batch.get("valid"), group=group)
        names = {"accuracy_v2t": metrics["accuracy_x2y"], "accuracy_t2v": metrics["accuracy_y2x"]}
        return loss, names | {"scale": model.scale}
