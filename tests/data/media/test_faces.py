"""Faces: found by OpenCV's own classes with networks that take white squares for faces, blurred, compared."""

import json

import av
import numpy as np
import pytest
from face_films import BACKGROUNDS, DETECTOR, FOLDER, RECOGNISER, film, picture, shows_a_face
from files import lines

from twinreel.base.errors import UserError
from twinreel.data.batches.records import Records
from twinreel.data.media.apart import show_apart
from twinreel.data.media.clip import DecodeOptions
from twinreel.data.media.cut import cut
from twinreel.data.media.decode import DecodeError, decode_clip, read_rgb
from twinreel.data.media.faces import (
    SAME_PERSON,
    FaceDetector,
    FaceFeatures,
    blur,
    cut_square,
    track,
    without_faces,
)
from twinreel.data.media.workers import Decoders, Job, Limits
from twinreel.data.options import InputSpec
from twinreel.data.prepare.prepare import prepare

RED, BLUE = BACKGROUNDS["red"], BACKGROUNDS["blue"]
EVERYTHING = DecodeOptions(fps=None, short_side=0, audio=False)
BLURRED = DecodeOptions(fps=None, short_side=0, audio=False, blur_faces=str(DETECTOR))


@pytest.fixture(scope="module")
def red(tmp_path_factory):
    """The square is missing in every third frame, as a detector misses faces."""
    return film(tmp_path_factory.mktemp("faces") / "red.mp4", RED, seconds=4, faces=lambda number: number % 3 != 1)


def test_boxes_lie_where_the_squares_are():
    find = FaceDetector(DETECTOR)
    for scale in (1, 20):  # the larger one is shrunk for the detector
        big = np.kron(picture(RED), np.ones((scale, scale, 1), np.uint8))
        boxes = find(big)
        assert len(boxes) and (boxes[:, :2] < boxes[:, 2:]).all() and boxes.min() >= 0 and boxes.max() <= 96 * scale
        middles = (boxes[:, :2] + boxes[:, 2:]) / 2 / scale
        assert (abs(middles - 40) < 14).all()
    assert len(find(picture(RED, face=False))) == 0


def test_only_averages_are_left_of_a_box():
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
    box, inside = (
        np.array([[20, 18, 29, 27]]),
        (slice(15, 30), slice(17, 32)),
    )  # enlarged by 3: means of 5 x 5
    same = rgb.copy()
    same[inside] = rgb[inside].reshape(3, 5, 3, 5, 3)[:, ::-1, :, ::-1].reshape(15, 15, 3)  # the averages stay
    made = blur(rgb, boxes=box)
    np.testing.assert_array_equal(made[inside], blur(same, boxes=box)[inside])
    means = rgb[inside].astype(np.float64).reshape(3, 5, 3, 5, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(made[inside][2::5, 2::5], means, atol=1)  # at the middle of each
    changed = (made != rgb).any(axis=-1)
    assert changed[inside].mean() > 0.95 and changed.sum() == changed[inside].sum()
    assert blur(rgb, boxes=np.zeros((0, 4), int)) is rgb
    at_the_edge = blur(rgb, boxes=np.array([[76, 56, 80, 60], [0, 0, 1, 1]]))
    assert at_the_edge.shape == rgb.shape


def test_neighbouring_frames_are_blurred_too():
    frames = [(0.25 * i, np.full((40, 40, 3), i, np.uint8) + np.eye(40, dtype=np.uint8)[..., None]) for i in range(12)]

    def find(rgb):
        return np.array([[10, 10, 20, 20]]) if rgb[0, 1, 0] == 5 else np.zeros((0, 4), int)

    found = list(without_faces(iter(frames), find=find, hold_s=0.5))
    assert [time for time, _ in found] == [time for time, _ in frames]
    changed = [i for i, ((_, new), (_, old)) in enumerate(zip(found, frames, strict=True)) if (new != old).any()]
    assert changed == [3, 4, 5, 6, 7]


def test_decoded_frames_have_no_faces(red):
    assert sum(shows_a_face(rgb) for _, rgb in read_rgb(red, options=EVERYTHING)) == 11
    blurred = read_rgb(red, options=BLURRED)
    assert len(blurred) == 16 and not any(shows_a_face(rgb) for _, rgb in blurred)
    np.testing.assert_allclose(blurred[0][1][70:, 70:].mean(axis=(0, 1)), RED, atol=12)  # elsewhere it is as before
    with Decoders(workers=1) as decoders:
        clip = decoders.submit(Job(path=red, options=BLURRED)).result()
    plain = decode_clip(red, options=BLURRED)
    assert clip.encoded == plain.encoded and clip.duration_s == pytest.approx(4)


def test_one_face_is_followed():
    """The largest one of all frames, then whatever is nearest; in between a straight line, at the ends as it stands."""
    none, small = np.zeros((0, 4), np.int64), np.array([[80, 80, 88, 88]])
    boxes = [
        none,
        small,
        np.array([[10, 10, 20, 22], [60, 60, 68, 68]]),
        none,
        np.array([[60, 60, 70, 70], [30, 12, 38, 20]]),
    ]
    found = track([*boxes, none])
    assert found is not None
    # The first small face is the nearest of its frame, there being no other.
    wanted = [(84, 84, 8), (84, 84, 8), (15, 16, 12), (24.5, 16, 10), (34, 16, 8), (34, 16, 8)]
    np.testing.assert_allclose(found, np.array(wanted) * (1, 1, 1.5))
    assert track([none, none]) is None


def test_squares_are_cut_as_their_pixels_stand():
    rgb = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    cut_out = cut_square(rgb, square=np.array([12.0, 8.0, 10.0]), side=10)
    np.testing.assert_array_equal(cut_out, rgb[3:13, 7:17])
    corner = cut_square(rgb, square=np.array([0.0, 20.0, 8.0]), side=8)
    np.testing.assert_array_equal(corner, np.pad(rgb, ((4, 4), (4, 4), (0, 0)), mode="edge")[20:28, 0:8])
    means = rgb[4:16, 6:18].reshape(6, 2, 6, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(cut_square(rgb, square=np.array([12.0, 10.0, 12.0]), side=6), means, atol=0.51)
    assert cut_square(rgb, square=np.array([12.0, 8.0, 10.0]), side=25).shape == (25, 25, 3)


def test_faces_are_cut_out_of_the_clips_of_a_data_set(red, tmp_path):
    """Frames without one get the place of its neighbours; a clip without any is rejected, and so is a model's spec."""
    films = {"red": red, "blue": film(tmp_path / "blue.mp4", BLUE, faces=lambda number: False)}
    rows = [{"clip_id": name, "path": str(path), "labels": [name], "split": "train"} for name, path in films.items()]
    (tmp_path / "clips.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {"fps": 0, "short_side": 48, "crop_faces": str(DETECTOR), "workers": 1, "max_bad_fraction": 0.5}
    report = prepare(tmp_path / "clips.jsonl", out=tmp_path / "data", **given)
    [rejected] = lines(tmp_path / "data" / "rejects.jsonl")
    assert rejected["clip_id"] == "blue" and rejected["reason"] == "no face was found"
    assert report["options"]["crop_faces"] == str(DETECTOR)
    [row] = Records(tmp_path / "data").rows("train")
    assert (row["height"], row["width"], row["num_frames"]) == (48, 48, 16)
    frames = read_rgb(red, options=DecodeOptions(fps=None, short_side=48, audio=False, crop_faces=str(DETECTOR)))
    white = [float((rgb.min(axis=-1) > 180).mean()) for _, rgb in frames]
    assert [share > 0.2 for share in white] == [number % 3 != 1 for number in range(16)], "1 / 1.5^2 of it"
    for number, (_, rgb) in enumerate(frames):
        places = np.argwhere(rgb.min(axis=-1) > 180)
        assert number % 3 == 1 or abs(places.mean(axis=0) - 24).max() < 9
    spec = InputSpec().as_prepared(report["options"])
    assert spec.decode["crop_faces"] is True and "crop_faces" not in InputSpec().as_prepared({"crop_faces": ""}).decode
    with pytest.raises(UserError, match="--crop_faces makes squares of --short_side pixels, which is 0"):
        prepare(tmp_path / "clips.jsonl", out=tmp_path / "none", crop_faces=str(DETECTOR), short_side=0)
    assert "crop_faces" not in DecodeOptions().to_dict(), "folders that were prepared before are still finished"


def test_cuts_have_no_faces_and_the_same_sound(red, tmp_path):
    for name, detector in (("plain", ""), ("blurred", str(DETECTOR))):
        cut(red, out=tmp_path / f"{name}.mp4", start_s=0.5, end_s=2.5, blur_faces=detector)
    show_apart(red, out=tmp_path / "apart.mp4", start_s=0.5, end_s=2.5, blur_faces=str(DETECTOR), limits=Limits())
    shown = {name: read_rgb(tmp_path / f"{name}.mp4", options=EVERYTHING) for name in ("plain", "blurred", "apart")}
    assert [len(frames) for frames in shown.values()] == [8, 8, 8]
    faces = {name: any(shows_a_face(rgb) for _, rgb in frames) for name, frames in shown.items()}
    assert faces == {"plain": True, "blurred": False, "apart": False}
    heard = []
    for name in shown:
        with av.open(str(tmp_path / f"{name}.mp4")) as container:
            heard.append(np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1))
    np.testing.assert_array_equal(heard[0], heard[1])
    np.testing.assert_array_equal(heard[0], heard[2])


def test_faces_are_told_apart_by_their_features():
    faces = FaceFeatures(DETECTOR, recogniser=RECOGNISER)
    red, darker, blue = (faces(picture(colour)) for colour in (RED, (170, 30, 20), BLUE))
    assert red.shape[1] == 128
    np.testing.assert_allclose(np.linalg.norm(red, axis=1), 1, atol=1e-6)
    assert (red @ darker.T).max() > 0.9 and (red @ blue.T).max() < SAME_PERSON
    assert len(faces(picture(RED, face=False))) == 0


def test_wrong_files_are_named(red, tmp_path):
    (tmp_path / "text.onnx").write_text("no network")
    for path, message in (
        (tmp_path / "absent.onnx", "there is no face detector at .*absent.onnx"),
        (tmp_path / "text.onnx", "text.onnx does not work as YuNet's face detector in OpenCV"),
        (RECOGNISER, "colours.onnx does not work as YuNet's face detector"),
    ):
        with pytest.raises(UserError, match=message):
            FaceDetector(path)
    with pytest.raises(UserError, match="there is no face recogniser at"):
        FaceFeatures(DETECTOR, recogniser=FOLDER / "absent.onnx")
    with pytest.raises(UserError, match=r"white_squares.onnx does not work as SFace"):
        FaceFeatures(DETECTOR, recogniser=DETECTOR)
    with pytest.raises(UserError, match="there is no face detector at"):
        prepare(tmp_path / "clips.jsonl", out=tmp_path / "data", crop_faces=str(tmp_path / "absent.onnx"))
    with pytest.raises(DecodeError, match=r"faces cannot be cut out: .*text.onnx does not work"):
        decode_clip(red, options=DecodeOptions(crop_faces=str(tmp_path / "text.onnx")))
    options = DecodeOptions(blur_faces=str(tmp_path / "text.onnx"))
    with pytest.raises(DecodeError, match=r"faces cannot be blurred: .*text.onnx does not work"):
        decode_clip(red, options=options)
    given = {"start_s": 0.0, "end_s": 1.0, "blur_faces": str(tmp_path / "absent.onnx"), "limits": Limits()}
    with pytest.raises(DecodeError, match="faces cannot be blurred: there is no face detector"):
        show_apart(red, out=tmp_path / "out.mp4", **given)
    assert not (tmp_path / "out.mp4").exists()
