"""Media files to the rows of batches: decoded by several processes, each host only its share."""

import concurrent.futures
import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float32, Int16
from rich.console import Console
from rich.progress import track

from ...base.errors import UserError
from ...data.batches.clip_graph import ClipGraph
from ...data.machine import cores
from ...data.media.decode import DecodedClip, DecodeError, DecodeOptions
from ...data.media.listen import decode_sound
from ...data.media.workers import Job, decode_in_order
from ...data.options import DataOptions, FeedOptions, InputSpec
from ..devices.rows import shares

NO_SOUND = ("no sound track", "no sound could be decoded")
"""Reasons of `decode_sound` that say that a file has no sound."""


def decode_options(spec: InputSpec) -> DecodeOptions:
    """Return how files are decoded before frames are drawn: as the records were that the model was trained on.

    Raises:
      UserError: the model takes faces that were cut out, and has no detector.
    """
    kept = {key: spec.decode[key] for key in ("fps", "short_side", "jpeg_quality", "crop_faces") if key in spec.decode}
    if kept.get("crop_faces") is True:
        raise UserError(
            "this model was trained on faces that `twinreel prepare --crop_faces` cut out; give the detector's ONNX "
            "file (`predict --crop_faces FILE`, in Python `model.crop_faces(FILE)`)"
        )
    return DecodeOptions(**{"fps": None, "short_side": 0, **kept}, audio=False)


def frames_graph(spec: InputSpec, *, windows: int = 1) -> ClipGraph:
    """Return what draws, decodes and transforms the frames of a clip as evaluation does."""
    return _frames_graph(spec.num_frames, spec.eval_sampling, spec.eval_video, spec.mask_frames, windows)


@functools.lru_cache(maxsize=8)
def _frames_graph(num_frames: int, eval_sampling: str, eval_video: str, mask_frames: bool, windows: int) -> ClipGraph:
    given = {"eval_sampling": eval_sampling, "eval_video": eval_video, "mask_frames": mask_frames}
    spec = InputSpec(num_frames=num_frames, **given)
    return ClipGraph.of(DataOptions(input=spec, feed=FeedOptions(batch_size=1, eval_clips=windows)), train=False)


def frames_of(spec: InputSpec, *, clip: DecodedClip, windows: int = 1) -> np.ndarray:
    """Draw, decode and transform the frames of a decoded clip exactly as evaluation does.

    The frames come without a mask, so a clip of fewer frames than the model takes repeats some, `mask_frames` or not.

    Args:
      spec: what the model eats.
      clip: the encoded frames with their times.
      windows: V windows, evenly spread.

    Returns:
      uint8 [T,H,W,3]; with several windows or views (`three_crop`) [V,T,H,W,3].

    Raises:
      UserError: the frames are too small for a crop.
    """
    return rows_of(dataclasses.replace(spec, mask_frames=False), clip=clip, windows=windows)["video"]


def rows_of(spec: InputSpec, *, clip: DecodedClip, windows: int = 1) -> dict[str, np.ndarray]:
    """Return what the video tower takes of a decoded clip; for the arguments see `frames_of`.

    Returns:
      `video`, as `frames_of`; with `mask_frames` also `video_mask` bool [T], with several windows or views [V,T].
    """
    return timed_rows_of(spec, clip=clip, windows=windows)[0]


def timed_rows_of(
    spec: InputSpec, *, clip: DecodedClip, windows: int = 1
) -> tuple[dict[str, np.ndarray], Float32[np.ndarray, "VT"]]:
    """Return what `rows_of` does, and when each drawn frame begins in the clip, window after window, in seconds."""
    graph = frames_graph(spec, windows=windows)
    graph.transform.check(height=clip.height, width=clip.width, example="the given clip")
    uniforms = np.zeros(graph.draws, np.float32)
    drawn = graph.draw(times=clip.timestamps_s, duration_s=clip.duration_s, uniforms=uniforms)
    encoded = [clip.encoded[i] for i in drawn.frames]
    rows = {"video": graph.decode(encoded, height=clip.height, width=clip.width, uniforms=uniforms)}
    rows |= {"video_mask": graph.real_frames(drawn.frames)} if graph.mask_frames else {}
    return rows, clip.timestamps_s[drawn.frames]


def frames_of_files(
    spec: InputSpec,
    paths: Sequence[Path],
    *,
    batch_size: int,
    windows: int = 1,
    workers: int = 0,
    progress: bool = False,
) -> Iterator[dict[str, np.ndarray]]:
    """Yield this process's frames of successive global batches of files; see `clips_of_files`."""
    options = {"batch_size": batch_size, "windows": windows, "workers": workers, "progress": progress}
    return (rows for rows, _ in clips_of_files(spec, paths, **options))


def clips_of_files(
    spec: InputSpec,
    paths: Sequence[Path],
    *,
    batch_size: int,
    windows: int = 1,
    workers: int = 0,
    progress: bool = False,
) -> Iterator[tuple[dict[str, np.ndarray], list[float]]]:
    """Yield this process's frames of successive global batches of files, and how long each file is.

    Args:
      spec: what the model eats.
      paths: all n files, the same on every process.
      batch_size: of a global batch.
      windows: V windows of each file, evenly spread.
      workers: processes that decode; 0 = one per core, at most one per file.
      progress: draw a progress bar on standard error, on the first process.

    Yields:
      What `rows_of` returns of each, stacked: `video` uint8 [b,T,H,W,3] or [b,V,T,H,W,3], and with `mask_frames`
      `video_mask`; and b durations in seconds. b may be smaller where the files run out.

    Raises:
      UserError: a file that cannot be decoded; names it and the reason.
    """
    own = [paths[mine][: max(0, every.stop - mine.start)] for every, mine in shares(len(paths), batch_size=batch_size)]
    jobs = [Job(path=path, options=decode_options(spec)) for part in own for path in part]
    results = decode_in_order(iter(jobs), workers=min(workers or cores(), max(len(jobs), 1)))
    shape = (0, *frames_graph(spec, windows=windows).shape)
    empty = {"video": np.zeros(shape, np.uint8)}
    empty |= {"video_mask": np.zeros(shape[:-3], bool)} if spec.mask_frames else {}
    with concurrent.futures.ThreadPoolExecutor(cores()) as threads:
        for part in _shown(own, what="decode and embed", progress=progress):
            clips = [_decoded(path, next(results)) for path in part]
            made = list(threads.map(functools.partial(_rows, spec=spec, windows=windows), clips))
            rows = {key: np.stack([one[key] for one in made]) if made else none for key, none in empty.items()}
            yield rows, [clip.duration_s for clip in clips]
    results.close()


def sound_of_files(
    spec: InputSpec,
    paths: Sequence[Path],
    *,
    batch_size: int,
    workers: int = 0,
    progress: bool = False,
    silent: bool = False,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield this process's sound of successive global batches of files: the middle `audio_seconds` of each.

    Args:
      spec: what the model eats.
      paths: all n files, the same on every process.
      batch_size: of a global batch.
      workers: threads that decode; 0 = one per core.
      progress: draw a progress bar on standard error, on the first process.
      silent: a file without sound is no error: it has 0 real samples.

    Yields:
      int16 [b,S], shorter sound padded with silence, and int32 [b], the real samples of each.

    Raises:
      UserError: a file without sound, or that cannot be decoded; names it and the reason.
    """
    own = [paths[mine][: max(0, every.stop - mine.start)] for every, mine in shares(len(paths), batch_size=batch_size)]
    with concurrent.futures.ThreadPoolExecutor(workers or cores()) as threads:
        for part in _shown(own, what="decode and embed", progress=progress):
            made = list(threads.map(functools.partial(middle_of_sound, spec=spec, silent=silent), part))
            rows, lengths = np.zeros((len(made), spec.audio_samples), np.int16), np.zeros(len(made), np.int32)
            for i, (sound, _) in enumerate(made):
                rows[i, : len(sound)], lengths[i] = sound, len(sound)
            yield rows, lengths


def refuse_one(values: Any, *, of: type | tuple[type, ...], method: str) -> None:
    """Raise UserError if `values` is one value of that type and not a list of them; it names the method."""
    if isinstance(values, of):
        raise UserError(f"{method} wants a list, got one; write {method}([{str(values)!r}])")


def listed(paths: Iterable[str | Path], *, method: str) -> list[Path]:
    """Return paths as a list; one path alone is a UserError that names the method."""
    refuse_one(paths, of=(str, Path), method=method)
    return [Path(path) for path in paths]


def _rows(clip: DecodedClip, *, spec: InputSpec, windows: int) -> dict[str, np.ndarray]:
    return rows_of(spec, clip=clip, windows=windows)


def middle_of_sound(path: Path, *, spec: InputSpec, silent: bool = False) -> tuple[Int16[np.ndarray, "n"], float]:
    """Return at most `audio_seconds` of a file's sound, from its middle, and the second at which it begins.

    Raises:
      UserError: a file that cannot be decoded, or, unless `silent`, one without sound.
    """
    try:
        sound = decode_sound(path, rate=spec.audio_rate)
    except DecodeError as error:
        if silent and error.reason in NO_SOUND:
            return np.zeros(0, np.int16), 0.0
        raise UserError(f"{path} cannot be encoded: {error}") from error
    start = max(0, (len(sound) - spec.audio_samples) // 2)
    return sound[start : start + spec.audio_samples], start / spec.audio_rate


def _decoded(path: Path, result: DecodedClip | DecodeError) -> DecodedClip:
    if isinstance(result, DecodeError):
        raise UserError(f"{path} cannot be encoded: {result}") from result
    return result


def _shown(parts: Sequence[Any], *, what: str, progress: bool) -> Any:
    return track(
        parts, what, console=Console(stderr=True), disable=not progress or jax.process_index() != 0, transient=True
    )
