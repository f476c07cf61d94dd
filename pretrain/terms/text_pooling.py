"""InfoNCE over text-conditioned embeddings of clips (X-Pool)."""

import dataclasses

from ...losses.infonce import info_nce_of_similarity
from ...models.heads.text_pooling import XPool
from ...models.shapes import Scalar
from .interface import Seen, TermOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextPoolingOptions(TermOptions):
    """`config.loss.terms.text_pooling`: only the weight; what rows are to each other is as in `config.loss`."""


def text_pooling(seen: Seen, options: TextPoolingOptions) -> tuple[Scalar, dict[str, Scalar]]:
    """Compare all texts [B] with all clips [B], each pair by the clip's embedding for that text.

    Gorti et al. 2022 (X-Pool), equation 8; with the model's own temperature.
    """
    del options
    assert seen.model.heads is not None
    head = seen.model.heads["text_pooling"]
    assert isinstance(head, XPool)
    similarity = head.scores(seen.texts, clips=seen.clips, keys=seen.keys)
    loss, hits = info_nce_of_similarity(
        similarity.T,
        scale=seen.scale,
        valid=seen.valid,
        group=seen.group,
        same=seen.loss.same_text,
        label_smoothing=seen.loss.label_smoothing,
        hard_negative=seen.loss.hard_negative,
    )
    return loss, {"v2t": hits["accuracy_x2y"], "t2v": hits["accuracy_y2x"]}
