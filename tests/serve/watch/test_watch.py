"""Streams from end to end: a film in the loop, a growing file, a lost connection, signals, models of all kinds."""

import dataclasses
import json
import os
import signal
import socket
import threading
import time
from types import SimpleNamespace

import av
import numpy as np
import pytest
from brightness_model import brightness_model
from flax import nnx
from media_files import grey, write_media
from rtsp_server import RtspServer
from small_encoder import small_spec
from tower_loops import drawn

from twinreel.__main__ import main
from twinreel.base.errors import UserError
from twinreel.data.media.live import LiveOptions, read_live
from twinreel.data.media.place import DecodeError
from twinreel.encode.predict.steps import StepPredictor
from twinreel.serve.watch.alerts import AlertOptions
from twinreel.serve.watch.feed import Feed
from twinreel.serve.watch.rolling import Rolling
from twinreel.serve.watch.run import Watch, WatchOptions
from twinreel.serve.watch.scorers import AnomalyScorer, LabelScorer, TextScorer
from twinreel.zoo.build import build

FILM_S = 12.0
HEAD = {"kind": "steps", "labels": ["normal", "odd"], "width": 8, "dilations": [1, 3], "smooth": 2, "dropout": 0.3}
DECODE = {"window_seconds": 2.0, "threshold": 0.5, "normal": ["normal"]}


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """Dark, from 4 to 8 s bright, dark again; 8 frames per second."""
    levels = [40] * 32 + [220] * 32 + [40] * 32
    return write_media(tmp_path_factory.mktemp("film") / "film.mp4", grey(*levels), fps=8)


@pytest.fixture(scope="module")
def scorer():
    return TextScorer(brightness_model().encoder, texts=["grey 220"])


def watch(source, scorer, *, alerts=None, options=None, emit=None, **given):
    """Run a watch; return its events."""
    events = []
    live = LiveOptions(source=str(source), **{"short_side": 32, "fps": 4.0, **given})
    options = options or WatchOptions(seconds=1.0, hop=0.5, retries=0)
    alerts = {"grey 220": AlertOptions(on=0.5, off=0.2)} if alerts is None else alerts
    Watch(live, scorer=scorer, alerts=alerts, options=options, emit=emit or events.append).run()
    return events


def test_an_alert_begins_and_ends_where_the_film_becomes_bright(film, scorer):
    options = WatchOptions(seconds=1.0, hop=0.5, all_scores=True)
    events = watch(film, scorer, options=options, pace=0.0)
    scores = {event["end_s"]: event["scores"]["grey 220"] for event in events if event["event"] == "scores"}
    assert list(scores) == [1 + 0.5 * i for i in range(23)]
    alerts = [event for event in events if event["event"].startswith("alert")]
    assert [event["event"] for event in alerts] == ["alert_on", "alert_off"]
    assert alerts[0]["end_s"] == min(end for end, score in scores.items() if score >= 0.5)
    assert 4 < alerts[0]["end_s"] <= 5 and 8 < alerts[1]["end_s"] <= 9 and alerts[1]["peak"] == max(scores.values())
    summary = events[-1]
    assert summary["frames"] == 48 and summary["dropped_frames"] == summary["skipped_windows"] == 0
    assert summary["alerts"] == {"grey 220": 1} and summary["lost"] == "" and summary["latency_s"]["max"] > 0


def test_a_model_that_is_too_slow_loses_frames_and_says_so(film):
    seen = []

    class Slow(TextScorer):
        def scores(self, windows):
            for window in windows:
                time.sleep(0.05)
                seen.append(window)
                yield from super().scores(iter([window]))

    slow = Slow(brightness_model().encoder, texts=["grey 220"])
    events = watch(film, slow, pace=60.0)
    shown = {round(window.start_s + stamp, 3) for window in seen for stamp in window.clip.timestamps_s.tolist()}
    summary = events[-1]
    assert summary["frames"] == 48 and summary["windows"] == len(seen) < 23 and summary["skipped_windows"] > 0
    assert summary["dropped_frames"] == 48 - len(shown)


def test_a_film_in_a_loop_goes_on_in_time_until_a_signal(film, scorer):
    before, events = signal.getsignal(signal.SIGINT), []

    def emit(event):
        events.append(event)
        if event["event"] == "alert_on" and event["end_s"] > FILM_S:
            os.kill(os.getpid(), signal.SIGINT)

    watch(film, scorer, emit=emit, loop=True, pace=0.0)
    assert signal.getsignal(signal.SIGINT) is before
    ends = [event["end_s"] for event in events if event["event"] == "alert_on"]
    assert ends[0] < FILM_S < ends[1] < 2 * FILM_S and events[-1]["event"] == "summary"


def test_frames_are_those_of_the_film_with_their_times(film):
    with av.open(str(film)) as container:
        wanted = [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]
    options = LiveOptions(source=str(film), fps=None, short_side=0, pace=0.0)
    assert [frame.time_s for frame in read_live(options)] == pytest.approx(wanted)
    half = [frame.time_s for frame in read_live(dataclasses.replace(options, fps=2.0))]
    assert half == pytest.approx(np.arange(24) / 2)


def test_a_growing_file_is_followed_until_it_stands_still(tmp_path):
    path = tmp_path / "growing.ts"
    written = threading.Event()

    def write():
        with av.open(str(path), "w", format="mpegts") as container:
            stream = container.add_stream("libx264", rate=10, options={"tune": "zerolatency", "g": "5"})
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for number, picture in enumerate(grey(*range(0, 200, 5), size=(48, 64))):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
                if number == 20:
                    written.set()
                    time.sleep(0.3)
            container.mux(stream.encode(None))

    writer = threading.Thread(target=write)
    writer.start()
    written.wait()
    options = LiveOptions(source=str(path), fps=None, short_side=0, follow=True, stall_s=1.0)
    frames = list(read_live(options))
    writer.join()
    assert len(frames) == 40 and frames[-1].time_s == pytest.approx(3.9)


def test_a_lost_stream_is_opened_again(tmp_path):
    path = write_media(tmp_path / "a.ts", grey(*range(0, 240, 10)), fps=8)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def serve():
            for _ in range(2):
                with server.accept()[0] as connection:
                    connection.sendall(path.read_bytes())
            server.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        rolling = Rolling(seconds=1.0, hop=1.0, fps=8.0, live=False)
        live = LiveOptions(source=f"tcp://127.0.0.1:{port}", stall_s=5.0)
        feed = Feed(live, into=rolling, retries=0, backoff_s=0.01)
        feed.start()
        windows = list(iter(rolling.take, None))
        feed.stop()
        thread.join(timeout=5)
    assert feed.opened and feed.reconnects == 2 and "cannot be opened" in feed.lost
    connections = [window.connection for window in windows]
    assert set(connections) == {0, 1} and connections == sorted(connections)
    assert [one.start_s for one in windows] == sorted(one.start_s for one in windows), "time goes on"
    assert next(window.joined for window in windows if window.connection == 1) is False


def test_a_camera_is_watched_over_rtsp(tmp_path, scorer):
    """With a password; pictures of several packets; the times are those of the camera."""
    rng = np.random.default_rng(0)
    levels = [40] * 32 + [220] * 32 + [40] * 16
    pictures = [np.clip(level + rng.integers(-30, 30, (64, 96, 3)), 0, 255).astype(np.uint8) for level in levels]
    path = write_media(tmp_path / "camera.mp4", pictures, fps=8)
    with RtspServer(path) as camera:
        events = watch(camera.url, scorer, fps=None)
    alerts = [event for event in events if event["event"].startswith("alert")]
    assert [event["event"] for event in alerts] == ["alert_on", "alert_off"]
    assert 4 < alerts[0]["end_s"] <= 5 and 8 < alerts[1]["end_s"] <= 9
    summary = events[-1]
    assert 76 <= summary["frames"] <= 80 and "Connection refused" in summary["lost"]  # it was looked for again
    assert camera.methods.count("DESCRIBE") == 2 and "PLAY" in camera.methods  # the first one was asked for a password
    assert "secret" not in json.dumps(events)


def test_anomaly_scores_of_a_stream_are_those_of_the_film(film):
    spec = small_spec()
    spec = spec.replace(towers={"video": spec.towers["video"]}, heads={"anomaly": HEAD | {"decode": DECODE}})
    predictor = StepPredictor(spec=spec, model=drawn(lambda: build(spec, rngs=nnx.Rngs(0))))
    [wanted] = predictor.predict([film], workers=1)
    anomalies = AnomalyScorer(predictor)
    anomalies.warm_up()
    options = WatchOptions(seconds=2.0, hop=2.0, all_scores=True)
    events = watch(film, anomalies, alerts={}, options=options, pace=0.0, fps=None, short_side=0)
    found = [event for event in events if event["event"] == "scores"]
    assert [event["start_s"] for event in found] == pytest.approx([step["start_s"] for step in wanted["moments"]])
    scores = [event["scores"]["anomaly"] for event in found]
    assert scores == pytest.approx([step["score"] for step in wanted["moments"]], abs=1e-4)


def test_texts_against_a_background_are_a_softmax():
    encoder = brightness_model().encoder
    encoder.source, encoder.model = "brightness", SimpleNamespace(scale=np.float32(20))
    found = TextScorer(encoder, texts=["grey 10", "grey 200"], background=["grey 90", "grey 100"])
    rows = encoder.encode_text(["grey 10", "grey 200", "grey 90", "grey 100"]).astype(np.float64)
    one = encoder.encode_video_arrays(np.full((1, 4, 16, 16, 3), 170, np.uint8), batch_size=1)[0]
    logits = np.exp(20.0 * rows @ one.astype(np.float64))
    wanted = [logits[i] / (logits[i] + logits[2] + logits[3]) for i in (0, 1)]
    assert found.of_embedding(one) == pytest.approx(wanted) and found.thresholds == (0.5, 0.4)


def test_labels_of_a_classifier(film):
    spec = SimpleNamespace(input=brightness_model().encoder.input)

    def predict_arrays(video, *, batch_size):
        bright = video.mean(axis=(1, 2, 3, 4)) / 255
        return np.stack([1 - bright, bright], axis=1)

    model = SimpleNamespace(
        kind="single", labels=("dark", "bright"), spec=spec, source="m", predict_arrays=predict_arrays
    )
    labels = LabelScorer(model, labels=["bright"])
    events = watch(film, labels, alerts={"bright": AlertOptions(on=0.5, off=0.4)}, pace=0.0)
    assert [event["name"] for event in events[:-1]] == ["bright", "bright"]
    with pytest.raises(UserError, match="label"):
        LabelScorer(model, labels=["brigth"])
    with pytest.raises(UserError, match="predicts a number"):
        LabelScorer(SimpleNamespace(kind="regression", source="m"))


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("notes.txt", "cannot be opened"),
        ("rtsp://ann:secret@127.0.0.1:9/a", "cannot be opened"),
        ("/dev/video99", "cannot be opened"),
    ],
)
def test_streams_that_cannot_be_opened(source, reason, scorer, tmp_path):
    (tmp_path / "notes.txt").write_text("no film")
    source = source if source.startswith(("/", "rtsp")) else tmp_path / source
    with pytest.raises(UserError, match=f"cannot be watched: {reason}") as error:
        watch(source, scorer)
    assert "secret" not in str(error.value)


def test_a_playlist_opens_nothing_else(tmp_path, film):
    """A network stream may use network protocols only, a file only files."""
    (tmp_path / "list.m3u8").write_text(f"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/{film.name}\n#EXT-X-ENDLIST\n")
    with pytest.raises(DecodeError):
        list(read_live(LiveOptions(source=str(tmp_path / "list.m3u8"), pace=0.0)))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["none.mp4"], "file does not exist"),
        (["ftp://host/a"], "unknown kind ftp://"),
        (["rtsp://host/a", "--loop"], "--loop is for files"),
        (["{film}", "--loop", "--follow"], "give one of them"),
        (["{film}", "--pace", "-1"], "--pace is -1"),
        (["{film}", "--webhook", "host"], "wanted a URL such as"),
        (["{film}", "--alert", "a::high"], "wanted numbers after ::"),
    ],
)
def test_mistakes(argv, message, film, capsys):
    status = main(["watch", *(one.format(film=film) for one in argv), "--model", "none"])
    assert status == 2 and message in capsys.readouterr().err
