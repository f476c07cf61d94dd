"""The contrastive objective: towers, and losses over the global batch between pairs of what a clip holds."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from ..configs.errors import UserError, unknown
from ..configs.section import section
from ..losses.infonce import info_nce, text_group
from ..losses.milnce import mil_nce
from ..losses.sigmoid import sigmoid
from ..models.draws import RowKeys, fold_each, row_keys
from ..models.dual import DualTower, build
from ..models.shapes import Scalar
from .parts import in_parts

LOSSES = ("infonce", "sigmoid", "mil_nce")
PAIRS = ("video_text", "video_audio", "audio_text")
_SIGLIP_BIAS, _SIGLIP_SCALE = -10.0, 10.0  # Zhai et al. 2023, section 3.1
MASKED, UNMASKED = "masked", "unmasked"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossOptions:
    """`config.loss`.

    Attributes:
      name: "infonce" (CLIP), "sigmoid" (SigLIP), or "mil_nce" (several candidate captions of a clip, of which some may
        be right: `config.data.captions_per_clip`).
      form: "dense" holds the scores of all pairs, "blockwise" streams over blocks of them; the same value.
      exchange: blockwise over several devices: "gather" collects all embeddings, "ring" passes them round.
      block: blockwise: longest side of a block of scores.
      same_text: what pairs of clips are whose captions in this batch are token for token equal: "ignore" (no negatives
        of each other), "positive" (both right) or "negative" (as any other pair).
      label_smoothing: 0..1, see `losses.infonce`.
      hard_negative: beta >= 0, see `losses.infonce`.
      pairs: weight of each pair of modalities, of "video_text", "video_audio", "audio_text"; the loss is their weighted
        sum. A clip without sound takes no part in the pairs with audio.
      microbatch: in how many parts the batch is encoded, one after another. The loss is on all embeddings at once, and
        the gradient is exactly that of the full batch (GradCache, Gao et al. 2021, arXiv:2101.06983); memory of
        activations is divided, each tower's forward pass runs twice.
      unmasked_steps: so many steps at the end of the run are without patch dropout (FLIP, Li et al. 2023, section 4).
    """

    name: str = "infonce"
    form: str = "dense"
    exchange: str = "gather"
    block: int = 1024
    same_text: str = "ignore"
    label_smoothing: float = 0.0
    hard_negative: float = 0.0
    pairs: Mapping[str, float] = dataclasses.field(default_factory=lambda: {"video_text": 1.0})
    microbatch: int = 1
    unmasked_steps: int = 0

    def __post_init__(self):
        if self.name not in LOSSES:
            raise unknown("config.loss.name", self.name, LOSSES)
        for pair, weight in self.pairs.items():
            if pair not in PAIRS:
                raise unknown("pair in config.loss.pairs", pair, PAIRS)
            if weight < 0:
                raise UserError(f"config.loss.pairs.{pair} must not be negative, got {weight}")
        if not any(self.pairs.values()):
            raise UserError("config.loss.pairs gives no pair a weight above 0; for example {'video_text': 1.0}")
        if self.name == "mil_nce" and set(self.used) != {"video_text"}:
            raise UserError("config.loss.name='mil_nce' compares clips with captions; set config.loss.pairs to video_text")
        for field in ("microbatch", "unmasked_steps"):
            if getattr(self, field) < (least := {"microbatch": 1, "unmasked_steps": 0}[field]):
                raise UserError(f"config.loss.{field} must be at least {least}, got {getattr(self, field)}")

    @property
    def used(self) -> dict[str, float]:
        """The pairs with a weight above 0."""
        return {pair: weight for pair, weight in self.pairs.items() if weight}


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
        audio_samples: int = 0,
        steps: int = 0,
        trainable: tuple[str, ...] = (),
    ):
        """Describe the model and the loss; nothing is allocated until `init`.

        Args:
          model: `config.model`, arguments of `models.dual.build`.
          loss: `config.loss`, fields of `LossOptions`.
          num_frames: T.
          context_length: L.
          vocab_size: V.
          audio_samples: S.
          steps: `config.train.steps`, from whose end `unmasked_steps` are counted.
          trainable: regexes over parameter paths; () trains all (LiT: all but `^video/`).

        Raises:
          UserError: an unknown field or value; or a pair with audio and no audio tower.
        """
        self._options = section(LossOptions, loss, name="loss")
        self._model, self._steps = dict(model), steps
        self._sizes = {"num_frames": num_frames, "context_length": context_length, "vocab_size": vocab_size}
        self._sizes["audio_samples"] = audio_samples
        self.trainable = tuple(trainable)
        if self._options.name == "sigmoid":
            self._model = {"initial_bias": _SIGLIP_BIAS, "initial_scale": _SIGLIP_SCALE} | self._model
        if any("audio" in pair for pair in self._options.used) and not (self._model.get("audio") and audio_samples):
            raise UserError(
                "config.loss.pairs has a pair with audio; add config.model.audio (an audio tower) and set "
                "config.data.audio_seconds above 0"
            )

    def init(self, rngs: nnx.Rngs) -> DualTower:
        """Build the model with fresh parameters."""
        return section(build, self._model, name="model", **self._sizes, rngs=rngs)

    def phase(self, step: int) -> str:
        """Return "unmasked" for the last `config.loss.unmasked_steps` steps, which have no patch dropout."""
        return UNMASKED if step >= self._steps - self._options.unmasked_steps > 0 else MASKED

    def loss(
        self, model: DualTower, batch: dict[str, Array], *, rngs: nnx.Rngs | None, phase: str = MASKED
    ) -> tuple[Scalar, dict[str, Scalar]]:
        """Return the loss in nats over the valid rows of the global batch, in-batch accuracies, `scale` and `bias`."""
        keys = None if rngs is None else row_keys(rngs(), rows=batch["text"].shape[0])
        embedded = self._encode(model, batch, keys=keys, drop_patches=phase != UNMASKED)
        loss, metrics = jnp.float32(0.0), {}
        for pair, weight in self._options.used.items():
            value, accuracies = self._compare(pair, model, embedded, batch=batch)
            loss += jnp.float32(weight) * value
            metrics |= accuracies
            if len(self._options.used) > 1:
                metrics[f"loss_{pair}"] = value
        learned = {"scale": model.scale} | ({"bias": model.bias[...]} if self._has_bias else {})
        return loss, metrics | learned

    @property
    def _has_bias(self) -> bool:
        return self._model.get("initial_bias") is not None

    def _encode(
        self, model: DualTower, batch: dict[str, Array], *, keys: RowKeys | None, drop_patches: bool
    ) -> dict[str, Array]:
        """Embed what the pairs need: {"video" | "text" | "audio": float32 `[B,E]`}; several captions a row `[B,C,E]`."""
        wanted = {name for pair in self._options.used for name in pair.split("_")}
        graph, params = nnx.split(model)
        inputs = {key: batch[key] for key in ("video", "text", "text_mask", "audio") if key.split("_")[0] in wanted}

        def encode(params: Any, rows: dict[str, Array], keys: RowKeys | None) -> dict[str, Array]:
            towers = nnx.merge(graph, params)
            found = {}
            if "video" in wanted:
                found["video"] = towers.encode_video(rows["video"], keys=keys, drop_patches=drop_patches)
            if "text" in wanted:
                found["text"] = _encode_texts(towers, rows["text"], mask=rows["text_mask"], keys=keys)
            if "audio" in wanted:
                found["audio"] = towers.encode_audio(rows["audio"], keys=keys)
            return found

        return in_parts(encode, params, inputs, keys, parts=self._options.microbatch)

    def _compare(
        self, pair: str, model: DualTower, embedded: dict[str, Array], *, batch: dict[str, Array]
    ) -> tuple[Scalar, dict[str, Scalar]]:
        """Return the loss of one pair of modalities and its accuracies, named as `accuracy_v2t`."""
        options = self._options
        first, second = pair.split("_")
        x, y = embedded[first], embedded[second]
        valid = batch.get("valid")
        if "audio" in (first, second):
            heard = batch["audio_mask"]
            valid = heard if valid is None else valid & heard
        how = {"form": options.form, "exchange": options.exchange, "block": options.block, "valid": valid}
        if options.name == "mil_nce":
            real = jnp.any(batch["text_mask"], axis=-1)  # [B,C]
            loss, found = mil_nce(video=x, text=y, text_valid=real, scale=model.scale, **how)
        else:
            group = text_group(batch["text"], mask=batch["text_mask"]) if options.same_text != "negative" else None
            how |= {"group": group, "same": options.same_text, "label_smoothing": options.label_smoothing}
            how |= {"hard_negative": options.hard_negative, "scale": model.scale}
            loss, found = info_nce(x=x, y=y, **how) if options.name == "infonce" else sigmoid(
                x=x, y=y, bias=model.bias[...], **how
            )
        a, b = first[0], second[0]
        names = {"accuracy_x2y": f"accuracy_{a}2{b}", "accuracy_y2x": f"accuracy_{b}2{a}"}
        return loss, {names.get(name, name): value for name, value in found.items()}


def _encode_texts(model: DualTower, text: Array, *, mask: Array, keys: RowKeys | None) -> Array:
    """Embed `[B,L]`, or several captions of each row `[B,C,L]`."""
    if text.ndim == 2:
        return model.encode_text(text, mask=mask, keys=keys)
    rows, captions = text.shape[:2]
    flat = model.encode_text(
        text.reshape(rows * captions, -1), mask=mask.reshape(rows * captions, -1), keys=fold_each(keys, captions)
    )
    return flat.reshape(rows, captions, -1)
