"""CLIP with a ResNet as open_clip stores it: equal to open_clip on a tiny model."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from public_models import converted, encode_text, encode_video, outputs, source, unit
from safetensors.numpy import load_file, save_file

from twinreel.base.errors import UserError
from twinreel.models.towers.clip_resnet import ClipResNetTower, MeanAttention, PooledBlock
from twinreel.zoo.build import abstract
from twinreel.zoo.convert.clip_resnet import table
from twinreel.zoo.convert.convert import convert
from twinreel.zoo.convert.rules import prefixed, to_tensors

ATOL = 1e-5  # of unit rows; open_clip and ours differ by 3e-7


def test_embeddings_are_those_of_open_clip(tmp_path):
    made, model = converted("open_clip/resnet", tmp_path / "source")
    wanted = outputs("open_clip/resnet")
    np.testing.assert_allclose(encode_video(model, wanted["pixels"][:, None]), unit(wanted["image"]), atol=ATOL)
    ids = wanted["ids"].astype(np.int32)
    np.testing.assert_allclose(encode_text(model, ids, ids >= 0), unit(wanted["text"]), atol=ATOL)
    assert (
        made.family == "open_clip"
        and made.spec.input.eval_video == "resize_short_bicubic(64)|center_crop_torchvision(64)"
    )
    image = made.spec.towers["video"]["image"]
    assert (image["family"], image["heads"], image["depths"]) == ("clip_resnet", 4, [1, 2, 1, 1])


def test_the_table_is_read_both_ways(tmp_path):
    made = convert(source("open_clip/resnet", tmp_path / "source"))
    read = load_file(tmp_path / "source" / "open_clip_model.safetensors")
    rules = prefixed(table(image=made.spec.towers["video"]["image"]), source="visual.", path="video/image/")
    written = to_tensors(made.params, rules=rules)
    assert written.keys() == {
        key for key in read if key.startswith("visual.") and not key.endswith("num_batches_tracked")
    }
    for key, value in written.items():
        np.testing.assert_array_equal(value, read[key], err_msg=key)


def test_pictures_of_other_sizes(tmp_path):
    """Feature maps of 3 x 2 places, with positions of 2 x 2 interpolated to them."""
    spec = convert(source("open_clip/resnet", tmp_path / "source")).spec
    image = abstract(spec).video.image
    tokens = nnx.eval_shape(lambda image, pixels: image.tokens(pixels), image, jnp.zeros((2, 96, 64, 3), jnp.uint8))
    assert tokens.patches.shape == (2, 6, 128) and tokens.leading.shape == (2, 1, 128)
    with pytest.raises(UserError, match="16 x 64 pixels"):
        nnx.eval_shape(lambda image, pixels: image.tokens(pixels), image, jnp.zeros((2, 16, 64, 3), jnp.uint8))
    with pytest.raises(UserError, match="dtype float32"):
        nnx.eval_shape(lambda image, pixels: image.tokens(pixels), image, jnp.zeros((2, 64, 64, 3), jnp.float32))
    paths = ["/".join(map(str, path)) for path, _ in nnx.to_flat_state(nnx.state(image))]
    assert all(any(path.startswith(part) for part in image.layer_order()) for path in paths)


def test_gradients_are_finite():
    given = {"dtype": jnp.float32, "rngs": nnx.Rngs(0)}
    block, pool = PooledBlock(4, 8, stride=2, **given), MeanAttention(8, 5, heads=2, **given)

    def loss(parts, x):
        y = parts[0](x).reshape(2, 4, 8)
        return jnp.sum(parts[1](y.mean(axis=1, keepdims=True), tokens=y) ** 2)

    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 4, 4)), jnp.float32)
    gradients = nnx.jit(nnx.grad(loss))(nnx.List([block, pool]), x)
    for path, value in nnx.to_flat_state(nnx.state(gradients)):
        assert bool(jnp.isfinite(value[...]).all()), path


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"image_size": 100}, "image_size=100 must be a multiple of 32"),
        ({"depths": (3, 4, 6)}, r"depths must be four numbers.*\[3, 4, 6\]"),
        ({"width": 6, "heads": 5}, "heads=5 must be a divisor"),
    ],
)
def test_sizes_that_do_not_fit(sizes, message):
    with pytest.raises(UserError, match=message):
        ClipResNetTower(**sizes, rngs=nnx.Rngs(0))


def test_weights_and_config_that_do_not_fit(tmp_path):
    folder = source("open_clip/resnet", tmp_path / "source")
    path, tensors = folder / "open_clip_config.json", load_file(folder / "open_clip_model.safetensors")
    config = json.loads(path.read_text())
    for layers, message in (([1, 1, 1, 1], r"has visual\.layer2\.1\."), ([2, 2, 1, 1], r"lacks visual\.layer1\.1\.")):
        config["model_cfg"]["vision_cfg"]["layers"] = layers
        path.write_text(json.dumps(config))
        with pytest.raises(UserError, match=message):
            convert(folder)
    config["model_cfg"]["vision_cfg"]["layers"] = [1, 2, 1, 1]
    path.write_text(json.dumps(config))
    tensors["visual.attnpool.positional_embedding"] = np.ones((10, 128), np.float32)
    save_file(tensors, folder / "open_clip_model.safetensors")
    with pytest.raises(UserError, match=r"(?s)space_position.*\(9, 128\).*\(4, 128\)"):
        convert(folder)
