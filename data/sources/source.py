"""What a benchmark's entry in the registry says, and what reading its annotation files gives."""

import collections
import dataclasses
import json
from collections.abc import Callable, Iterable
from typing import Any

from ...base.errors import UserError
from ..manifest import Clip, make_clip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Option:
    """A choice that a source offers on the command line, as `--name VALUE`.

    Attributes:
      name: of the flag, and of the keyword of `Source.read`.
      default: the value where the flag is not given; its type is the type of the flag.
      help: one sentence.
      choices: the values allowed; () = any of the type.
    """

    name: str
    default: str | int | float
    help: str
    choices: tuple[str | int, ...] = ()


@dataclasses.dataclass(kw_only=True)
class Annotations:
    """What the annotation files of a benchmark say, without a look at any video.

    Attributes:
      clips: in the order of the files, all with a split; `path` is the name of the video without its suffix.
      expected: what the protocol counts, by `"SPLIT clips"`, `"SPLIT captions"` or `"labels"`.
      notes: what was repaired or left out, with how often.
    """

    clips: list[Clip] = dataclasses.field(default_factory=list)
    expected: dict[str, int] = dataclasses.field(default_factory=dict)
    notes: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    _places: dict[str, str] = dataclasses.field(default_factory=dict, repr=False)

    def add(self, fields: dict[str, Any], *, where: str) -> None:
        """Check the fields of a clip (as in a manifest) and append it.

        Args:
          fields: JSON values by field name of `Clip`.
          where: file and line, or key, for error messages.

        Raises:
          UserError: a field of the wrong kind, or a clip_id that is there already; names place, field and value.
        """
        clip = make_clip(fields, where=where)
        try:
            json.dumps(clip.meta, allow_nan=False, ensure_ascii=False).encode()
        except ValueError as error:
            raise UserError(f"{where}: {clip.meta} cannot be written as JSON ({error}); mend the values") from error
        if clip.clip_id in self._places:
            raise UserError(
                f"{where}: clip {clip.clip_id!r} stands in {self._places[clip.clip_id]} already; "
                "remove one of the two, or download the file again from its owners"
            )
        self._places[clip.clip_id] = where
        self.clips.append(clip)

    def counted(self) -> dict[str, int]:
        """Return the numbers that `expected` may name: clips and captions of each split, and distinct labels."""
        counts: collections.Counter[str] = collections.Counter()
        for clip in self.clips:
            counts[f"{clip.split} clips"] += 1
            counts[f"{clip.split} captions"] += len(clip.captions)
        counts["labels"] = len({label for clip in self.clips for label in clip.labels})
        return dict(counts)

    def deviations(self) -> list[str]:
        """Say where the counts differ from the protocol's, a sentence each; a split that was not read is left out."""
        counted = self.counted()
        return [
            f"{what}: the files have {counted[what]:,}, the protocol says {expected:,}"
            for what, expected in self.expected.items()
            if what in counted and counted[what] != expected
        ]


def _no_alternatives(clip: Clip) -> Iterable[Clip]:
    return ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """A benchmark whose own annotation files twinreel reads.

    Attributes:
      name: on the command line.
      title: what it is, in a line.
      layout: the files expected in --annotations, one per line, then what may stand there.
      published_at: the owners' page.
      read: the parser: `read(folder, **options)`.
      options: flags beside the general ones.
      videos: how the videos under --videos are named; "" = the source has no videos of its own to be found.
      licence: what the owners ask for, in a line.
      notes: choices made here that a reader of a number wants to know.
      alternatives: other forms in which the video of a clip may be there: clips with another `path` (name without
        suffix) and the window that fits it, in order of preference.
    """

    name: str
    title: str
    layout: str
    published_at: str
    read: Callable[..., Annotations]
    options: tuple[Option, ...] = ()
    videos: str = ""
    licence: str = ""
    notes: str = ""
    alternatives: Callable[[Clip], Iterable[Clip]] = _no_alternatives

    def settings(self, given: dict[str, Any]) -> dict[str, Any]:
        """Return the value of each option: as given, else the default.

        Raises:
          UserError: an option that this source does not have, or a value that it does not allow.
        """
        known = {option.name: option for option in self.options}
        for name, value in given.items():
            if name not in known:
                has = ", ".join(f"--{option}" for option in known) or "none"
                raise UserError(f"--{name} does not belong to {self.name!r}; its own flags: {has}")
            choices = known[name].choices
            if choices and value not in choices:
                wanted = ", ".join(str(choice) for choice in choices)
                raise UserError(f"--{name} is {value!r}; {self.name!r} has: {wanted}")
        return {name: given.get(name, option.default) for name, option in known.items()}
