"""What the protocols of all benchmarks have in common."""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """The protocol of a benchmark.

    Attributes:
      name: on the command line.
      title: the data set and its test set, in a line.
      task: what is measured.
      source: name of the data set for `twinreel prepare`.
      options: options of `prepare` that decide what the test set is; others may have any value.
      split: the prepared split that is the test set.
      videos: number of videos; None = copies of the data set differ.
      ids_sha256: of the clip ids, see `manifest.ids_sha256`; None = the list is not public, or not known to twinreel.
      min_fps: least frames per second of the prepared records from which the usual frames can be drawn.
      frames: frames per clip by the code that uses so many.
      windows: windows of each clip.
      views: how a frame is cut.
      clip_side: what stands for a clip.
      variations: settings that a user may change nevertheless; the report names each under `deviations`.
      citation: where the test set comes from.
      notes: choices that make numbers of this benchmark incomparable between papers.
    """

    name: str
    title: str
    task: str = ""
    source: str
    options: Mapping[str, str | int] = dataclasses.field(default_factory=dict)
    split: str = "test"
    videos: int | None
    ids_sha256: str | None = None
    min_fps: float = 1.0
    frames: Mapping[str, int] = dataclasses.field(default_factory=dict)
    windows: int = 1
    views: str = "one centre crop"
    clip_side: str = "video"
    variations: tuple[str, ...] = ("windows", "window_seconds", "clip_side")
    citation: str
    notes: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the entry as JSON values, for protocols."""
        return dataclasses.asdict(self) | {"options": dict(self.options), "variations": list(self.variations)}

    @property
    def prepare(self) -> str:
        """The command line that makes the data."""
        flags = "".join(f" --{name} {value}" for name, value in self.options.items())
        folders = "--annotations DIR --videos DIR --out DIR"
        return f"twinreel prepare {self.source}{flags} --splits {self.split} {folders}"
