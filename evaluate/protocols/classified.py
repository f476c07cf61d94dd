"""Clips with their classes, and the embeddings or scores that classify them; files of these."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from ...base.errors import UserError
from ..measures.checks import check_index, check_numbers
from ..npz import read_npz, write_npz

EMBEDDED = {"class_text": "float [c,t,E] (classes by templates)", "video": "float [m,E] or [m,f,E]"}
SCORED = {"scores": "float [m,c] (clips by classes) or [m,v,c] with v views"}
LABELS = {"labels": "int [m], or 0 and 1 [m,c] where clips have several"}
_ABOUT = ("classes", "names", "clip_ids", "protocol", "coverage")


@dataclasses.dataclass(kw_only=True)
class Classified:
    """Clips with their classes, and what they are scored with: embeddings or scores.

    Attributes:
      labels: int64 [m], the class of each clip; or bool [m,c] where clips have several.
      class_text: float [c,t,E], the texts of c classes in t templates; None of given scores.
      video: float [m,E], or [m,f,E] with a row per frame; None of given scores.
      views: float [m,v,E], embeddings of v views of each clip, whose scores may be combined instead; None = unknown.
      scores: float [m,c], or [m,v,c] of v views; None of embeddings.
      scale: what multiplies cosines (or given scores) before a softmax: the model's temperature.
      classes: the c labels; empty where unknown.
      names: what filled the templates; empty where unknown.
      clip_ids: of the m clips; empty where unknown.
      protocol: how the embeddings were made.
      coverage: see `retrieval.coverage_of`; None where unknown.
    """

    labels: np.ndarray
    class_text: np.ndarray | None = None
    video: np.ndarray | None = None
    views: np.ndarray | None = None
    scores: np.ndarray | None = None
    scale: float = 100.0
    classes: list[str] = dataclasses.field(default_factory=list)
    names: list[str] = dataclasses.field(default_factory=list)
    clip_ids: list[str] = dataclasses.field(default_factory=list)
    protocol: dict[str, Any] = dataclasses.field(default_factory=dict)
    coverage: dict[str, Any] | None = None

    def save(self, path: Path) -> None:
        """Write the embeddings as an `.npz` (no pickle): `class_text, video, labels, scale`, `about` (JSON bytes), and
        `views` if there are any.
        """
        about = {key: getattr(self, key) for key in _ABOUT}
        packed = np.frombuffer(json.dumps(about, ensure_ascii=False).encode(), dtype=np.uint8)
        arrays = {"class_text": self.class_text, "video": self.video, "labels": self.labels}
        arrays |= {} if self.views is None else {"views": self.views}
        write_npz(path, about=packed, scale=np.asarray(self.scale, np.float64), **arrays)

    @classmethod
    def load(cls, path: Path, *, scores: bool = False) -> "Classified":
        """Read an `.npz` of any origin.

        Args:
          path: of the file.
          scores: it holds `scores` and `labels`, instead of `class_text`, `video` and `labels`. `scale`, `classes` and
            `clip_ids` are optional in both.

        Raises:
          UserError: no such file, a missing array, arrays that do not fit together, or a row or a score that is zero or
            not finite.
        """
        path = Path(path)
        arrays = read_npz(path, wanted=(SCORED if scores else EMBEDDED) | LABELS)
        kept = ("scores", "labels") if scores else ("class_text", "video", "labels")
        given: dict[str, Any] = {key: arrays[key] for key in kept}
        found = cls(**given, scale=1.0 if scores else 100.0)
        found.views = None if scores else arrays.get("views")
        if "scale" in arrays:
            found.scale = _scale(arrays["scale"], path=path)
        if "about" in arrays and not scores:
            for key, value in _about(arrays["about"], path=path).items():
                setattr(found, key, value)
        for key in ("classes", "clip_ids"):
            if key in arrays:
                setattr(found, key, [str(name) for name in arrays[key].reshape(-1)])
        try:
            found.check()
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
        return found

    def check(self) -> None:
        """Raise UserError where arrays do not fit together; fill in the names of classes and clips that are unknown."""
        if self.scores is None:
            assert self.class_text is not None and self.video is not None
            clips, classes = len(self.video), len(self.class_text)
            text = check_numbers(self.class_text, name="class_text", dimensions=3)
            video = check_numbers(self.video, name="video", dimensions=3 if np.ndim(self.video) == 3 else 2)
            if text.shape[-1] != video.shape[-1]:
                raise UserError(
                    f"'class_text' has width {text.shape[-1]} and 'video' has width {video.shape[-1]}; both must come "
                    "from one model's joint space"
                )
            if self.views is not None:
                views = check_numbers(self.views, name="views", dimensions=3)
                if (views.shape[0], views.shape[2]) != (clips, text.shape[-1]):
                    raise UserError(f"'views' has shape {views.shape}; wanted [{clips},v,{text.shape[-1]}]")
        else:
            scores = check_numbers(self.scores, name="scores", dimensions=3 if np.ndim(self.scores) == 3 else 2)
            clips, classes = len(scores), scores.shape[-1]
        self.classes = self.classes or [f"class {number}" for number in range(classes)]
        self.names = self.names or list(self.classes)
        self.clip_ids = self.clip_ids or [f"clip {number}" for number in range(clips)]
        for name, wanted in (("classes", classes), ("names", classes), ("clip_ids", clips)):
            if len(getattr(self, name)) != wanted:
                raise UserError(f"{name!r} has {len(getattr(self, name))} entries; wanted {wanted}, as the arrays have")
        self.labels = _check_labels(self.labels, clips=clips, classes=classes)
        if self.scores is None:
            self._check_rows()

    def _check_rows(self) -> None:
        for name, named in (("class_text", self.classes), ("video", self.clip_ids)):
            rows = np.asarray(getattr(self, name))
            bad = np.argwhere(~np.isfinite(rows).all(axis=-1) | ~rows.any(axis=-1))
            if len(bad):
                first, *rest = bad[0].tolist()
                part = f", {'template' if name == 'class_text' else 'frame'} {rest[0]}," if rest else ""
                what = "class" if name == "class_text" else "clip"
                raise UserError(
                    f"{name!r} of {what} {named[first]!r}{part} is all zero or not finite ({len(bad)} such rows); an "
                    "embedding must have a direction: encode it again or leave it out"
                )


def _check_labels(labels: Any, *, clips: int, classes: int) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.ndim != 2:
        return check_index(labels, name="labels", length=clips, limit=classes)
    if labels.shape != (clips, classes) or not np.isin(labels, (0, 1)).all():
        raise UserError(
            f"'labels' is {labels.dtype} of shape {labels.shape}; wanted integers ({clips},), or 0 and 1 of shape "
            f"({clips}, {classes})"
        )
    without = np.flatnonzero(~labels.astype(bool).any(axis=1))
    if len(without):
        raise UserError(f"'labels' of row {without[0]} has no class ({len(without)} such clips); leave them out")
    return labels.astype(bool)


def _scale(array: np.ndarray, *, path: Path) -> float:
    if array.size != 1 or array.dtype.kind not in "fiu":
        raise UserError(f"{path}: 'scale' is {array.dtype} of shape {array.shape}; wanted one number")
    return float(array.reshape(-1)[0])


def _about(packed: np.ndarray, *, path: Path) -> dict[str, Any]:
    try:
        about = json.loads(packed.tobytes())
        return {key: about[key] for key in _ABOUT}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: array 'about' is not the JSON that twinreel writes: {error!r}") from error
