"""Clips and texts to embeddings, with what a loss wants beside them: tokens for its terms, wrong captions."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..models.dual import DualTower
from ..models.layers.draws import fold, fold_each, is_frozen

_SOUND = 2  # number of the draws of the audio tower, as in `models.dual`


def with_tokens(
    towers: DualTower,
    rows: dict[str, Array],
    *,
    keys: jax.Array | None,
    drop_patches: bool,
    hears: bool = False,
    sees_patches: bool = False,
) -> dict[str, Array]:
    """Embed clips and texts, and keep the tokens of both.

    Args:
      towers: the model.
      rows: of a batch.
      keys: one for each row; None = nothing is random.
      drop_patches: let patch dropout act.
      hears: keep the tokens of sound, too, and their mask.
      sees_patches: keep those of patches, too.
    """
    made = {}
    made["video"], clips = towers.encode_clips(rows, keys=keys, drop_patches=drop_patches)
    made["video_tokens"] = clips.steps
    made |= {"video_patches": clips.patches} if sees_patches else {}
    made["text"], made["text_tokens"] = towers.encode_with_tokens("text", inputs=rows, keys=keys)
    if hears:
        own = None if is_frozen(towers.audio) else fold(keys, _SOUND)
        tokens, real = towers.audio.features(rows["audio"], lengths=rows.get("audio_samples"), keys=own)
        made |= {"sound_tokens": tokens, "sound_mask": real & rows["audio_mask"][:, None]}
    return made


def all_texts(towers: DualTower, rows: dict[str, Array], *, keys: jax.Array | None) -> dict[str, Array]:
    """Embed the texts of rows and, where there are any, their foils [B,n,L]."""
    text, mask = rows["text"], rows["text_mask"]
    if "foil" not in rows:
        return {"text": texts_of(towers, text, mask=mask, keys=keys)}
    text = jnp.concatenate([text[:, None], rows["foil"]], axis=1)
    made = texts_of(towers, text, mask=jnp.concatenate([mask[:, None], rows["foil_mask"]], axis=1), keys=keys)
    return {"text": made[:, 0], "foil": made[:, 1:]}


def texts_of(towers: DualTower, text: Array, *, mask: Array, keys: jax.Array | None) -> Array:
    """Embed texts [B,L] or candidates [B,C,L]."""
    if text.ndim == 2:
        return towers.encode_text(text, mask=mask, keys=keys)
    rows, candidates, length = text.shape
    flat = towers.encode_text(text.reshape(-1, length), mask=mask.reshape(-1, length), keys=fold_each(keys, candidates))
    return flat.reshape(rows, candidates, -1)
