"""The contrastive objective: towers, and a loss over the pairs of modalities of the global batch."""

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool

from ..base.errors import UserError
from ..base.section import section
from ..engine.sharding.mesh import BATCH_AXES
from ..engine.step.grad_cache import in_parts
from ..losses.infonce import Foils, check_rows, info_nce, text_group
from ..losses.milnce import mil_nce
from ..losses.sigmoid import sigmoid
from ..models.dual import DualTower
from ..models.heads.sides import Texts
from ..models.layers.draws import fold, is_frozen, row_keys
from ..models.layers.pooling import masked_mean
from ..models.shapes import Scalar
from ..zoo.adapt import NOTHING, AdaptOptions, adapt_options, adapted, outside_towers, trained_by
from ..zoo.build import build
from ..zoo.language_models import frozen_part, hears
from ..zoo.pairs import sides_of
from ..zoo.spec import ModelOptions
from .encoding import all_texts, texts_of, with_tokens
from .loss_options import LossOptions
from .terms.interface import Seen
from .terms.table import TERMS, term_options

if TYPE_CHECKING:
    from ..base.config import Config
    from ..data.options import DataOptions, InputSpec

COMPARING = {"infonce": "InfoNCE", "mil_nce": "MIL-NCE"}
"""Losses that are a choice among the rows of a batch, and so need two: name in `config.loss.name` -> its own name."""

MASKED, UNMASKED = "masked", "unmasked"
"""Phases: with patch dropout, and the last steps without."""

_FOILS = 4  # number of the draws of foils that are encoded by themselves; the towers have 0 to 3
_LETTER = {"video": "v", "text": "t", "audio": "a"}
"""Modality -> its letter in the names of metrics; a fused side has those of its modalities ("accuracy_va2t")."""


class Contrastive:
    """What `engine.loop.train` needs to know of contrastive pretraining.

    Attributes:
      spec: of the model.
      trainable: regexes of the trained parameters; () = all.
    """

    def __init__(
        self,
        *,
        model: dict[str, Any],
        loss: dict[str, Any],
        input: "InputSpec",
        vocab_size: int,
        special_ids: Collection[int] = (),
        steps: int = 0,
        unmasked_steps: int = 0,
        adapt: AdaptOptions = NOTHING,
    ):
        """Describe the model and the loss; nothing is allocated until `init`.

        Args:
          model: `config.model`, fields of `zoo.spec.ModelOptions`.
          loss: `config.loss`, fields of `LossOptions`.
          input: what the towers take.
          vocab_size: V, of the tokenizer.
          special_ids: its special tokens, which no term of the loss hides.
          steps: `config.train.steps`.
          unmasked_steps: `config.train.unmasked_steps`, the last steps, which see all patches (FLIP, Li et al. 2023).
          adapt: `config.adapt`.

        Raises:
          UserError: options that do not fit each other.
        """
        self._options = section(LossOptions, loss, name="loss")
        made = section(ModelOptions, model, name="model")
        self.spec = made.spec(input=input, vocab_size=vocab_size, loss=self._options.name)
        self._layers = {"remat": made.remat, "unroll": made.unroll, "attention": made.attention}
        self.spec = adapted(self.spec, options=adapt)
        frozen = "|".join(filter(None, (frozen_part(self.spec), "" if self._options.weights() else self._unpaired())))
        self.trainable = (f"^(?!{frozen})",) if frozen else ()
        if adapt:
            self.trainable = (outside_towers(self.spec, but=frozen), *trained_by(adapt, spec=self.spec))
        self._unmasked_from = steps - unmasked_steps if unmasked_steps else None
        if unmasked_steps and not self.spec.towers["video"].get("patch_dropout"):
            raise UserError(
                f"config.train.unmasked_steps={unmasked_steps} leaves out patch dropout, but there is none; set "
                "config.model.video.patch_dropout (0.5 drops half of the patches) or config.train.unmasked_steps to 0"
            )
        self._check_fusion()
        self._terms = term_options(self._options, spec=self.spec)
        self._hears = bool(self._terms) and hears(self.spec)
        self._special_ids = tuple(sorted(special_ids))
        if "audio" in self._options.modalities() and not ("audio" in self.spec.towers and input.audio_samples):
            raise UserError(
                f"config.loss.pairs={self._options.weights()} needs sound; add config.model.audio (or {{}} for its "
                "defaults) and set config.data.audio_seconds"
            )

    def _unpaired(self) -> str:
        """Return a regex for the beginning of the paths that only pairs train."""
        unheard = "" if hears(self.spec) else "audio/|"
        return f"{unheard}text/|(?:video|text|audio)_projection/|log_scale$"

    def _check_fusion(self) -> None:
        """Raise UserError unless the pairs have the side that the model fuses, if any, and no other fused side."""
        made, weights = self.spec.fused_side, self._options.weights()
        wanted = [side for side in self._options.sides() if "+" in side]
        for side in wanted:
            if side != made:
                has = f"makes {made!r}" if made else "is not set"
                raise UserError(
                    f"config.loss.pairs={weights} has the fused side {side!r}, but config.model.fusion {has}; set "
                    f"config.model.fusion={{'kind': 'attention', 'modalities': {side.split('+')}}}"
                )
        if made and not wanted:
            raise UserError(
                f"config.model.fusion makes the side {made!r}, but config.loss.pairs={weights} has no pair with "
                f"it, so it would not learn; add one, such as '{made}_text', or leave config.model.fusion out"
            )

    def check_batch_size(self, batch_size: int) -> str:
        """Return a warning about a global batch of this size, or "".

        Raises:
          UserError: the loss compares rows, and there are fewer than two.
        """
        if not self._options.weights():
            return ""
        if self._options.name in COMPARING:
            check_rows(batch_size, loss=COMPARING[self._options.name])
        if batch_size > 1:
            return ""
        return (
            f"config.data.batch_size=1: the {self._options.name} loss sees one matching pair per step and no "
            "mismatched ones; at least 2 rows give it both"
        )

    def check_foils(self) -> None:
        """Raise UserError unless the loss can compare clips with wrong captions (`config.data.foils_per_clip`)."""
        options = self._options
        fused = "text" in self.spec.fusion.get("modalities", ())
        fits = any("video" in x.split("+") and y == "text" for x, y in map(sides_of, options.weights()))
        if options.name != "infonce" or options.form != "dense" or fused or not fits:
            raise UserError(
                "config.data.foils_per_clip needs config.loss.name='infonce', config.loss.form='dense' and a pair of "
                f"video and text, which is not fused; got name={options.name!r}, form={options.form!r} and "
                f"pairs={options.weights()}; set these or config.data.foils_per_clip=0"
            )

    def init(self, rngs: nnx.Rngs) -> DualTower:
        """Build the model with fresh parameters."""
        return build(self.spec, rngs=rngs, **self._layers)

    def phase(self, step: int) -> str:
        """Return `MASKED`, or `UNMASKED` in the last steps."""
        return UNMASKED if self._unmasked_from is not None and step >= self._unmasked_from else MASKED

    def loss(
        self, model: DualTower, batch: dict[str, Array], *, rngs: nnx.Rngs | None, phase: str = MASKED
    ) -> tuple[Scalar, dict[str, Scalar]]:
        """Return the weighted loss in nats over the rows of the global batch, and what is logged.

        That is `scale` (and `bias`), for each pair the in-batch accuracies of both directions (`accuracy_v2t`,
        `accuracy_t2v`, and so with `a` for audio and `va` for both; 0..1), with foils `accuracy_foils`, where there are
        several pairs or terms `loss_<pair>`, and `kl`, nats, of a fusion that has this term. Of each term of
        `config.loss.terms` there are `loss_<term>` and, of most, `accuracy_<term>`.

        Args:
          model: what `init` built.
          batch: of `data.batches.pipeline`; text may be [B,C,L] for MIL-NCE.
          rngs: the step's; None = no dropout and no patch dropout.
          phase: of `phase`.
        """
        embedded = self._encode(model, batch, rngs=rngs, drop_patches=phase == MASKED)
        kl = embedded.pop("kl", None)
        seen_by_terms = ("video", "text") if self._terms else ()
        has = {side: self._has(batch, side) for side in {*self._options.sides(), *seen_by_terms}}
        weights, scale = self._options.weights(), model.scale
        total, logged = jnp.zeros((), jnp.float32), {}
        for pair, weight in weights.items():
            x, y = sides_of(pair)
            loss, hits = self._pair(model, batch, scale=scale, embedded=embedded, has=has, x=x, y=y)
            total = total + jnp.asarray(weight, jnp.float32) * loss
            logged[f"accuracy_{_letters(x)}2{_letters(y)}"] = hits["accuracy_x2y"]
            logged[f"accuracy_{_letters(y)}2{_letters(x)}"] = hits["accuracy_y2x"]
            logged |= {"accuracy_foils": hits["accuracy_foils"]} if "accuracy_foils" in hits else {}
            if len(weights) + len(self._terms) > 1:
                logged[f"loss_{pair}"] = loss
        if self._terms:
            seen = self._seen(model, batch, embedded=embedded, has=has, rngs=rngs)
            for number, (name, options) in enumerate(self._terms.items()):
                loss, hits = TERMS[name].loss(seen._replace(keys=fold(seen.keys, number)), options)
                total = total + jnp.asarray(options.weight, jnp.float32) * loss
                logged[f"loss_{name}"] = loss
                logged |= {"_".join(filter(None, ("accuracy", name, way))): hit for way, hit in hits.items()}
        if kl is not None:
            logged["kl"] = masked_mean(kl[None, :, None], mask=has[self.spec.fused_side][None])[0, 0]
            total = total + jnp.asarray(self._options.kl_weight, jnp.float32) * logged["kl"]
        learned = {"scale": scale} if weights else {}
        learned |= {"bias": model.bias[...]} if self._options.name == "sigmoid" else {}
        return total, logged | learned

    def _encode(
        self, model: DualTower, batch: dict[str, Array], *, rngs: nnx.Rngs | None, drop_patches: bool
    ) -> dict[str, Array]:
        """Return [B,E] of each side of the pairs, [B,C,E] of candidate texts [B,C,L], [B,n,E] of "foil", "kl" [B]."""
        self._check(batch)
        self._check_features(model)
        graph, state = nnx.split(model)
        sides, modalities = self._options.sides(), self._options.modalities()
        own = [side for side in sides if side in self.spec.fusion.get("modalities", ())]
        keys = {} if rngs is None else {"keys": row_keys(rngs(), rows=batch[self._keys(modalities[0])[0]].shape[0])}

        def encode(rows: dict[str, Array]) -> dict[str, Array]:
            towers, keys, made = nnx.merge(graph, state), rows.get("keys"), {}
            if self.spec.fusion:
                present = {side: rows[f"has_{side}"] for side in self.spec.fusion["modalities"]}
                kind = {"present": present, "sides": own, "keys": keys, "drop_patches": drop_patches}
                fused = towers.encode_fused(rows, **kind)
                made |= {self.spec.fused_side: fused.embedding} | fused.sides | fused.losses
            if self._terms:
                taken = {"hears": self._hears, "sees_patches": self.spec.sees_patches}
                made |= with_tokens(towers, rows, keys=keys, drop_patches=drop_patches, **taken)
            if "video" in sides and "video" not in made:
                real = {"mask": rows["video_mask"]} if "video_mask" in rows else {}
                made["video"] = towers.encode_video(rows["video"], keys=keys, drop_patches=drop_patches, **real)
            if "text" in sides and "text" not in made:
                made |= all_texts(towers, rows, keys=keys)
            elif "foil" in rows:
                made["foil"] = texts_of(towers, rows["foil"], mask=rows["foil_mask"], keys=fold(keys, _FOILS))
            if "audio" in sides and "audio" not in made:
                made["audio"] = towers.encode_audio(rows["audio"], lengths=rows.get("audio_samples"), keys=keys)
            return made

        names = {side: (side, f"{side}_mask") for side in modalities}
        rows = {
            name: batch[key] for side in modalities for name, key in zip(names[side], self._keys(side), strict=False)
        }
        rows |= {key: batch[key] for key in ("audio", "audio_mask") if self._hears}
        rows |= {"audio_samples": batch["audio_samples"]} if "audio" in rows and "audio_samples" in batch else {}
        if "video" in modalities and "video" not in self.spec.features and "video_mask" in batch:
            rows["video_mask"] = batch["video_mask"]
        rows |= {f"has_{side}": self._has(batch, side) for side in self.spec.fusion.get("modalities", ())}
        rows |= {key: batch[key] for key in ("foil", "foil_mask") if key in batch and "text" in sides}
        options = self._options
        return in_parts(encode, rows=rows | keys, parts=options.microbatch, again=options.grad_cache)

    def _seen(
        self, model: DualTower, batch: dict[str, Array], *, embedded: dict, has: dict, rngs: nnx.Rngs | None
    ) -> Seen:
        """Return what the terms of the loss see of a batch."""
        valid = has["video"] & has["text"]
        grouped = self._options.same_text != "negative"
        mask = self._keys("video")[1] if "video" in self.spec.features else "video_mask"
        return Seen(
            model=model,
            texts=Texts(embedded["text"], embedded["text_tokens"], batch["text_mask"], ids=batch["text"]),
            videos=embedded["video"],
            clips=model.clips(embedded["video_tokens"], mask=batch.get(mask))._replace(
                patches=embedded.get("video_patches"),
                sound=embedded.get("sound_tokens"),
                sound_mask=embedded.get("sound_mask"),
            ),
            valid=valid,
            group=text_group(batch["text"], mask=batch["text_mask"]) if grouped else None,
            scale=model.scale,
            keys=None if rngs is None else row_keys(rngs(), rows=valid.shape[0]),
            loss=self._options,
            batch=batch,
            special_ids=self._special_ids,
        )

    def _keys(self, side: str) -> tuple[str, ...]:
        """Return the arrays of a batch that the tower of a modality takes; the mask, if any, is the second."""
        if side in self.spec.features:
            name = f"features_{self.spec.features[side]}"
            return name, f"{name}_mask"
        return ("text", "text_mask") if side == "text" else (side,)

    def _check(self, batch: dict[str, Array]) -> None:
        for side in self._options.modalities():
            if self._keys(side)[0] not in batch:
                name = self.spec.features.get(side)
                hint = f"; set config.data.features={{{name!r}: ROWS}}" if name else ""
                raise UserError(
                    f"config.loss.pairs={self._options.weights()} needs {self._keys(side)[0]!r}, but the batches have "
                    f"{', '.join(sorted(batch))}{hint}"
                )
        if "text" in self._options.modalities() and batch["text"].ndim == 3 and self._options.name != "mil_nce":
            raise UserError(
                f"config.data.captions_per_clip={batch['text'].shape[1]} needs config.loss.name='mil_nce', got "
                f"{self._options.name!r}"
            )
        if "text" in self.spec.fusion.get("modalities", ()) and batch["text"].ndim == 3:
            raise UserError(
                f"config.data.captions_per_clip={batch['text'].shape[1]} gives a clip several texts, and the fused "
                f"side {self.spec.fused_side!r} takes one; set it to 1"
            )

    def _check_features(self, model: DualTower) -> None:
        """Raise UserError if the image tower, whose vectors were computed before, is trained."""
        name = self.spec.features.get("video")
        if name and hasattr(model.video, "image") and not is_frozen(model.video.image):
            raise UserError(
                f"config.model.video.features={name!r} stands for the vectors of the image tower, which then does not "
                "run and cannot be trained; freeze it: config.optimizer.frozen=('^video/image/',)"
            )

    def _has(self, batch: dict[str, Array], side: str) -> Bool[Array, "B *C"]:
        """Tell which rows take part and have this side; of texts, which candidates [B,C] are there."""
        if "+" in side:
            return jnp.any(jnp.stack([self._has(batch, modality) for modality in side.split("+")]), axis=0)
        array, *mask = (batch[key] for key in self._keys(side))
        rows = array.shape[0]
        valid = batch.get("valid", jnp.ones((rows,), bool))
        if side == "audio":
            return valid & batch["audio_mask"]
        if side == "text" and "caption_index" in batch:
            there = batch["caption_index"] >= 0
            return there & (valid if there.ndim == 1 else valid[:, None])
        if side == "text":
            return jnp.broadcast_to(valid.reshape(rows, *[1] * (array.ndim - 2)), array.shape[:-1])
        return valid & jnp.any(mask[0], axis=1) if mask else valid

    def _pair(
        self, model: DualTower, batch: dict[str, Array], *, scale: Scalar, embedded: dict, has: dict, x: str, y: str
    ) -> tuple[Scalar, dict[str, Scalar]]:
        """Return the loss of one pair of modalities and its accuracies."""
        options = self._options
        how = {"form": options.form, "exchange": options.exchange, "block": options.block, "axes": BATCH_AXES}
        how |= {"scale": scale}
        if options.name == "mil_nce":
            candidates, there = embedded[y], has[y]
            if candidates.ndim == 2:
                candidates, there = candidates[:, None], there[:, None]
            return mil_nce(video=embedded[x], text=candidates, text_valid=there, valid=has[x], **how)
        group = None
        if "text" in (x, y) and options.same_text != "negative":
            group = text_group(batch["text"], mask=batch["text_mask"])
        how |= {"valid": has[x] & has[y], "group": group, "same": options.same_text}
        how |= {"label_smoothing": options.label_smoothing, "hard_negative": options.hard_negative}
        if options.name == "sigmoid":
            return sigmoid(x=embedded[x], y=embedded[y], bias=model.bias[...], **how)
        if "foil" in embedded and "video" in x.split("+") and y == "text":
            how |= {"foils": self._foils(batch, embedded["foil"], grouped=group is not None)}
        return info_nce(x=embedded[x], y=embedded[y], **how)

    def _foils(self, batch: dict[str, Array], embedding: Array, *, grouped: bool) -> Foils:
        """Return the wrong captions of each row, with the numbers of their texts where those of captions are known."""
        text, mask = batch["foil"], batch["foil_mask"]
        flat = {"text": text.reshape(-1, text.shape[2]), "mask": mask.reshape(-1, text.shape[2])}
        group = text_group(**flat).reshape(*text.shape[:2], 2) if grouped else None
        return Foils(embedding=embedding, valid=batch["foil_valid"], group=group)


def make_objective(
    config: "Config", *, data: "DataOptions", vocab_size: int, special_ids: Collection[int] = ()
) -> Contrastive:
    """Return the objective that a config describes.

    Args:
      config: sections model, loss, train and, if there is one, adapt.
      data: section data.
      vocab_size: V, of the tokenizer.
      special_ids: its special tokens.

    Raises:
      UserError: a field that is not known, or options that do not fit each other or the batch size.
    """
    from ..engine.loop.options import TrainOptions

    train = section(TrainOptions, config.train, name="train")
    objective = Contrastive(
        model=config.model.to_dict(),
        loss=config.loss.to_dict(),
        input=data.input,
        vocab_size=vocab_size,
        special_ids=special_ids,
        steps=train.steps,
        unmasked_steps=train.unmasked_steps,
        adapt=adapt_options(config),
    )
    objective.check_batch_size(data.feed.batch_size)
    if data.feed.foils_per_clip:
        objective.check_foils()
    return objective


def _letters(side: str) -> str:
    return "".join(_LETTER[modality] for modality in side.split("+"))
