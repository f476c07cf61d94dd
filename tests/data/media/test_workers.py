"""Decoding processes: order, crashes, hangs, limits."""

import dataclasses

from twinreel.data.media.decode import DecodeError, DecodeOptions
from twinreel.data.media.workers import Job, decode_in_order

EVERY = DecodeOptions(fps=None, short_side=0)
LEVELS = tuple(range(10, 250, 10))  # 24 frames that can be told apart


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bomb(DecodeOptions):
    """Ends the process that receives it, as a crash of a decoder would: it knows no such option."""

    bomb: int = 1


def test_workers_keep_the_order_and_survive_a_crash(tmp_path, media):
    paths = [media.write(tmp_path / f"{n}.mp4", media.grey(*LEVELS[: n + 1])) for n in range(9)]
    jobs = [Job(path=path, options=EVERY) for path in paths]
    jobs[4] = Job(path=paths[4], options=Bomb())
    jobs.insert(2, DecodeError("no caption"))
    results = list(decode_in_order(jobs, workers=2))
    assert [str(r) if isinstance(r, DecodeError) else len(r.jpegs) for r in results] == [
        *(1, 2, "no caption", 3, 4, "the decoder crashed: exit status 1", 6, 7, 8, 9)
    ]


def test_workers_that_are_left_early_end(tmp_path, media):
    path = media.write(tmp_path / "a.mp4", media.grey(*LEVELS))
    results = decode_in_order((Job(path=path, options=EVERY) for _ in range(1000)), workers=2)
    assert len(next(results).jpegs) == 24
    results.close()
