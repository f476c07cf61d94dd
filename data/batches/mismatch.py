"""Differences between the records that a checkpoint was trained on and those that it is used on. No tensorflow."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from .table import Table

_FEW = 0.05  # share of clips with too few frames that is worth a warning


def record_mismatches(
    *,
    trained: Mapping[str, Any],
    prepared: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    num_frames: int,
    sound: bool,
) -> list[str]:
    """Return one sentence for each difference that changes how clips look to the model.

    Args:
      trained: options of `twinreel prepare` for the records of the training (`meta["data"]["prepare"]`).
      prepared: the same for the records at hand.
      rows: lines of clips.jsonl of the split at hand.
      num_frames: T of the checkpoint.
      sound: whether it takes sound.
    """
    found = []
    if "fps" in trained and _rate(trained["fps"]) != _rate(prepared.get("fps")):
        found.append(
            f"these records hold {_rate(prepared.get('fps'))}, the checkpoint was trained on {_rate(trained['fps'])} "
            "(`twinreel prepare --fps`)"
        )
    if "short_side" in trained and trained["short_side"] != prepared.get("short_side"):
        found.append(
            f"these records have frames of {_side(prepared.get('short_side'))}, the checkpoint was trained on "
            f"{_side(trained['short_side'])} (`twinreel prepare --short_side`)"
        )
    if trained and bool(trained.get("crop_faces")) != bool(prepared.get("crop_faces")):
        kinds = ("whole frames", "faces that were cut out")
        found.append(
            f"these records show {kinds[bool(prepared.get('crop_faces'))]}, the checkpoint was trained on "
            f"{kinds[bool(trained.get('crop_faces'))]} (`twinreel prepare --crop_faces`)"
        )
    if trained.get("audio") and prepared.get("audio") is False and sound:
        found.append("these records have no sound, the checkpoint was trained with it (`twinreel prepare --audio`)")
    counts = rows.summary.num_frames if isinstance(rows, Table) else Counter(row["num_frames"] for row in rows)
    few = sum(clips for frames, clips in counts.items() if frames < num_frames)
    if few > _FEW * len(rows):
        found.append(
            f"{few:,} of {len(rows):,} clips have fewer than the {num_frames} frames that the checkpoint takes: "
            "what they lack is filled up (prepare them with a higher --fps)"
        )
    return found


def _rate(fps: float | None) -> str:
    return f"{fps:g} frames/s" if fps else "every frame"


def _side(pixels: int | None) -> str:
    return f"{pixels} pixels on the short side" if pixels else "the files' own size"
