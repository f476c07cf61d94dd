"""`config.loss`: the loss, and the pairs of modalities that it compares."""

import dataclasses
from typing import Any

from ..base.errors import UserError, unknown
from ..losses.infonce import check_info_nce
from ..losses.milnce import check_mil_nce
from ..losses.sigmoid import check_sigmoid
from ..zoo.pairs import sides_of
from ..zoo.spec import MODALITIES

CHECKS = {"infonce": check_info_nce, "sigmoid": check_sigmoid, "mil_nce": check_mil_nce}
"""Name in `config.loss.name` -> refuses options that this loss does not take."""

ALONE = ("captioning", "masked_frames")
"""Terms that may be the whole loss: they see neither embeddings nor the text tower."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossOptions:
    """`config.loss`.

    Attributes:
      name: "infonce" (CLIP), "sigmoid" (SigLIP; adds the parameter `bias`) or "mil_nce" (the candidate captions of
        `config.data.captions_per_clip`; `same_text`, `label_smoothing` and `hard_negative` are not for it).
      pairs: pair of modalities (`zoo.pairs`) -> weight; the loss is the weighted sum. A row takes part in a pair if it
        is valid and has both: a text (`caption_index` is not -1), sound (`audio_mask`). Each pair is a mean over its
        rows.
        A side may be the one that `config.model.fusion` makes: "video+audio_text"; a row has it if it has at least one
        of its modalities. {} = no pair: the terms in `ALONE` are the whole loss, and of the model only the video tower
        and their heads are trained (GIT, Wang et al. 2022; VideoMAE, Tong et al. 2022).
      kl_weight: factor on the KL term of the fusion "poe", in nats, a mean over the rows that have the fused side.
      terms: further terms by name -> `{"weight": 1.0, ...}`, of `pretrain.terms.table.TERMS`: "text_pooling",
        "matching", "captioning", "masked_language", "masked_frames" and "distillation", which train the heads of the
        same names in `config.model.heads`. The weighted terms are added to the loss; they need the dense form of
        InfoNCE and the pair "video_text", or no pair at all.
      same_text: what two rows whose captions are token for token equal are to each other, in pairs with text: "ignore"
        (not negatives), "positive" or "negative"; see `losses.infonce.info_nce`.
      label_smoothing: see the losses.
      hard_negative: see `losses.infonce.info_nce`.
      form: "dense" holds the matrix of all scores, "blockwise" never does.
      exchange: blockwise on several devices: "gather" or "ring".
      block: blockwise: longest side of a tile of scores.
      microbatch: parts k in which the batch is encoded, one after another; see `engine.step.grad_cache`. Memory of
        activations falls to 1/k, at the price of a second forward pass; the gradient stays exact.
      grad_cache: with several parts, this second pass. False: what `config.model.remat` keeps is kept of all parts, and
        nothing is encoded again; only the memory that a layer needs while it is computed falls to 1/k.
    """

    name: str = "infonce"
    pairs: dict[str, float] = dataclasses.field(default_factory=lambda: {"video_text": 1.0})
    terms: dict[str, Any] = dataclasses.field(default_factory=dict)
    same_text: str = "ignore"
    label_smoothing: float = 0.0
    hard_negative: float = 0.0
    kl_weight: float = 1e-3
    form: str = "dense"
    exchange: str = "gather"
    block: int = 1024
    microbatch: int = 1
    grad_cache: bool = True

    def __post_init__(self):
        if self.name not in CHECKS:
            raise unknown("loss in config.loss.name", self.name, CHECKS)
        for pair, weight in self.pairs.items():
            sides_of(pair)
            if not 0 <= weight < float("inf"):
                raise UserError(f"config.loss.pairs.{pair} must be a weight of at least 0, got {weight}")
        if not any(self.pairs.values()) and not self.terms:
            raise UserError(
                "config.loss.pairs must have a pair with a weight above 0, such as {'video_text': 1.0}, unless there "
                "are config.loss.terms, such as {'captioning': {'weight': 1.0}}"
            )
        if not 0 <= self.kl_weight < float("inf"):
            raise UserError(f"config.loss.kl_weight must be at least 0, got {self.kl_weight}")
        CHECKS[self.name](
            same=self.same_text,
            label_smoothing=self.label_smoothing,
            hard_negative=self.hard_negative,
            form=self.form,
            exchange=self.exchange,
            block=self.block,
        )
        if self.microbatch < 1:
            raise UserError(f"config.loss.microbatch must be at least 1, got {self.microbatch}")

    def weights(self) -> dict[str, float]:
        """Return the pairs whose weight is above 0."""
        return {pair: float(weight) for pair, weight in self.pairs.items() if weight}

    def sides(self) -> tuple[str, ...]:
        """Return the sides of these pairs, each once: modalities in their order, then fused sides."""
        used = {side for pair in self.weights() for side in sides_of(pair)}
        return tuple(side for side in MODALITIES if side in used) + tuple(sorted(used.difference(MODALITIES)))

    def modalities(self) -> tuple[str, ...]:
        """Return what has to be encoded; without pairs that is what terms see."""
        used = {modality for side in self.sides() for modality in side.split("+")} or {"video", "text"}
        return tuple(modality for modality in MODALITIES if modality in used)
