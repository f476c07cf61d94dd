"""Checks that the records have what a run is to learn from: the right precomputed vectors, and sound."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..base.errors import UserError
from ..zoo.digest import MADE_BY, weights_sha256

if TYPE_CHECKING:
    import numpy as np

    from ..data.batches.records import Records


def check_stored_features(records: "Records", *, name: str, params: "Mapping[str, np.ndarray]") -> None:
    """Compare the weights that made the features of the records with those of the new model's image tower.

    Args:
      records: of the data set.
      name: of the features (`config.model.video.features`).
      params: of the model that the run begins with, "/"-joined path -> array.

    Raises:
      UserError: another image tower made them. Features that `twinreel features` did not make tell nothing.
    """
    if not any(path.startswith("video/image/") for path in params):
        return
    found = {split: made for split in records.splits if (made := _made_by(records, split=split, name=name))}
    own = weights_sha256(params, tower="video/") if found else ""
    for split, made in found.items():
        if made != own:
            raise UserError(
                f"config.model.video.features={name!r}: split {split!r} of {str(records.folder)!r} holds vectors that "
                f"another image tower made (weights {made[:12]}); that of this run has weights {own[:12]}. Compute "
                "them with `twinreel features --config CONFIG` and prepare the data again, or name the right source"
            )


def check_sound(records: "Records", *, split: str) -> str:
    """Return a warning if no clip of a split has sound, from which a tower for sound could learn, or ""."""
    if records.rows(split).summary.sound:
        return ""
    return (
        f"no clip of split {split!r} of {str(records.folder)!r} has sound, so config.model.audio learns nothing; "
        "prepare files with sound, without --no-audio, or train without that tower"
    )


def _made_by(records: "Records", *, split: str, name: str) -> str:
    """Return what the first clip of a split that has the features says of the weights that made them; "" = nothing."""
    from ..data.batches.records import Record

    rows = records.rows(split)
    for index in sorted(rows.summary.features.get(name, {}).values())[:1]:
        [record] = records.read(split, [index])
        return str(Record(record).meta.get(MADE_BY, {}).get(name, ""))
    return ""
