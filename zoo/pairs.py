"""Pairs of modalities by name: what a loss compares, and what retrieval is measured between."""

from ..base.errors import UserError, unknown
from .spec import MODALITIES

PAIRS = {"video_text": ("video", "text"), "video_audio": ("video", "audio"), "audio_text": ("audio", "text")}
"""Name of a pair -> its two sides; `sides_of` reads pairs with a fused side, "video+audio_text"."""


def sides_of(pair: str, *, field: str = "config.loss.pairs") -> tuple[str, str]:
    """Return the two sides (x, y) of a pair; a fused side is several modalities joined by "+".

    Args:
      pair: its name.
      field: where it stands, for messages.

    Raises:
      UserError: an unknown modality, or a modality that stands twice.

    >>> sides_of("audio_text"), sides_of("video+audio_text")
    (('audio', 'text'), ('video+audio', 'text'))
    """
    if "+" not in pair:
        if pair not in PAIRS:
            raise unknown(f"pair in {field}", pair, [*PAIRS, "video+audio_text"])
        return PAIRS[pair]
    sides = pair.split("_")
    modalities = [modality for side in sides for modality in side.split("+")]
    for modality in modalities:
        if modality not in MODALITIES:
            raise unknown(f"modality in the pair {pair!r} of {field}:", modality, MODALITIES)
    if len(sides) != 2 or len(set(modalities)) < len(modalities) or sides[0] == "text":
        raise UserError(
            f"unknown pair in {field} {pair!r}: write two sides joined by '_', each modality once and text second, "
            "such as 'video+audio_text'"
        )
    return sides[0], sides[1]
