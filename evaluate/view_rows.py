"""The embeddings of each view of a clip, where evaluation combines scores instead of embeddings."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ..base.errors import UserError

if TYPE_CHECKING:
    from ..encode.encoder import Encoder


class KeptViews:
    """An encoder that keeps the embeddings of the windows of each clip, which `embed_clips` averages."""

    def __init__(self, encoder: "Encoder"):
        """Stand for an encoder; everything else is done by it."""
        self._encoder = encoder
        self._kept: dict[int, list[np.ndarray]] = {}
        self._first: dict[bytes, int] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def embed_local(self, rows: dict[str, np.ndarray], *, side: str) -> dict[str, np.ndarray]:
        """Embed a global batch of one view of each clip; rows have their clip's `digest` and its number `clip`."""
        got = self._encoder.embed_local(rows, side=side)
        for clip, digest, row in zip(got["clip"].tolist(), got["digest"], got["embedding"], strict=True):
            # Clips of equal frames get one embedding, as in `embed_clips`.
            if clip >= 0 and self._first.setdefault(digest.tobytes(), clip) == clip:
                self._kept.setdefault(clip, []).append(row)
            elif clip >= 0:
                self._kept[clip] = self._kept[self._first[digest.tobytes()]]
        return got

    def views(self, clips: int) -> np.ndarray:
        """Return the embeddings of V views of each clip, float32 [m,V,E].

        Raises:
          UserError: a clip was not embedded, or with another number of views.
        """
        counts = {len(self._kept.get(clip, [])) for clip in range(clips)}
        if len(counts) != 1 or 0 in counts:
            raise UserError(f"the clips have {sorted(counts)} views each; the records are damaged: prepare them again")
        return np.stack([np.stack(self._kept[clip]) for clip in range(clips)]).astype(np.float32)
