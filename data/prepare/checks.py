"""What `prepare` refuses before it reads anything: options that make no sense."""

import importlib.util
from collections.abc import Sequence
from typing import Any

from ...base.errors import UserError, unknown
from ..media.clip import FORMS, LONGEST_SEGMENT
from ..media.decode import DecodeOptions


def form(frames_as: str, **given: int | None) -> dict[str, Any]:
    """Return the fields of `DecodeOptions` for how frames are stored.

    Args:
      frames_as: one of `FORMS`.
      **given: `jpeg_quality`, `segment`, `crf`; None = the default.

    Raises:
      UserError: there is no such form, or it does not have an option that is given.
    """
    if frames_as not in FORMS:
        raise unknown("value of --frames_as:", frames_as, FORMS)
    for form, names in FORMS.items():
        for name in names:
            if form != frames_as and given[name] is not None:
                raise UserError(
                    f"--{name} is {given[name]}, which --frames_as {frames_as} does not have; leave it out, "
                    f"or give --frames_as {form}"
                )
    return {"frames_as": frames_as} | {name: value for name, value in given.items() if value is not None}


def check_options(options: DecodeOptions, *, workers: int, max_bad_fraction: float, shard_clips: int) -> None:
    """Refuse values that make no sense, by the name of the flag.

    Raises:
      UserError: there is one.
    """
    if options.crop_faces:
        from ..media.faces import FaceDetector  # OpenCV is loaded by those who look for faces

        FaceDetector(options.crop_faces)
        if not options.short_side:
            raise UserError("--crop_faces makes squares of --short_side pixels, which is 0; give their side")
    for name, value, good, wanted in (
        ("fps", options.fps, 0 <= (options.fps or 0) <= 1000, "0 (every frame) or frames per second up to 1000"),
        (
            "short_side",
            options.short_side,
            0 <= options.short_side <= 16384,
            "0 (as in the file) or pixels up to 16384",
        ),
        ("jpeg_quality", options.jpeg_quality, 1 <= options.jpeg_quality <= 100, "1 to 100"),
        ("segment", options.segment, 1 <= options.segment <= LONGEST_SEGMENT, f"1 to {LONGEST_SEGMENT} frames"),
        ("crf", options.crf, 1 <= options.crf <= 51, "1 (best) to 51"),
        ("max_seconds", options.max_seconds, options.max_seconds > 0, "more than 0 seconds"),
        ("max_pixels", options.max_pixels, options.max_pixels > 0, "1 or more pixels"),
        ("workers", workers, 0 <= workers <= 1024, "0 (one per core) or a number of processes up to 1024"),
        ("max_bad_fraction", max_bad_fraction, 0 <= max_bad_fraction <= 1, "a share from 0 to 1"),
        ("shard_clips", shard_clips, shard_clips >= 0, "0 (by the number of clips) or a number of clips"),
    ):
        if not good:
            raise UserError(f"--{name} is {value}, wanted {wanted}")


def check_beam(runner: str, options: Sequence[str]) -> None:
    """Refuse options without a runner, and a runner without Apache Beam."""
    if options and not runner:
        raise UserError(f"--beam_options {','.join(options)} has no --beam_runner; name one, as DirectRunner")
    if runner and importlib.util.find_spec("apache_beam") is None:
        raise UserError(f"--beam_runner {runner} needs Apache Beam: pip install 'twinreel[beam]'")
