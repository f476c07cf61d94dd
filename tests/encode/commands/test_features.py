"""`twinreel features`: vectors of frames in a manifest, by models and by classical descriptors."""

import json

import cv2
import numpy as np
import pytest
from public_models import GOLDEN, source

from twinreel.base.errors import UserError
from twinreel.data.manifest import read_manifest
from twinreel.demo import moving_shapes
from twinreel.encode.commands.features import main
from twinreel.encode.embed.encoder import load
from twinreel.encode.frames import descriptors


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A manifest of five generated clips and a file that is none."""
    folder = tmp_path_factory.mktemp("clips")
    manifest = moving_shapes.write(folder, train=4, val=0, test=1, workers=1, progress=False)
    lines = manifest.read_text().splitlines()
    (folder / "broken.mp4").write_bytes(b"no film")
    lines.append(json.dumps({"clip_id": "broken", "path": "broken.mp4", "captions": ["x"], "split": "train"}))
    manifest.write_text("\n".join(lines) + "\n")
    return manifest


def arrays(out, name):
    return {clip.clip_id: np.load(out.parent / clip.features[name]) for clip in read_manifest(out) if clip.features}


def test_vectors_are_those_of_the_model_on_its_own_frames(clips, tmp_path, capsys):
    model, out = source("clip/quick", tmp_path / "clip"), tmp_path / "new" / "clips.jsonl"
    command = [str(clips), "--model", str(model), "--name", "clip", "--out", str(out), "--frames", "3", "--fps", "6"]
    assert main(command) == 0
    told = capsys.readouterr().err
    assert "5 of 6 clips with features of shape [3, 12]" in told and "not decoded: broken.mp4" in told
    found, rows = arrays(out, "clip"), read_manifest(out)
    assert [clip.clip_id for clip in rows] == [clip.clip_id for clip in read_manifest(clips)]
    assert all((out.parent / clip.path).resolve().is_file() for clip in rows) and rows[-1].features == {}
    encoder = load(model)
    encoder.spec = encoder.spec.replace(
        input=type(encoder.input)(**{**vars(encoder.input), "num_frames": 3, "decode": {"fps": 6.0, "short_side": 0}})
    )
    whole = encoder.encode_video([out.parent / clip.path for clip in rows[:2]])
    for clip, row in zip(rows[:2], whole, strict=True):
        mean = found[clip.clip_id].mean(axis=0)
        np.testing.assert_allclose(mean / np.linalg.norm(mean), row, atol=1e-5)
    # interrupted and run again, with the model called otherwise: what is done is kept
    command[2] = str(tmp_path / "new" / ".." / "clip")
    first, second = (out.parent / rows[i].features["clip"] for i in range(2))
    kept = second.read_bytes()
    second.write_bytes(kept + b"untouched")
    first.unlink()
    assert main(command) == 0
    assert first.is_file() and second.read_bytes() == kept + b"untouched"
    with pytest.raises(UserError, match=r"features that differ \(in it -> now: input\.num_frames: 3 -> 4\); choose"):
        main([*command[:-3], "4", "--fps", "6"])


def test_hog_sees_edges_and_sift_counts_words(clips, tmp_path):
    for name, width in (("hog", 1764), ("sift", 16)):
        out = tmp_path / f"{name}.jsonl"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(descriptors.visual_words, "__kwdefaults__", {"count": 16})
            assert main([str(clips), "--model", name, "--out", str(out), "--frames", "2"]) == 0
        found = arrays(out, name)
        assert len(found) == 5 and all(x.shape == (2, width) for x in found.values())
        assert all(np.isfinite(x).all() for x in found.values())
    shares = np.square(found[next(iter(found))]).sum(axis=1)
    np.testing.assert_allclose(shares, 1, atol=1e-5)
    words = np.load(tmp_path / "sift.sift" / "words.npy")
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::8] = 255  # vertical edges: all gradients lie in the first of nine directions
    blocks = descriptors.hog(stripes[None]).reshape(-1, 9)
    assert blocks.sum(axis=0).argmax() in (0, 8)
    frame = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    _, points = cv2.SIFT.create(200).detectAndCompute(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), None)
    nearest = [min(range(16), key=lambda k: float(((point - words[k]) ** 2).sum())) for point in points]
    wanted = np.sqrt(np.bincount(nearest, minlength=16) / len(points))
    np.testing.assert_allclose(descriptors.sift(frame[None], words=words)[0], wanted, atol=1e-6)
    assert not descriptors.sift(np.zeros((1, 64, 64, 3), np.uint8), words=words).any()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], r"give either --model MODEL or --config CONFIG"),
        (["--model", "hog", "--config", "demo"], r"give either --model MODEL or --config"),
        (["--config", "demo"], r"config 'demo' has no config\.model\.video\.source"),
        (["--model", str(GOLDEN / "bert")], r"bert has no video tower \(it has: text\)"),
        (["--model", "hog", "--batch_size", "0"], r"--batch_size=0 must be a number of at least 1"),
        (["--model", "hog", "--fps", "-1"], r"--fps=-1\.0 must be a number of at least 0"),  # it decoded for ever
        (["--model", "hog", "--fps", "nan"], r"--fps=nan must be a number"),
        (["--model", "hog", "--workers", "-1"], r"--workers=-1 must be"),
        (["--model", "hog", "--name", "a/b"], r"--name 'a/b' is no name of features"),
        (
            ["--model", "hog", "--config.model.embed_dim=3"],
            r"--config\.model\.embed_dim=3 changes a config; give",
        ),
        (["--model", "hog", "--out", "."], r"--out \. must be the new manifest, .* ends in \.jsonl"),
    ],
)
def test_mistakes(flags, message, clips, tmp_path):
    with pytest.raises(UserError, match=message):
        main([str(clips), "--out", str(tmp_path / "x.jsonl"), *flags])


def test_a_manifest_without_files(tmp_path):
    manifest = tmp_path / "clips.jsonl"
    line = {"clip_id": "a", "captions": ["x"], "features": {"rgb": "a.npy"}}
    manifest.write_text(json.dumps(line) + "\n")
    with pytest.raises(UserError, match=r"no clip of .*clips\.jsonl has a path"):
        main([str(manifest), "--model", "hog", "--out", str(tmp_path / "new.jsonl")])


def test_too_few_keypoints_for_words(tmp_path):
    with pytest.raises(UserError, match=r"0 SIFT keypoints, fewer than 256 visual words"):
        descriptors.visual_words([np.zeros((1, 32, 32, 3), np.uint8)])
