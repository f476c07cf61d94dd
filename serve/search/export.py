"""Found stretches as files of their own."""

from collections.abc import Callable, Sequence
from pathlib import Path

from av.error import FFmpegError

from ...data.media.cut import cut
from ...data.media.place import DecodeError
from ...data.subtitles import write_srt
from .collection import Collection
from .engine import Hit


def export_hits(
    hits: Sequence[Hit],
    *,
    collection: Collection,
    folder: Path,
    subtitles: bool = False,
    tick: Callable[[], object] = lambda: None,
) -> tuple[list[Path], list[str]]:
    """Cut the stretches of hits into files `RANK-NAME-START-END.mp4`, with faces blurred if those of the index are.

    Args:
      hits: best first; pictures are left out.
      collection: the index, which has what is said.
      folder: where they go; made if there is none.
      subtitles: write what is said in each next to it, as SubRip (`.srt`).
      tick: called after each stretch.

    Returns:
      The MP4 files, and what was wrong with stretches that could not be cut.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made, failed, blur_faces = [], [], collection.settings.blur_faces
    for rank, hit in enumerate(hits, start=1):
        source = Path(hit.file.path)
        for span in hit.spans if hit.file.fps else ():
            out = folder / f"{rank:03d}-{source.stem[:80]}-{span.start_s:.2f}-{span.end_s:.2f}.mp4"
            try:
                cut(source, out=out, start_s=span.start_s, end_s=span.end_s, blur_faces=blur_faces)
            except (DecodeError, FFmpegError) as error:
                failed.append(f"{source}: {error}")
            else:
                made.append(out)
                if subtitles:
                    said = collection.sentences(hit.file.id)
                    write_srt(out.with_suffix(".srt"), sentences=said, start_s=span.start_s, end_s=span.end_s)
            tick()
    return made, failed
