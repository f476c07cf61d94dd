"""Films in which something odd may happen: what is odd about them, and what is written."""

import numpy as np
import pytest

from twinreel.base.errors import UserError
from twinreel.data.manifest import read_manifest
from twinreel.data.media.clip import DecodeOptions
from twinreel.data.media.decode import read_rgb
from twinreel.demo import odd_films


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Folder and clips by id."""
    out = tmp_path_factory.mktemp("odd")
    manifest = odd_films.write(out, train=4, val=2, test=4, size=32, workers=1, progress=False)
    return out, {clip.clip_id: clip for clip in read_manifest(manifest)}


def test_labels_spans_and_motions_agree(written):
    _, clips = written
    assert [clip.labels[0] for clip in clips.values() if clip.split == "test"] == [
        "normal",
        "flickers",
        "normal",
        "rises",
    ]
    for clip in clips.values():
        rising = "rises" in clip.meta["motions"]
        assert rising == (clip.labels == ("rises",)) and bool(clip.spans) == (clip.labels != ("normal",))


def test_the_light_flickers_within_the_span_alone(written):
    out, clips = written
    options = DecodeOptions(fps=None, short_side=0, jpeg_quality=100, audio=True)
    for clip in clips.values():
        frames = read_rgb(out / clip.path, options=options)
        corner = np.array([rgb[:2, :2].mean() for _, rgb in frames])  # a background that never changes
        times = np.array([time for time, _ in frames])
        inside = np.zeros(len(times), bool)
        for span in clip.spans:
            inside |= (times >= span.start_s - 1e-3) & (times < span.end_s - 1e-3)
        assert np.ptp(corner[~inside]) < 8
        if clip.labels == ("flickers",):
            assert np.ptp(corner[inside]) > 25


def test_numbers_out_of_range_and_other_settings(written, tmp_path):
    out, _ = written
    with pytest.raises(UserError, match="test=-1"):
        odd_films.write(tmp_path, test=-1)
    with pytest.raises(UserError, match=r"seed=0 \(wanted 1\)"):
        odd_films.write(out, seed=1, train=4, val=2, test=4, size=32, progress=False)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.mp4")}
    missing = next(iter(before))
    content = missing.read_bytes()
    missing.unlink()
    odd_films.write(out, train=4, val=2, test=4, size=32, workers=1, progress=False)
    assert missing.read_bytes() == content
    assert all(path.stat().st_mtime_ns == before[path] for path in before if path != missing)
