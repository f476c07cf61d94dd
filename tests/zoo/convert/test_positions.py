"""Positions of other sizes, frames and lengths are those of each public code, at run time and where they are loaded."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from public_models import GOLDEN, converted, outputs

from twinreel.base.errors import UserError
from twinreel.engine.keeping.transfer import fill, plan_transfer, position_resizers, shapes
from twinreel.zoo.build import abstract

IMAGES = ("clip/quick", "siglip", "vit", "dinov2", "dinov2_giant_form")
NEAR = {"rtol": 1e-4, "atol": 2e-5}


@pytest.fixture(scope="module")
def wanted():
    with np.load(GOLDEN / "positions.npz") as file:
        return dict(file)


def moved(made, *, tower, **fields):
    """Build a model with other fields of one tower, and load the parameters of `made` into it."""
    towers = {name: dict(one) for name, one in made.spec.towers.items()}
    if tower == "image":
        towers["video"]["image"] = dict(towers["video"]["image"]) | fields
        fields = {}
    else:
        towers[tower] |= fields
    model = abstract(made.spec.replace(towers=towers))
    kinds = position_resizers(model)
    plan = plan_transfer(made.params, target=shapes(model), parts=(".*",), resizers=kinds)
    fill(model, values=plan.values)
    return model, plan


@pytest.mark.parametrize(("name", "side"), [*((name, 24) for name in IMAGES), ("clip/quick", 48), ("siglip", 48)])
def test_pictures_of_another_size(name, side, wanted, tmp_path):
    """As `interpolate_pos_encoding=True` of transformers, by the model itself and by one of that size."""
    made, model = converted(name, tmp_path / "source")
    pixels, vectors = jnp.asarray(wanted[f"pixels_{side}"]), wanted[f"{name}_{side}"]
    np.testing.assert_allclose(model.video.image(pixels), vectors, **NEAR)
    other, plan = moved(made, tower="image", image_size=side)
    assert plan.status["video/image/space_position"] == "resized"
    np.testing.assert_allclose(other.video.image(pixels), vectors, **NEAR)


def test_open_clip_resizes_when_it_loads(wanted, tmp_path):
    """`resize_pos_embed` (bicubic, antialiased) and `resize_text_pos_embed` (linear)."""
    made, _ = converted("open_clip/native", tmp_path / "source")
    for side in (3, 6):
        table = wanted[f"open_clip_table_{side}"]
        token = made.params["video/image/class_token"]  # holds its own position, which stays
        model, _ = moved(made, tower="image", image_size=8 * side)
        np.testing.assert_allclose(model.video.image.space_position[...], table[1:], atol=1e-6)
        np.testing.assert_array_equal(model.video.image.class_token[...], token)
    for length in (8, 20):
        model, _ = moved(made, tower="text", positions=length, stretch_positions=True)
        np.testing.assert_allclose(model.text.position[...], wanted[f"open_clip_text_{length}"], atol=1e-6)
    with pytest.raises(UserError, match=r"text/position +12 x 20 +20 x 20"):
        moved(made, tower="text", positions=20)  # nothing is stretched that the config does not say


@pytest.mark.parametrize("more", [-4, 5])
def test_ast_cuts_or_stretches_time(more, wanted, tmp_path):
    made, _ = converted("ast", tmp_path / "source")
    model, _ = moved(made, tower="audio", frames=40 + 2 * more)
    np.testing.assert_allclose(model.audio.position[...], wanted[f"ast_{more}"], atol=1e-6)


CLIPS = {
    "timesformer/bare": ({"image_size": 24}, 6, "more_frames", "more_pooled"),
    "videoprism/hf_encoder": ({"image_size": 16, "position_frames": 5}, 5, "larger_frames", "larger_embeddings"),
}


@pytest.mark.parametrize("name", CLIPS)
def test_films_of_another_size_and_length(name, tmp_path):
    """TimeSformer takes the nearest positions, VideoPrism interpolates with a filter; also into larger models."""
    fields, times, given, found = CLIPS[name]
    made, _ = converted(name, tmp_path / "source")
    reference = outputs(name)
    model, plan = moved(with_frames(made, times), tower="video", **fields)
    assert [plan.status[f"video/{axis}_position"] for axis in ("space", "time")] == ["resized"] * 2
    frames = jnp.asarray(reference[given])
    if found == "larger_embeddings":
        tokens = np.asarray(model.video.tokens(frames)[0])
        np.testing.assert_allclose(tokens.reshape(reference[found].shape), reference[found], rtol=1e-3, atol=1e-4)
    else:
        np.testing.assert_allclose(model.video(frames), reference[found], **NEAR)


def test_internvideo2_and_viclip_over_time_and_space(tmp_path):
    """InternVideo2: linear, then bicubic; ViCLIP pads with zeros or cuts. Public tables of their own code."""
    made, _ = converted("internvideo2", tmp_path / "internvideo2")
    old = outputs("internvideo2")
    table = jnp.asarray(made.params["video/position"])
    width, tower = table.shape[1], made.spec.towers["video"]
    side, times = tower["image_size"] // tower["patch"], made.spec.input.num_frames // tower["tubelet"]
    longer = with_frames(made, 2 * made.spec.input.num_frames)
    twice, _ = moved(longer, tower="video")
    larger = {"image_size": (side + 1) * tower["patch"]}
    params = {path: np.asarray(value) for path, value in shapes(twice).items()}
    both, _ = moved(dataclasses.replace(longer, params=params), tower="video", **larger)  # one axis after the other
    assert both.video.position.shape == (2 * times * (side + 1) ** 2, width)
    np.testing.assert_allclose(both.video.position[...], old["position_resized"][1:], atol=1e-5)
    with pytest.raises(UserError, match="video/position"):  # both at once: which table it was cannot be told
        moved(longer, tower="video", **larger)
    made, _ = converted("viclip", tmp_path / "viclip")
    frames = next(int(key.rsplit("_", 1)[1]) for key in outputs("viclip") if key.startswith("time_position_"))
    model, _ = moved(with_frames(made, frames), tower="video")
    np.testing.assert_array_equal(model.video.time_position[...], outputs("viclip")[f"time_position_{frames}"])


def with_frames(made, count):
    """Return a conversion whose model takes another number of frames."""
    return dataclasses.replace(
        made, spec=made.spec.replace(input=dataclasses.replace(made.spec.input, num_frames=count))
    )


def test_a_table_of_no_square_grid_is_no_fit(tmp_path):
    made, _ = converted("vit", tmp_path / "source")
    params = made.params | {"video/image/space_position": made.params["video/image/space_position"][:15]}
    with pytest.raises(UserError, match=r"video/image/space_position +15 x 24"):
        moved(dataclasses.replace(made, params=params), tower="image", image_size=48)
