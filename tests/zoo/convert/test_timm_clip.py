"""MobileCLIP and EVA-CLIP as open_clip stores them: equal to timm and open_clip on tiny models."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from public_models import GOLDEN, converted, encode_text, encode_video, outputs, source, unit, up_to
from safetensors.numpy import load_file, save_file

from twinreel.base.errors import UserError
from twinreel.models.towers.fastvit import FastViTStage, FastViTTower
from twinreel.models.towers.vit import ImageTower
from twinreel.zoo.convert import fastvit, timm_token
from twinreel.zoo.convert.convert import convert
from twinreel.zoo.convert.rules import prefixed, to_params, to_tensors

ATOL = 1e-5  # of unit rows; timm and ours differ by 5e-7
TOKEN = ("mobileclip_b", "mobileclip_l", "eva01", "eva02")
AVERAGE = ("mobileclip_s0", "mobileclip_s3")


def folder_of(name, folder):
    return source(f"open_clip/{name}", folder)


def sums():
    """What `reparameterize_model` of timm makes of mobileclip_s0's image tower: the form of `inference_mode`."""
    with np.load(GOLDEN / "open_clip" / "mobileclip_s0" / "summed.npz") as file:
        return {key: file[key] for key in file.files}


@pytest.mark.parametrize("name", [*TOKEN, *AVERAGE])
def test_embeddings_are_those_of_the_public_code(name, tmp_path):
    made, model = converted(f"open_clip/{name}", tmp_path / "source")
    wanted = outputs(f"open_clip/{name}")
    assert made.family == "open_clip"
    np.testing.assert_allclose(encode_video(model, wanted["pixels"][:, None]), unit(wanted["image"]), atol=ATOL)
    if "big" in wanted:  # other sides, and not square
        np.testing.assert_allclose(encode_video(model, wanted["big"][:, None]), unit(wanted["big_image"]), atol=ATOL)
    ids = wanted["ids"].astype(np.int32)  # MobileCLIP's S models see padding, and what follows
    np.testing.assert_allclose(encode_text(model, ids, up_to(ids, end=30)), unit(wanted["text"]), atol=ATOL)


@pytest.mark.parametrize("name", TOKEN)
def test_the_tables_are_read_both_ways(name, tmp_path):
    made = convert(folder_of(name, tmp_path / "source"))
    read = load_file(tmp_path / "source" / "open_clip_model.safetensors")
    image, start = made.spec.towers["video"]["image"], "visual.trunk."
    rules = prefixed(timm_token.table(image=image), path="video/image/")
    written = to_tensors(made.params, rules=rules)
    assert {start + key for key in written} == {
        key for key in read if key.startswith(start) and not key.endswith("num_batches_tracked")
    }
    for key in written.keys() - {"cls_token", "pos_embed"}:
        np.testing.assert_array_equal(written[key], read[start + key].reshape(written[key].shape), err_msg=key)
    if name == "mobileclip_b":  # its class token has no position
        np.testing.assert_array_equal(written["cls_token"], read[f"{start}cls_token"])


def test_sums_of_branches_are_those_of_timm(tmp_path):
    made, summed = convert(folder_of("mobileclip_s0", tmp_path / "source")), sums()
    image = made.spec.towers["video"]["image"]
    image = {key: value for key, value in image.items() if key not in ("family", "projection")}
    name, rules = fastvit.fastvit_image("fastvit_mci0", changes=image, embed_dim=16, inference=True)
    params = to_params(summed, rules=rules, name="summed")
    for path, value in params.items():
        np.testing.assert_allclose(value, made.params[path], rtol=1e-4, atol=1e-6, err_msg=path)
    written = to_tensors(params, rules=rules)
    assert written.keys() == summed.keys() and name["projection"] == 16
    for key, value in written.items():
        np.testing.assert_array_equal(value, summed[key], err_msg=key)
    branches = fastvit.table(image=made.spec.towers["video"]["image"], inference=False)
    with pytest.raises(UserError, match="cannot be taken apart again"):
        to_tensors({key.removeprefix("video/image/"): value for key, value in made.params.items()}, rules=branches)


def test_a_file_of_sums_is_recognised(tmp_path):
    folder = folder_of("mobileclip_s0", tmp_path / "source")
    path = folder / "open_clip_model.safetensors"
    others = {key: value for key, value in load_file(path).items() if not key.startswith("visual.")}
    branches = convert(folder).params
    save_file(others | sums(), path)
    summed = convert(folder).params
    assert summed.keys() == branches.keys()
    assert max(np.abs(summed[key] - branches[key]).max() for key in summed) < 1e-5


def test_input_of_mobileclip(tmp_path):
    given = convert(folder_of("mobileclip_s0", tmp_path / "source")).spec.input
    assert given.eval_video == "resize_short_bilinear(64)|center_crop_torchvision(64)" and given.pixel_std == (
        1.0,
        1.0,
        1.0,
    )


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("eva02", {"timm_pool": "avg"}, r"timm_pool='avg', wanted 'token' for eva02_base"),
        ("mobileclip_s0", {"timm_pool": "token"}, r"timm_pool='token', wanted 'avg' for fastvit_mci0"),
        ("mobileclip_b", {"timm_proj": "linear"}, r"timm_proj='linear'.*the head of vit_base_mci_224"),
        ("eva02", {"timm_model_name": "eva02_enormous_patch14_clip_224"}, "eva02_enormous_patch14_clip_224"),
        ("eva01", {"timm_model_name": "eva02_base_patch16_clip_224", "timm_model_kwargs": {}}, r"lacks .*attn\.k_proj"),
        ("mobileclip_s0", {"timm_model_name": "fastvit_mci1"}, r"depths|lacks"),
    ],
)
def test_configs_that_do_not_fit(name, values, message, tmp_path):
    folder = folder_of(name, tmp_path / "source")
    path = folder / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["model_cfg"]["vision_cfg"] |= values
    if values.get("timm_model_name") == "fastvit_mci1":
        config["model_cfg"]["vision_cfg"]["timm_model_kwargs"] = {"widths": [8, 8, 16, 32]}
    path.write_text(json.dumps(config))
    with pytest.raises(UserError, match=message):
        convert(folder)


def test_missing_branches(tmp_path):
    folder = folder_of("mobileclip_s0", tmp_path / "source")
    path = folder / "open_clip_model.safetensors"
    tensors = load_file(path)
    name = "visual.trunk.stages.1.blocks.1.token_mixer.mixer.conv_scale.bn.running_var"
    save_file({key: value for key, value in tensors.items() if key != name}, path)
    with pytest.raises(UserError, match=rf"lacks {name}"):
        convert(folder)
    save_file(tensors | {name: np.ones(5, np.float32)}, path)
    with pytest.raises(UserError, match=r"conv_scale\.bn\.running_var \(5,\).*does not have the shape"):
        convert(folder)


def test_gradients_of_fastvit_are_finite():
    sizes = {"depth": 1, "mlp_ratio": 2, "attention": True, "shrinks": True, "squeeze": True, "norm": "batch"}
    stage = nnx.jit(lambda: FastViTStage(8, 32, **sizes, dtype=jnp.float32, rngs=nnx.Rngs(0)))()
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 4, 8)), jnp.float32)
    gradients = nnx.jit(nnx.grad(lambda stage, x: jnp.sum(stage(x) ** 2)))(stage, x)
    for path, value in nnx.to_flat_state(nnx.state(gradients)):
        assert bool(jnp.isfinite(value[...]).all()), path
        assert path[-1] in ("mean", "variance") or float(jnp.abs(value[...]).max()) > 0, path


def test_parts_of_fastvit_in_order():
    sizes = {"widths": (8, 32), "depths": (1, 1), "mlp_ratios": (2, 2), "attention": (False, True)}
    model = nnx.eval_shape(lambda: FastViTTower(**sizes, squeeze=(False, True), projection=4, rngs=nnx.Rngs(0)))
    paths = ["/".join(map(str, path)) for path, _ in nnx.to_flat_state(nnx.state(model))]
    assert all(any(path.startswith(part) for part in model.layer_order()) for path in paths)


@pytest.mark.parametrize(
    ("kind", "sizes", "message"),
    [
        (FastViTTower, {"depths": (1, 1)}, r"image\.depths=\[1, 1\] must be one value for each stage"),
        (FastViTTower, {"norm": "group"}, "'group'.*batch"),
        (FastViTTower, {"widths": (8, 16, 32, 40)}, "40 must be a multiple of 32"),
        (
            ImageTower,
            {"patch_stem": (4, 4), "patch": 8, "image_size": 16},
            r"patch_stem=\[4, 4\].*patch=16; got patch=8",
        ),
    ],
)
def test_sizes_that_do_not_fit(kind, sizes, message):
    with pytest.raises(UserError, match=message):
        kind(**sizes, rngs=nnx.Rngs(0))
