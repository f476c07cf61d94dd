"""Damaged files: whatever is done to the bytes, a clip comes out of it, or a reason; never anything else, nor late.

`TWINREEL_FUZZ=N` tries N random files instead of the fixed ones (and other ones each time). What was found that way and
mended stands below as cases of their own.
"""

import os
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from twinreel.data.media import workers
from twinreel.data.media.decode import DecodedClip, DecodeError, DecodeOptions
from twinreel.data.media.limits import Limits

KINDS = ("mp4", "fragmented.mp4", "webm", "avi", "gif", "ts", "mkv", "jpg", "png", "webp", "bmp")
OPTIONS = DecodeOptions(fps=4, short_side=24, max_seconds=60, max_pixels=2**22)
LIMITS = Limits(clip_timeout=20, clip_memory_gb=1, recycle_after=0)
EXAMPLES = int(os.environ.get("TWINREEL_FUZZ", "0"))


class Seeds(dict):
    """Files by kind, as bytes; too long to be printed where a test fails."""

    def __repr__(self):
        return "seeds"


@pytest.fixture(scope="module")
def seeds(tmp_path_factory, media):
    """A small valid file of each kind, as bytes."""
    folder = tmp_path_factory.mktemp("seeds")
    frames, sound = media.grey(30, 90, 150, 210, size=(32, 48)), media.tone(0.5)
    fragments = {"movflags": "frag_keyframe+empty_moov"}
    media.write(folder / "a.mp4", frames, sound=sound, options={"g": "2"})
    media.write(folder / "a.fragmented.mp4", frames, sound=sound, options={"g": "2"}, container_options=fragments)
    media.write(folder / "a.mkv", frames, codec="ffv1", pix_fmt="bgr0")
    media.write(folder / "a.webm", frames, codec="libvpx", options={"deadline": "realtime"})
    media.write(folder / "a.avi", frames, codec="mpeg4", sound=sound)
    media.write(folder / "a.gif", frames, codec="gif", pix_fmt="rgb8")
    media.write(folder / "a.ts", frames, codec="mpeg2video", fps=25, sound=sound)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8))
    for kind in ("jpg", "png", "webp", "bmp"):
        noise.save(folder / f"a.{kind}")
    return Seeds({kind: (folder / f"a.{kind}").read_bytes() for kind in KINDS})


@pytest.fixture(scope="module")
def decode_apart(tmp_path_factory):
    """A function that decodes bytes, as a file of that kind, in a decoding process with limits."""
    folder, worker = tmp_path_factory.mktemp("mutants"), workers._Worker(LIMITS)

    def decode(content, kind):
        path = folder / f"a.{kind}"
        path.write_bytes(content)
        return worker.run(workers.Job(path=path, options=OPTIONS))

    yield decode
    worker.kill()
    worker.close()


POSITION = st.integers(0, 2**16 - 1)  # of 65536ths of the file, or of its head
NUMBERS = st.sampled_from([0, 1, 2, 127, 128, 255, 256, 32767, 65535, 2**31 - 1, 2**31, 2**32 - 1, 100_000])
MUTATION = st.one_of(
    st.tuples(st.just("byte"), POSITION, st.booleans(), st.integers(0, 255)),
    st.tuples(st.just("number"), POSITION, st.booleans(), NUMBERS),
    st.tuples(st.just("little"), POSITION, st.booleans(), NUMBERS),
    st.tuples(st.just("cut"), POSITION, st.booleans(), st.integers(0, 400)),
    st.tuples(st.just("zeros"), POSITION, st.booleans(), st.integers(1, 300)),
    st.tuples(st.just("again"), POSITION, st.booleans(), st.integers(1, 3000)),
    st.tuples(st.just("splice"), POSITION, st.booleans(), st.sampled_from(KINDS)),
    st.tuples(st.just("end"), POSITION, st.booleans(), st.just(0)),
)


def mutate(content, mutation, seeds):
    """Return the file with one thing done to it."""
    what, share, in_head, value = mutation
    place = share * min(len(content), 600 if in_head else len(content)) // 2**16
    before, after = content[:place], content[place:]
    if what == "byte":
        return before + bytes([value]) + after[1:]
    if what in ("number", "little"):
        return before + struct.pack(">I" if what == "number" else "<I", value) + after[4:]
    if what == "cut":
        return before + after[value:]
    if what == "zeros":
        return before + bytes(value) + after[value:]
    if what == "again":
        return before + after[:value] + after
    if what == "splice":
        other = seeds[value]
        return before + other[share * len(other) // 2**16 :]
    return before


def check(result):
    """A clip is whole in itself; a reason is one that we give on purpose, and short."""
    if isinstance(result, DecodeError):
        assert result.reason != "decoder failed", str(result)
        assert "clip_timeout" not in result.reason, str(result)
        assert 5 < len(str(result)) < 250 and "\n" not in str(result)
        return
    assert isinstance(result, DecodedClip)
    assert len(result.encoded) == len(result.timestamps_s) > 0
    assert result.timestamps_s[0] >= 0 and (np.diff(result.timestamps_s) > 0).all()
    assert 0 < result.duration_s <= OPTIONS.max_seconds + 10
    assert result.height > 0 and result.width > 0
    assert result.audio is None or len(result.audio) == round(result.duration_s * 16_000)


@settings(
    max_examples=EXAMPLES or 120,
    derandomize=not EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(kind=st.sampled_from(KINDS), mutations=st.lists(MUTATION, min_size=1, max_size=4))
def test_damaged_files_give_a_clip_or_a_reason(seeds, decode_apart, kind, mutations):
    content = seeds[kind]
    for mutation in mutations:
        content = mutate(content, mutation, seeds)
    check(decode_apart(content, kind))


def test_the_seeds_are_good(seeds, decode_apart):
    for kind, content in seeds.items():
        result = decode_apart(content, kind)
        assert isinstance(result, DecodedClip), f"{kind}: {result}"
        check(result)
