"""Rolling windows: what they hold, what counts as lost, and how much is in memory."""

import threading

import numpy as np

from twinreel.data.media.live import LiveFrame
from twinreel.serve.watch.rolling import Rolling


def frame(number, *, fps=4.0):
    stamp = number / fps
    return LiveFrame(time_s=stamp, arrived_s=100 + stamp, jpeg=b"%d" % number, height=2, width=3)


def filled(frames, *, live=True, seconds=2.0, hop=1.0):
    rolling = Rolling(seconds=seconds, hop=hop, fps=4.0, live=live)
    rolling.begin(0.0)
    for number in frames:
        rolling.put(frame(number))
    return rolling


def numbers(window):
    return [int(jpeg) for jpeg in window.clip.encoded]


def test_a_patient_reader_sees_every_window():
    rolling = Rolling(seconds=2.0, hop=1.0, fps=4.0, live=False)
    rolling.begin(0.0)

    def write():
        for number in range(22):
            rolling.put(frame(number))
        rolling.close()

    writer = threading.Thread(target=write)
    writer.start()
    windows = list(iter(rolling.take, None))
    writer.join()
    assert [numbers(one) for one in windows[:4]] == [list(range(4 * i, 4 * i + 8)) for i in range(4)]
    assert [(one.start_s, one.end_s) for one in windows] == [(0, 2), (1, 3), (2, 4), (3, 5), (3.5, 5.5)]
    assert [one.fresh_s for one in windows] == [0, 2, 3, 4, 5] and windows[0].arrived_s == 100 + 7 / 4
    assert [one.joined for one in windows] == [False, True, True, True, True]
    np.testing.assert_allclose(windows[1].clip.timestamps_s, np.arange(8) / 4)
    assert (rolling.counts.frames, rolling.counts.dropped, rolling.counts.windows) == (22, 0, 5)


def test_a_slow_reader_gets_the_newest_window_and_memory_is_bounded():
    rolling = filled(range(1000))
    assert len(rolling._frames) <= 4 * (2 + 2 + 1) + 2
    window = rolling.take()
    assert numbers(window) == list(range(988, 996)) and window.end_s == 249
    rolling.close()
    last = rolling.take()
    assert numbers(last)[-1] == 999 and rolling.take() is None
    counts = rolling.counts
    assert counts.skipped == 247 and counts.frames == 1000
    assert counts.dropped == 1000 - 12, "12 frames were in a window"


def test_no_window_spans_two_connections():
    rolling = filled(range(10))
    first = rolling.take()
    rolling.begin(7.0)
    for number in range(9):
        rolling.put(frame(number))
    second = rolling.take()
    assert first.joined is False and second.joined is False and second.connection == first.connection + 1
    assert (second.start_s, second.end_s, second.fresh_s) == (7, 9, 7) and numbers(second) == list(range(8))
    assert rolling.counts.dropped == 2, "the last two frames of the first connection were in no window"


def test_a_picture_that_stands_still_stays_on_display():
    rolling = filled([0, 1, 12, 13])  # nothing from 0.5 to 3 s
    rolling.close()
    windows = list(iter(rolling.take, None))
    assert numbers(windows[0]) == [1] and windows[0].end_s == 3.0, "frame 1 is on display from 1 to 3 s"
    assert numbers(windows[1])[-2:] == [12, 13]


def test_a_short_stream_is_one_window_and_an_empty_one_is_none():
    rolling = filled([0, 1, 2])
    rolling.close()
    window = rolling.take()
    assert numbers(window) == [0, 1, 2] and (window.start_s, window.end_s) == (0, 0.75)
    assert rolling.take() is None
    empty = Rolling(seconds=1.0, hop=1.0, fps=4.0, live=True)
    empty.close()
    assert empty.take() is None
