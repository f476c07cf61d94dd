"""InternVideo2-CLIP, small form: equal to its public code on a tiny model with its layout, at other sizes, refusals."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from public_models import converted, encode_text, encode_video, model_of, outputs, source, unit
from safetensors.numpy import load_file, save_file

from twinreel.base.errors import UserError
from twinreel.engine.keeping.transfer import fill
from twinreel.models.towers.clip_positions import joint_positions
from twinreel.zoo.build import build
from twinreel.zoo.convert.convert import convert
from twinreel.zoo.convert.internvideo2 import table
from twinreel.zoo.convert.rules import to_tensors

ATOL = 3e-6  # of unit rows; the public code and ours differ by 4e-7, and the two forms of GELU by 4e-5
SETTINGS = {"heads": 3, "text_heads": 4, "pool_heads": 4, "num_frames": 4}


@pytest.fixture(scope="module")
def internvideo2(tmp_path_factory):
    return converted("internvideo2", tmp_path_factory.mktemp("internvideo2") / "source")


def with_settings(folder, **settings):
    """A copy of the golden folder with other settings."""
    folder = source("internvideo2", folder)
    (folder / "twinreel_config.json").write_text(json.dumps(SETTINGS | settings))
    return folder


def test_embeddings_are_those_of_the_public_code(internvideo2):
    made, model = internvideo2
    wanted = outputs("internvideo2")
    assert made.family == "internvideo2"
    video, image = (unit(wanted[f"{kind}_embeddings_tanh_gelu"]) for kind in ("video", "image"))
    np.testing.assert_allclose(encode_video(model, wanted["frames"]), video, atol=ATOL)
    np.testing.assert_allclose(encode_video(model, wanted["one_frame"]), image, atol=ATOL)
    pooled = model.video(jnp.asarray(wanted["frames"]))
    np.testing.assert_allclose(pooled, wanted["vision_projector_tanh_gelu"], rtol=1e-3, atol=1e-5)
    ids = wanted["text_ids"]
    np.testing.assert_allclose(encode_text(model, ids, ids >= 0), unit(wanted["text_embeddings"]), atol=ATOL)
    np.testing.assert_allclose(model.text.tokens(jnp.asarray(ids), mask=ids >= 0), wanted["text_tokens"], atol=1e-4)
    np.testing.assert_allclose(model.scale, 100, rtol=1e-5)  # the file has the temperature, 1/100


def test_the_other_gelu_is_an_option(internvideo2, tmp_path):
    made = convert(with_settings(tmp_path / "source", activation="gelu_exact"))
    wanted = outputs("internvideo2")
    model, exact = model_of(made), unit(wanted["video_embeddings_exact_gelu"])
    np.testing.assert_allclose(encode_video(model, wanted["frames"]), exact, atol=ATOL)
    assert np.abs(internvideo2[1].encode_video(wanted["frames"]) - exact).max() > 5 * ATOL
    assert "exact GELU" in made.notes[0] and "tanh form" in internvideo2[0].notes[0]


def test_positions_are_resized_over_time_then_space_as_the_public_code_does():
    wanted = outputs("internvideo2")
    found = joint_positions(
        jnp.asarray(wanted["position"][1:]), old=(4, 2, 2), new=(8, 3, 3), time_method="linear"
    ).reshape(72, 48)
    np.testing.assert_allclose(found, wanted["position_resized"][1:], atol=1e-6)
    np.testing.assert_array_equal(wanted["position_resized"][0], wanted["position"][0])  # the class token's stays


def test_other_sizes_equal_a_model_that_holds_the_resized_table(internvideo2):
    made, model = internvideo2
    wanted = outputs("internvideo2")
    np.testing.assert_array_equal(made.params["video/position"], wanted["position"][1:])
    video = {**made.spec.towers["video"], "image_size": 42}
    given = type(made.spec.input)(**{**made.spec.input.__dict__, "num_frames": 8})
    other = build(made.spec.replace(towers={**made.spec.towers, "video": video}, input=given), rngs=nnx.Rngs(0))
    fill(other, values=made.params | {"video/position": wanted["position_resized"][1:]})
    clips = np.random.default_rng(0).integers(0, 256, (2, 8, 42, 42, 3), dtype=np.uint8)
    np.testing.assert_allclose(encode_video(model, clips), other.encode_video(clips), atol=ATOL)


def test_spec_holds_the_input(internvideo2):
    given = internvideo2[0].spec.input
    assert (given.num_frames, given.context_length, given.eval_video) == (4, 12, "resize_bicubic(28,28)")
    assert given.pixel_mean == (0.485, 0.456, 0.406) and given.pixel_std == (0.229, 0.224, 0.225)
    towers = internvideo2[0].spec.towers
    assert [towers[side]["block"]["norm_epsilon"] for side in ("video", "text")] == [1e-6, 1e-5]  # too small to measure
    assert given.eval_sampling == "segment_middles" and any("no tokenizer" in note for note in internvideo2[0].notes)


def test_the_table_is_read_both_ways(internvideo2, tmp_path):
    made, _ = internvideo2
    read = load_file(source("internvideo2", tmp_path / "source") / "model.safetensors")
    video, text = (dict(made.spec.towers[side]) for side in ("video", "text"))
    written = to_tensors(made.params, rules=table(video=video, text=text, context_length=12))
    assert {key: value.shape for key, value in written.items()} == {key: value.shape for key, value in read.items()}
    moved = ["vision_encoder.cls_token", "vision_encoder.pos_embed"]
    for key in read.keys() - set(moved):
        np.testing.assert_allclose(written[key], read[key], rtol=1e-6, err_msg=key)
    token, positions = moved  # the class token holds its position
    np.testing.assert_allclose(written[token] + written[positions][:, :1], read[token] + read[positions][:, :1])
    np.testing.assert_array_equal(written[positions][:, 1:], read[positions][:, 1:])


BAD = {
    "lacks vision_encoder.blocks.1.ls2.gamma": lambda t: t.pop("vision_encoder.blocks.1.ls2.gamma"),
    "lacks vision_align.1.weight": lambda t: t.pop("vision_align.1.weight"),
    "has vision_encoder.norm.weight, which no model": lambda t: t.update(
        {"vision_encoder.norm.weight": np.ones(48, np.float32)}
    ),
    r"down/kernel: the weights have \(2, 96, 48\)": lambda t: t.update(
        {f"vision_encoder.blocks.{n}.mlp.fc2.weight": np.ones((48, 96), np.float32) for n in (0, 1)}
    ),
    "positions of each of 4 time steps hold 3 places": lambda t: t.update(
        {"vision_encoder.pos_embed": t["vision_encoder.pos_embed"][:, :13]}
    ),
    "15 positions of patches do not divide by 4": lambda t: t.update(
        {"vision_encoder.pos_embed": t["vision_encoder.pos_embed"][:, :16]}
    ),
}


@pytest.mark.parametrize("message", BAD)
def test_damaged_weights(message, tmp_path):
    folder = source("internvideo2", tmp_path / "source")
    tensors = load_file(folder / "model.safetensors")
    BAD[message](tensors)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(UserError, match=message):
        convert(folder)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"activation": "relu"}, "activation='relu'.*gelu or gelu_exact"),
        ({"num_frames": 3}, "16 positions of patches do not divide by 3 time steps.*num_frames"),
        ({"pool_heads": 5}, "pool_heads=5"),
        ({"frames": 4}, "'frames'.*num_frames|'frames'"),
    ],
)
def test_wrong_settings(settings, message, tmp_path):
    with pytest.raises(UserError, match=message):
        convert(with_settings(tmp_path / "source", **settings))
