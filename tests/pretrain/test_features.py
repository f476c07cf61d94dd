"""Training on precomputed features: of the model's own frozen image tower, and without any frames."""

import json

import numpy as np
import pytest
from public_models import source
from safetensors.numpy import load_file, save_file

import twinreel
from twinreel.base.config import load_config
from twinreel.base.errors import UserError
from twinreel.data.prepare.prepare import prepare
from twinreel.demo import moving_shapes
from twinreel.encode.commands.features import main
from twinreel.pretrain.pretrain import pretrain
from twinreel.pretrain.synthetic import batch_like


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Records of moving shapes with the vectors of a tiny CLIP, and that CLIP's folder."""
    folder = tmp_path_factory.mktemp("features")
    model = source("clip/quick", folder / "clip")
    manifest = moving_shapes.write(folder / "films", train=8, val=4, test=0, workers=1, progress=False)
    out = folder / "described.jsonl"
    flags = ["--model", str(model), "--name", "own", "--frames", "3", "--fps", "6", "--batch_size", "6"]
    assert main([str(manifest), *flags, "--out", str(out)]) == 0
    prepare(out, out=folder / "data", fps=6.0, short_side=0, workers=1)  # as `features` decodes
    return folder / "data", model


def config_of(prepared, *, video, text=None, **train):
    data, model = prepared
    config = load_config("demo", overrides=["train.steps=2"])
    with config.unlocked():
        config.data = {"dir": str(data), "batch_size": 8, "num_frames": 3, "context_length": 16}
        config.model = {"embed_dim": 12, "video": video, "text": {"source": str(model)} if text is None else text}
        frozen = ("^text/", *(["^video/image/"] if "source" in video else []))
        config.optimizer = {"name": "adamw", "lr": 1e-2, "warmup_steps": 0, "frozen": frozen}
        config.train = {"steps": 2, "checkpoint_every": 2, "eval_every": 2, "log_every": 1, **train}
    return config


def logged(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_a_frozen_image_tower_need_not_run(prepared, tmp_path):
    """The first loss is that of training on frames; the trained model takes films."""
    own = {"source": str(prepared[1]), "over_time": "lstm", "depth": 1}
    losses = []
    for name, video in (("vectors", own | {"features": "own"}), ("frames", own)):
        pretrain(config_of(prepared, video=video), workdir=tmp_path / name)
        losses.append(next(line["loss"] for line in logged(tmp_path / name) if "loss" in line))
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    encoder = twinreel.load(tmp_path / "vectors")
    assert encoder.encode_video_arrays(np.zeros((2, 3, 32, 32, 3), np.uint8)).shape == (2, 12)
    assert any("val/t2v_R@1" in line for line in logged(tmp_path / "vectors"))


def test_vectors_of_another_image_tower_are_refused(prepared, tmp_path):
    other = source("clip/quick", tmp_path / "clip")
    tensors = load_file(other / "model.safetensors")
    tensors["vision_model.post_layernorm.weight"] *= 2
    save_file(tensors, other / "model.safetensors")
    video = {"source": str(other), "over_time": "lstm", "depth": 1, "features": "own"}
    with pytest.raises(UserError, match=r"features='own': split '(val|train)' .* another image tower made .*source"):
        pretrain(config_of(prepared, video=video), workdir=tmp_path / "run")


def test_a_model_without_frames_is_trained_and_evaluated(prepared, tmp_path):
    video = {"family": "features", "features": "own", "input_width": 12, "width": 16, "depth": 1, "heads": 2}
    config = config_of(prepared, video=video)
    made = batch_like(config, rows=4)
    assert made["features_own"].shape == (4, 3, 12) and "video" not in made
    pretrain(config, workdir=tmp_path / "run")
    assert any("val/t2v_R@1" in line for line in logged(tmp_path / "run"))
    encoder = twinreel.load(tmp_path / "run")
    with pytest.raises(UserError, match=r"takes precomputed features 'own' and no frames.*twinreel features"):
        encoder.encode_video_arrays(np.zeros((1, 3, 32, 32, 3), np.uint8))
    config.model.video.input_width = 13
    with pytest.raises(UserError, match=r"features 'own' of shape \[B,T,13\]"):
        pretrain(config, workdir=tmp_path / "other")
    config.model.video.features = "onw"
    with pytest.raises(UserError, match=r"features of the records .*twinreel features.* 'onw'; did you mean 'own'"):
        pretrain(config, workdir=tmp_path / "third")


def test_an_image_tower_that_does_not_run_is_frozen(prepared, tmp_path):
    """Weight decay would change it under the vectors that it has computed."""
    config = config_of(prepared, video={"source": str(prepared[1]), "features": "own"})
    config.optimizer.frozen = ("^text/",)
    with pytest.raises(
        UserError, match=r"video\.features='own'.*image tower.*config\.optimizer\.frozen=.*\^video/image/"
    ):
        pretrain(config, workdir=tmp_path / "run")


def test_shuffled_rows_leave_padding_behind():
    from twinreel.evaluate.protocols.controls import reorder_frames

    rows = np.arange(12, dtype=np.float32).reshape(6, 2)
    mixed = reorder_frames(rows, name="shuffled_frames", key=(0, 1), real=np.arange(6) < 4)
    np.testing.assert_array_equal(mixed[4:], rows[4:])
    assert not np.array_equal(mixed, rows) and sorted(mixed[:4, 0]) == [0, 2, 4, 6]
