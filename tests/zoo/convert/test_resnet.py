"""ResNets of transformers and of timm as image towers: equal to theirs on tiny models."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from public_models import converted, model_of, outputs, source
from safetensors.numpy import load_file, save_file

from twinreel.base.errors import UserError
from twinreel.models.towers.resnet import ResNetBlock, ResNetTower
from twinreel.zoo.convert.convert import convert
from twinreel.zoo.convert.resnet import table
from twinreel.zoo.convert.rules import to_tensors

ATOL = 1e-5  # the public code and ours differ by 5e-7 on values of 1
MODELS = {
    "hf": "resize_short_bicubic(256)|center_crop(224)",
    "basic": "resize_short_bicubic(50)|center_crop(40)",
    "timm": "resize_short_bicubic(42)|center_crop_torchvision(40)",
}


@pytest.mark.parametrize("name", MODELS)
def test_maps_are_those_of_the_public_code(name, tmp_path):
    made, model = converted(f"resnet/{name}", tmp_path / "source")
    wanted = outputs(f"resnet/{name}")
    encode = nnx.jit(lambda image, pixels: (image.tokens(pixels).patches, image(pixels)))
    for size in ("pixels", "wide"):
        maps = wanted[f"{size}_maps"]
        tokens, pooled = encode(model.video.image, wanted[size])
        np.testing.assert_allclose(tokens, maps.reshape(2, -1, maps.shape[-1]), rtol=1e-5, atol=ATOL)
        np.testing.assert_allclose(pooled, maps.mean(axis=(1, 2)), rtol=1e-5, atol=ATOL)
    assert made.family == "resnet" and made.spec.input.eval_video == MODELS[name]


@pytest.mark.parametrize("name", MODELS)
def test_the_tables_are_read_both_ways(name, tmp_path):
    made = convert(source(f"resnet/{name}", tmp_path / "source"))
    image, read = made.spec.towers["video"]["image"], load_file(tmp_path / "source" / "model.safetensors")
    rules = table(image=image, names="torchvision" if name == "timm" else "transformers")
    written, start = to_tensors(made.params, rules=rules), "resnet." if name == "hf" else ""
    left_out = {key for key in read if key.endswith("num_batches_tracked") or key.startswith(("fc.", "classifier."))}
    assert {start + key for key in written} == read.keys() - left_out
    for key, value in written.items():
        np.testing.assert_array_equal(value, read[start + key], err_msg=key)


def test_a_clip_is_the_mean_of_its_frames_and_layers_over_time_begin_as_it(tmp_path):
    made, model = converted("resnet/basic", tmp_path / "source")
    wanted = outputs("resnet/basic")
    mean = wanted["pixels_maps"].mean(axis=(0, 1, 2))
    np.testing.assert_allclose(model.video(wanted["pixels"][None])[0], mean, atol=ATOL)
    towers = {"video": {**made.spec.towers["video"], "over_time": "lstm", "depth": 1}}
    other = made.__class__(spec=made.spec.replace(towers=towers), params=made.params, family=made.family)
    assert nnx.state(model_of(other))["video"]["time"]["gate"].shape == (24,)


def test_gradients_are_finite():
    kind = {"kind": "bottleneck", "stride_first": False, "dtype": jnp.float32}
    block = nnx.jit(lambda: ResNetBlock(4, 8, stride=2, **kind, rngs=nnx.Rngs(0)))()
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 4, 4)), jnp.float32)
    gradients = nnx.jit(nnx.grad(lambda block, x: jnp.sum(block(x) ** 2)))(block, x)
    for path, value in nnx.to_flat_state(nnx.state(gradients)):
        assert bool(jnp.isfinite(value[...]).all()), path
        assert path[-1] in ("mean", "variance") or float(jnp.abs(value[...]).max()) > 0, path


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"kind": "botleneck"}, "image.kind.*botleneck.*bottleneck"),
        ({"depths": (1,)}, "one number of at least 1 for each stage"),
        ({"widths": (6, 8, 8, 8)}, "multiples of 4"),
    ],
)
def test_sizes_that_do_not_fit(sizes, message):
    with pytest.raises(UserError, match=message):
        ResNetTower(**sizes, rngs=nnx.Rngs(0))


BAD_CONFIGS = {
    "hidden_act.*'gelu'": {"hidden_act": "gelu"},
    "layer_type.*'wide'": {"layer_type": "wide"},
    r"lacks .*encoder\.stages\.0\.layers\.2\.": {"depths": [3, 1, 2]},
    r"has .*encoder\.stages\.2\.layers\.1\.": {"depths": [2, 1, 1]},
    r"stem/conv/kernel.*\(7, 7, 3, 8\).*\(7, 7, 3, 12\)": {"embedding_size": 12},
}


@pytest.mark.parametrize("message", BAD_CONFIGS)
def test_configs_that_contradict_the_weights(message, tmp_path):
    folder = source("resnet/basic", tmp_path / "source")
    config = json.loads((folder / "config.json").read_text()) | BAD_CONFIGS[message]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=f"(?s){message}"):
        convert(folder)


def test_another_form_of_timm(tmp_path):
    """A deep stem (`resnet50d`) has other tensors."""
    path = source("resnet/timm", tmp_path / "source") / "model.safetensors"
    tensors = load_file(path)
    tensors["layer1.0.downsample.2.weight"] = tensors.pop("layer1.0.downsample.0.weight")
    save_file(tensors, path)
    with pytest.raises(UserError, match=r"lacks layer1\.0\.downsample\.0\.weight and has layer1\.0\.downsample\.2"):
        convert(path.parent)
    config = json.loads((path.parent / "config.json").read_text())
    config["pretrained_cfg"]["interpolation"] = "lanczos"
    (path.parent / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"interpolation.*lanczos"):
        convert(path.parent)
