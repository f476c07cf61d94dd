"""Cut and joined films against the frames and the sound of their sources."""

import av
import numpy as np
import pytest
from media_files import grey, tone, write_media

from twinreel.base.errors import UserError
from twinreel.data.media.cut import Part, cut, join


def read(path):
    """Times and grey levels of a film, and its sound."""
    with av.open(str(path)) as container:
        frames = [(float(f.time), float(f.to_ndarray(format="rgb24").mean())) for f in container.decode(video=0)]
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return frames, None
        parts = [frame.to_ndarray()[0] for frame in container.decode(audio=0)]
    return frames, np.concatenate(parts)


def pitch(part, *, rate=16_000):
    """The strongest frequency of samples, Hz."""
    return np.argmax(np.abs(np.fft.rfft(part * np.hanning(len(part))))) * rate / len(part)


@pytest.mark.parametrize("options", [{"crf": "12", "g": "250"}, {"crf": "12", "bf": "3", "g": "16"}])
def test_a_cut_has_the_frames_of_its_window(tmp_path, options):
    """From the middle between key frames on, of odd sides; the pitch changes at 8 s."""
    levels = [10 + 3 * i for i in range(8 * 10)]
    sound = np.concatenate([tone(8, hertz=500), tone(2, hertz=1500)])
    pictures = grey(*levels, size=(34, 50))
    source = write_media(tmp_path / "a.mkv", pictures, sound=sound, options=options)
    cut(source, out=tmp_path / "cut.mp4", start_s=7.25, end_s=9.0)
    frames, heard = read(tmp_path / "cut.mp4")
    assert [time for time, _ in frames] == pytest.approx([i / 8 for i in range(14)], abs=1e-3)
    assert [level for _, level in frames] == pytest.approx(levels[58:72], abs=2.5)
    assert len(heard) / 16_000 == pytest.approx(1.75, abs=0.1)
    assert pitch(heard[3000:10_000]) == pytest.approx(500, abs=5)
    assert pitch(heard[14_000:24_000]) == pytest.approx(1500, abs=5)


def test_a_cut_of_odd_sides_without_sound(tmp_path):
    picture = np.full((33, 49, 3), 90, np.uint8)
    source = write_media(tmp_path / "a.mp4", [picture] * 8, codec="libx264", pix_fmt="yuv444p")
    cut(source, out=tmp_path / "cut.mp4", start_s=0.0, end_s=5.0)
    frames, heard = read(tmp_path / "cut.mp4")
    assert len(frames) == 8 and heard is None
    with pytest.raises(UserError, match="would replace the film"):
        cut(source, out=source, start_s=0.0, end_s=1.0)


def test_parts_of_two_films_follow_each_other(tmp_path):
    """Of another rate and size, without sound in the second, which is silence; parts may overlap and repeat."""
    levels, others = [10 + 6 * i for i in range(24)], [200, 120, 40, 80]
    sound = np.concatenate([tone(1, hertz=500), tone(2, hertz=1500)])
    first = write_media(tmp_path / "a.mkv", grey(*levels, size=(32, 48)), sound=sound)
    second = write_media(tmp_path / "b.mp4", grey(*others, size=(48, 64)), fps=4)
    spans = [(first, 2.0, 2.5), (second, 0.25, 1.0), (first, 0.5, 1.25), (first, 0.5, 0.75)]
    seconds = []
    parts = [Part(source=source, start_s=start, end_s=end) for source, start, end in spans]
    join(parts, out=tmp_path / "joined.mp4", tick=seconds.append)
    frames, heard = read(tmp_path / "joined.mp4")
    wanted = [*levels[16:20], *others[1:], *levels[4:10], *levels[4:6]]
    times = [[0, 1, 2, 3], [4, 6, 8], range(10, 16), [16, 17]]
    assert [level for _, level in frames] == pytest.approx(wanted, abs=3)
    assert [time for time, _ in frames] == pytest.approx([i / 8 for part in times for i in part], abs=1e-3)
    assert seconds == pytest.approx([*(time for time, _ in frames[1:]), 2.25], abs=1e-3)
    with av.open(str(tmp_path / "joined.mp4")) as container:
        stream = container.streams.video[0]
        assert float(stream.duration * stream.time_base) == pytest.approx(2.25, abs=1e-3)  # the last one is shown, too
    assert len(heard) / 16_000 == pytest.approx(2.25, abs=0.1)
    assert pitch(heard[1_000:7_000]) == pytest.approx(1500, abs=5)
    assert np.abs(heard[9_500:18_500]).max() < 0.02 < np.abs(heard[21_000:27_000]).max()
    assert pitch(heard[21_000:27_000]) == pytest.approx(500, abs=5)
