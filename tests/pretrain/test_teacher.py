"""Distillation from a teacher beside the run: what it sees, that no checkpoint holds it, and mistakes."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file
from tower_loops import drawn

import twinreel
from twinreel.base.config import load_config
from twinreel.base.errors import UserError
from twinreel.data.batches.pipeline import make_tokenizer
from twinreel.data.options import DataOptions
from twinreel.encode.embed.encoder import Encoder
from twinreel.encode.embed.teacher import Taught, _check_frames, locate_teacher
from twinreel.engine.keeping.checkpoint import read_params
from twinreel.pretrain.objective import make_objective
from twinreel.pretrain.pretrain import pretrain
from twinreel.pretrain.synthetic import batch_like
from twinreel.pretrain.teacher import make_teacher
from twinreel.zoo.build import build

E, SIDE, FRAMES = 12, 24, 4


@pytest.fixture(scope="module")
def tokenizer(tiny_overrides):
    return make_tokenizer(DataOptions.of(load_config("demo", overrides=tiny_overrides).data))


@pytest.fixture(scope="module")
def teacher(tiny_overrides, tokenizer, tmp_path_factory):
    """A bundle of another width, frame size and number of frames, with the tokenizer of the run."""
    sizes = ["model.video.image_size=24", "model.video.tubelet=1", f"model.embed_dim={E}", f"data.num_frames={FRAMES}"]
    config = load_config("demo", overrides=[*tiny_overrides, *sizes, f"data.eval_video='center_crop({SIDE})'"])
    data = DataOptions.of(config.data)
    spec = make_objective(config, data=data, vocab_size=tokenizer.vocab_size).spec
    spec = spec.replace(tokenizer=tokenizer.to_meta())
    folder = tmp_path_factory.mktemp("teacher") / "bundle"
    Encoder(spec=spec, model=drawn(lambda: build(spec, rngs=nnx.Rngs(0)))).save(folder)
    return folder


def config_of(tiny_overrides, teacher):
    steps = ["train.steps=2", "train.eval_every=0", "train.checkpoint_every=1"]
    steps += ["data.batch_size=8", "model.video.dtype=bfloat16", "model.text.dtype=bfloat16"]
    config = load_config("demo", overrides=[*tiny_overrides, *steps])
    with config.unlocked():
        config.evaluations = {}
        config.loss.terms = {"distillation": {"source": str(teacher)}, "masked_language": {}, "masked_frames": {}}
        config.model.heads = {
            "distillation": {"kind": "linear", "width": E},
            "masked_language": {"kind": "cross_encoder", "heads": 2, "dtype": "bfloat16"},
            "masked_frames": {"kind": "decoder", "width": 8, "depth": 1, "heads": 2, "dtype": "bfloat16"},
        }
    return config


def losses(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [line["loss_distillation"] for line in lines if "loss_distillation" in line]


def test_every_head_learns_and_no_checkpoint_holds_the_teacher(tiny_overrides, teacher, tmp_path):
    """In bfloat16, on all devices, with both masked terms; a run goes on with its own teacher only."""
    config = config_of(tiny_overrides, teacher)
    pretrain(config, workdir=tmp_path / "run")
    whole = read_params(tmp_path / "run")
    assert not [name for name in whole if "teacher" in name]
    before = read_params(tmp_path / "run" / "checkpoints" / "1")
    moved = {"/".join(name.split("/")[:2]) for name, value in whole.items() if not np.array_equal(value, before[name])}
    assert moved >= {"heads/distillation", "heads/masked_language", "heads/masked_frames", "video/space", "text/blocks"}
    found = losses(tmp_path / "run")
    assert len(found) == 2 and np.isfinite(found).all()
    other = shutil.copytree(teacher, tmp_path / "other")
    tensors = load_file(other / "model.safetensors")
    save_file(tensors | {"log_scale": np.array(tensors["log_scale"] + 1, np.float32)}, other / "model.safetensors")
    config = config_of(tiny_overrides, other)
    with config.unlocked():
        config.train.steps = 3
    with pytest.raises(UserError, match=r"config\.loss\.terms\.distillation\.source has changed"):
        pretrain(config, workdir=tmp_path / "run")


def test_a_teacher_sees_frames_of_its_own_size(tiny_overrides, teacher, tokenizer):
    config = config_of(tiny_overrides, teacher)
    data = DataOptions.of(config.data)
    student = make_objective(config, data=data, vocab_size=tokenizer.vocab_size).spec
    rows = batch_like(config, rows=8)
    shapes = {key: value.shape for key, value in rows.items() if key.startswith("teacher")}
    assert shapes == {"teacher_video": (8, E), "teacher_text": (8, E), "teacher_scale": (8,)}
    found = next(Taught(iter([rows]), teacher=make_teacher(config, spec=student, tokenizer=tokenizer)))
    video = rows["video"][:, 1::2].astype(np.float32)
    resized = jax.image.resize(video, (8, FRAMES, SIDE, SIDE, 3), "linear", antialias=True)
    encoder = twinreel.load(teacher)
    wanted = encoder.encode_video_arrays(np.clip(np.round(resized), 0, 255).astype(np.uint8))
    np.testing.assert_allclose(found["teacher_video"], wanted, atol=2e-4)
    wanted = encoder.encode_text_ids(rows["text"], mask=rows["text_mask"])
    np.testing.assert_allclose(found["teacher_text"], wanted, atol=1e-5)
    assert found["teacher_scale"] == pytest.approx(np.full(8, float(encoder.model.scale)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"source": "nowhere"}, "config.loss.terms.distillation.source='nowhere'"),
        ({"width": 7}, "config.model.heads.distillation.width=7, but the teacher's embeddings have 12 numbers"),
        ({"width": None}, "embed_dim=8; add config.model.heads={'distillation': {'kind': 'linear', 'width': 12}}"),
        ({"tokenizer": "other"}, "has another tokenizer than the run"),
        ({"context": 30}, "reads texts of 24 tokens, the run config.data.context_length=30"),
        ({"mask": True}, "config.data.mask_frames=True, but the teacher"),
    ],
)
def test_teachers_that_do_not_fit_are_named(tiny_overrides, teacher, tokenizer, fields, message):
    config = config_of(tiny_overrides, fields.get("source", teacher))
    with config.unlocked():
        config.model.heads.distillation.width = fields.get("width", E) or E
        if fields.get("width", E) is None:
            del config.model.heads["distillation"]
        config.data.context_length = fields.get("context", 24)
        config.data.mask_frames = fields.get("mask", False)
    data = DataOptions.of(config.data)
    student = make_objective(config, data=data, vocab_size=tokenizer.vocab_size).spec
    other = type("Other", (), {"to_meta": lambda self: {"kind": "other"}})()
    with pytest.raises(UserError, match=message.replace(".", r"\.").replace("{", r"\{")):
        make_teacher(config, spec=student, tokenizer=other if "tokenizer" in fields else tokenizer)


def test_masked_frames_are_the_same_for_teacher_and_run(teacher):
    """The mask of the run's frames says nothing of another number of frames."""
    own = locate_teacher(str(teacher), sides=("video",), field="config.loss.terms.distillation")
    given = dataclasses.replace(own.spec.input, mask_frames=True)
    located = dataclasses.replace(own, spec=own.spec.replace(input=given))
    _check_frames(located, input=given)
    with pytest.raises(UserError, match=rf"takes {FRAMES} frames, the run config\.data\.num_frames=8"):
        _check_frames(located, input=dataclasses.replace(given, num_frames=8))
