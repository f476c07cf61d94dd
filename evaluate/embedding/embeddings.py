"""The embeddings of a split with what a report says about them, and their file."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from ...base.errors import UserError, unknown
from ..measures.rows import unit_pair, unit_rows
from ..npz import read_npz, write_npz
from ..protocols.controls import CONTROLS
from ..protocols.joint import JointScores, joint_of
from ..protocols.minimal_pairs import Foils

_CONTROL, _SIDE, _SOUND, _BANK = "control_", "side_", "has_sound", "bank_text"  # arrays of the file
_WINDOWS = "video_windows"


@dataclasses.dataclass(kw_only=True)
class Embeddings:
    """The embeddings of a split and what the report says about them.

    Attributes:
      text: float32 [n,E], one row per caption.
      video: float32 [m,E], one row per clip, in record order.
      video_of_text: int64 [n], each caption's clip.
      controls: control -> the embeddings that it changes, float32 [m,E] of clips or [n,E] of texts.
      sides: further sides of the model -> float32 [m,E]; [n,E] of a fused side with text.
      has_sound: bool [m], clips with sound; None where no side hears it.
      foils: wrong captions for minimal pairs, or None.
      bank_text: float32 [b,E], captions of another split, the query bank of QB-norm; or None.
      video_windows: float32 [m,V,E], the embedding of each window of a clip, of which `video` is the mean; or None.
      joint: name of `protocols.joint.KINDS` -> scores of texts with clips by that head of the model.
      captions: the n texts; empty where only arrays are known.
      rows: the m lines of `clips.jsonl`; empty where only arrays are known.
      protocol: see `retrieval.protocol_of`.
      coverage: see `retrieval.coverage_of`, or None where unknown.
      further: what is known of the blocks "controls" and "pairs" of the report, see `controls.about_controls`.
    """

    text: np.ndarray
    video: np.ndarray
    video_of_text: np.ndarray
    controls: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    sides: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    has_sound: np.ndarray | None = None
    foils: Foils | None = None
    bank_text: np.ndarray | None = None
    video_windows: np.ndarray | None = None
    joint: dict[str, JointScores] = dataclasses.field(default_factory=dict)
    captions: list[str] = dataclasses.field(default_factory=list)
    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    protocol: dict[str, Any] = dataclasses.field(default_factory=dict)
    coverage: dict[str, Any] | None = None
    further: dict[str, Any] = dataclasses.field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write an `.npz` (no pickle): `text, video, video_of_text`, `about` (JSON bytes) and, if any, `control_NAME`,
        `side_NAME`, `has_sound`, `bank_text`, `video_windows` and the arrays of `JointScores` and `Foils`.

        It is written atomically, see `npz.write_npz`.
        """
        about = {key: getattr(self, key) for key in _ABOUT}
        arrays = {"text": self.text, "video": self.video, "video_of_text": self.video_of_text}
        arrays |= {f"{_CONTROL}{name}": rows for name, rows in self.controls.items()}
        arrays |= {f"{_SIDE}{name}": rows for name, rows in self.sides.items()}
        for name in (_SOUND, _BANK, _WINDOWS):
            if getattr(self, name) is not None:
                arrays[name] = getattr(self, name)
        for kind, scores in self.joint.items():
            arrays |= scores.to_arrays(kind)
        if self.foils is not None:
            arrays |= self.foils.to_arrays()
        packed = np.frombuffer(json.dumps(about, ensure_ascii=False).encode(), dtype=np.uint8)
        write_npz(path, about=packed, **arrays)

    @classmethod
    def load(cls, path: Path) -> "Embeddings":
        """Read an `.npz` of this class or any with `text [n,E]`, `video [m,E]` and `video_of_text int [n]`.

        Raises:
          UserError: no such file, no `.npz`, a missing key, arrays that do not fit together, or rows that are zero or
            not finite.
        """
        arrays = read_npz(Path(path), wanted={"text": "[n,E]", "video": "[m,E]", "video_of_text": "int [n]"})
        text, video, video_of_text = (arrays[key] for key in ("text", "video", "video_of_text"))
        found = cls(
            text=text,
            video=video,
            video_of_text=video_of_text,
            controls={name.removeprefix(_CONTROL): rows for name, rows in arrays.items() if name.startswith(_CONTROL)},
            sides={name.removeprefix(_SIDE): rows for name, rows in arrays.items() if name.startswith(_SIDE)},
            has_sound=arrays.get(_SOUND),
            bank_text=arrays.get(_BANK),
            video_windows=arrays.get(_WINDOWS),
        )
        try:
            unit_pair(found.text, video=found.video, video_of_text=found.video_of_text)
            found.check_further()
            found.joint = joint_of(arrays, texts=len(found.text), videos=len(found.video))
            found.foils = Foils.of(arrays, texts=len(found.text))
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
        if "about" in arrays:
            for key, value in _about(arrays["about"], path=path, lengths=(len(found.text), len(found.video))).items():
                setattr(found, key, value)
        return found

    def check_further(self) -> None:
        """Raise UserError for arrays of controls, sides or sound that do not fit to the others."""
        for name, rows in self.controls.items():
            if name not in CONTROLS:
                raise unknown(f"control of the array '{_CONTROL}{name}':", name, CONTROLS)
            _check_shape(rows, like=getattr(self, CONTROLS[name].side), name=f"{_CONTROL}{name}")
        for name, rows in self.sides.items():
            _check_shape(rows, like=self.text if "text" in name.split("+") else self.video, name=f"{_SIDE}{name}")
        sound = self.has_sound
        if sound is not None and (sound.dtype != bool or sound.shape != (len(self.video),)):
            raise UserError(f"'{_SOUND}' is {sound.dtype} {sound.shape}; wanted bool [{len(self.video)}]")
        if self.bank_text is not None and unit_rows(self.bank_text, name=_BANK).shape[1] != self.text.shape[1]:
            raise UserError(f"'{_BANK}' has width {self.bank_text.shape[1]} and 'text' has {self.text.shape[1]}")
        windows = self.video_windows
        if windows is not None and (windows.ndim != 3 or windows[:, 0].shape != self.video.shape):
            raise UserError(f"'{_WINDOWS}' has shape {windows.shape}; wanted [m,V,E] with 'video' {self.video.shape}")

    @property
    def groups(self) -> list[str | None]:
        """The group of each clip, None for a clip that is in none."""
        return [row.get("group") for row in self.rows] or [None] * len(self.video)


_ABOUT = ("captions", "rows", "protocol", "coverage", "further")


def _check_shape(rows: np.ndarray, *, like: np.ndarray, name: str) -> None:
    if rows.shape != like.shape:
        raise UserError(f"{name!r} has shape {rows.shape}; wanted {like.shape}")


def _about(packed: np.ndarray, *, path: Path, lengths: tuple[int, int]) -> dict[str, Any]:
    try:
        about = json.loads(packed.tobytes())
        about = {key: about[key] for key in _ABOUT}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: array 'about' is not the JSON that twinreel writes: {error!r}") from error
    got = (len(about["captions"]), len(about["rows"]))
    if any(size not in (0, length) for size, length in zip(got, lengths, strict=True)):
        raise UserError(
            f"{path}: 'about' describes {got[0]} captions and {got[1]} clips, the arrays have {lengths[0]} and "
            f"{lengths[1]} rows; drop the array 'about' or write the file again"
        )
    return about
