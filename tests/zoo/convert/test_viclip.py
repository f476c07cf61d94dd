"""ViCLIP: equal to its public code on a tiny model with its layout, at other sizes, and refusals."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from public_models import converted, encode_text, encode_video, outputs, source, unit
from safetensors.numpy import load_file, save_file

from twinreel.base.errors import UserError
from twinreel.engine.keeping.transfer import fill
from twinreel.models.layers.positions import resize_positions
from twinreel.zoo.build import build
from twinreel.zoo.convert.convert import convert
from twinreel.zoo.convert.rules import to_tensors
from twinreel.zoo.convert.viclip import table

ATOL = 1e-5  # of unit rows; the public code and ours differ by 5e-7


@pytest.fixture(scope="module")
def viclip(tmp_path_factory):
    return converted("viclip", tmp_path_factory.mktemp("viclip") / "source")


def test_embeddings_are_those_of_the_public_code(viclip):
    made, model = viclip
    wanted = outputs("viclip")
    assert made.family == "viclip"
    np.testing.assert_allclose(encode_video(model, wanted["frames"]), unit(wanted["video_embeddings"]), atol=ATOL)
    np.testing.assert_allclose(encode_video(model, wanted["one_frame"]), unit(wanted["image_embeddings"]), atol=ATOL)
    ids = wanted["text_ids"]
    for mask in (ids >= 0, np.arange(ids.shape[1])[None] <= ids.argmax(axis=1)[:, None]):  # padding has no effect
        np.testing.assert_allclose(encode_text(model, ids, mask), unit(wanted["text_embeddings"]), atol=ATOL)
    np.testing.assert_allclose(model.scale, 100, rtol=1e-5)  # the file has the temperature, 1/100


@pytest.mark.parametrize("frames", [2, 8])
def test_other_numbers_of_frames_cut_times_or_pad_them_with_zeros(viclip, frames):
    """Equal to a model of that many frames that holds the table which the public code makes for it."""
    made, model = viclip
    resized = outputs("viclip")[f"time_position_{frames}"]
    assert resized.shape == (frames, 48)
    other = build(made.spec.replace(input=_with_frames(made.spec.input, frames)), rngs=nnx.Rngs(0))
    fill(other, values=made.params | {"video/time_position": resized})
    video = np.random.default_rng(0).integers(0, 256, (2, frames, 32, 32, 3), dtype=np.uint8)
    np.testing.assert_allclose(encode_video(model, video), other.encode_video(video), atol=ATOL)


def _with_frames(given, frames):
    return type(given)(**{**given.__dict__, "num_frames": frames})


def test_larger_frames_have_bicubic_positions(viclip):
    made, model = viclip
    space = resize_positions(jnp.asarray(made.params["video/space_position"]), old=(2, 2), new=(3, 3), method="bicubic")
    towers = {**made.spec.towers, "video": {**made.spec.towers["video"], "image_size": 48}}
    other = build(made.spec.replace(towers=towers), rngs=nnx.Rngs(0))
    fill(other, values=made.params | {"video/space_position": np.asarray(space)})
    video = np.random.default_rng(0).integers(0, 256, (2, 4, 48, 48, 3), dtype=np.uint8)
    np.testing.assert_allclose(encode_video(model, video), other.encode_video(video), atol=ATOL)


def test_spec_holds_the_input(viclip):
    made, _ = viclip
    given = made.spec.input
    assert (given.num_frames, given.context_length, given.eval_video) == (4, 12, "resize_linear(32,32)")
    assert given.pixel_mean == (0.485, 0.456, 0.406) and given.pixel_std == (0.229, 0.224, 0.225)
    assert made.spec.tokenizer == {} and any("no tokenizer" in note for note in made.notes)
    assert made.spec.origin["licence"] == "CC-BY-NC-SA-4.0"


def test_the_table_is_read_both_ways(viclip, tmp_path):
    made, _ = viclip
    read = load_file(source("viclip", tmp_path / "source") / "model.safetensors")
    towers = {side: dict(tower) for side, tower in made.spec.towers.items()}
    written = to_tensors(made.params, rules=table(video=towers["video"], text=towers["text"], num_frames=4))
    assert {key: value.shape for key, value in written.items()} == {key: value.shape for key, value in read.items()}
    moved = ["vision_encoder.class_embedding", "vision_encoder.positional_embedding"]
    for key in read.keys() - set(moved):
        np.testing.assert_allclose(written[key], read[key], rtol=1e-6, err_msg=key)
    token, positions = moved  # the class token holds its position
    np.testing.assert_allclose(written[token] + written[positions][0], read[token] + read[positions][0], rtol=1e-6)
    np.testing.assert_array_equal(written[positions][1:], read[positions][1:])


def changed(folder, change):
    """Change the tensors of a folder by a function on their dict."""
    path = source("viclip", folder) / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    return path.parent


BAD = {
    "lacks vision_encoder.ln_post.bias": lambda t: t.pop("vision_encoder.ln_post.bias"),
    "lacks vision_encoder.conv1.weight": lambda t: t.pop("vision_encoder.conv1.weight"),
    "has vision_encoder.extra, which no model": lambda t: t.update({"vision_encoder.extra": np.ones(3, np.float32)}),
    r"text_encoder.text_projection|text_projection/kernel.*\(24, 32\)": lambda t: t.update(
        {"text_encoder.text_projection": t["text_encoder.text_projection"].T.copy()}
    ),
    "vision_encoder.proj has the shape": lambda t: t.update({"vision_encoder.proj": t["vision_encoder.proj"][0]}),
    "no square grid": lambda t: t.update(
        {"vision_encoder.positional_embedding": t["vision_encoder.positional_embedding"][:4]}
    ),
    "temperature is above 0": lambda t: t.update({"temp": np.asarray(-4.6, np.float32)}),
}


@pytest.mark.parametrize("message", BAD)
def test_damaged_weights(message, tmp_path):
    with pytest.raises(UserError, match=message):
        convert(changed(tmp_path / "source", BAD[message]))


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"head": 3}, "twinreel_config.json.*'head'"),
        ({"heads": "3"}, "heads must be a whole number of at least 1, got '3'"),
        ({"heads": 0}, "at least 1, got 0"),
        ({"heads": 5}, "width=48 must divide by heads=5|shape"),
    ],
)
def test_wrong_settings(own, message, tmp_path):
    folder = source("viclip", tmp_path / "source")
    (folder / "twinreel_config.json").write_text(json.dumps(own))
    with pytest.raises(UserError, match=message):
        convert(folder)


def test_heads_are_64_wide_where_nothing_is_said(tmp_path):
    """Width 48 has then one head, and other embeddings."""
    folder = source("viclip", tmp_path / "source")
    (folder / "twinreel_config.json").unlink()
    towers = convert(folder).spec.towers
    assert (towers["video"]["heads"], towers["text"]["heads"]) == (1, 1)
