"""VideoMAE, ViViT and TimeSformer: equal to transformers on tiny models, what is left out, preprocessing, refusals."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from public_models import GOLDEN, converted, model_of, outputs, source
from safetensors.numpy import load_file, save_file

from twinreel.base.errors import UserError
from twinreel.models.backbone import Backbone
from twinreel.zoo.convert import timesformer, videomae, vivit
from twinreel.zoo.convert.convert import convert
from twinreel.zoo.convert.rules import to_tensors

NEAR = {"rtol": 1e-4, "atol": 1e-5}  # measured: 1e-6 on values of size 2
MODELS = {
    "videomae/finetuned": "classification head",
    "videomae/pretrained": "decoder of the pretraining",
    "vivit/classifier": "classification head",
    "vivit/bare": "pooler",
    "timesformer/classifier": "classification head",
    "timesformer/bare": "",
}


@pytest.mark.parametrize("name", MODELS)
def test_vectors_are_those_of_transformers(name, tmp_path):
    made, model = converted(name, tmp_path / "source")
    wanted = outputs(name)
    assert made.family == name.split("/")[0] and isinstance(model, Backbone) and made.spec.embed_dim is None
    assert MODELS[name] in " ".join(made.notes) and bool(MODELS[name]) == bool(made.notes)
    frames = jnp.asarray(wanted["frames"])
    np.testing.assert_allclose(model.video(frames), wanted["pooled"], **NEAR)
    tokens = np.asarray(model.video.tokens(frames)[0])  # [B,T,N,D]
    if "timesformer" in name:  # whose sequence has the place outermost
        tokens = tokens.swapaxes(1, 2)
    hidden = wanted["hidden"][:, -tokens.shape[1] * tokens.shape[2] :]
    np.testing.assert_allclose(tokens.reshape(hidden.shape), hidden, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", ["more", "one"])
def test_timesformer_takes_the_nearest_positions(kind, tmp_path):
    """Six frames of 24 pixels, and one frame."""
    model, wanted = converted("timesformer/bare", tmp_path / "source")[1], outputs("timesformer/bare")
    np.testing.assert_allclose(model.video(jnp.asarray(wanted[f"{kind}_frames"])), wanted[f"{kind}_pooled"], **NEAR)


def test_videomae_makes_its_sinusoids_anew(tmp_path):
    """Six frames of 24 pixels, as transformers does with another config and the same weights."""
    model = converted("videomae/finetuned", tmp_path / "source")[1]
    with np.load(GOLDEN / "videomae" / "larger.npz") as wanted:
        np.testing.assert_allclose(model.video(jnp.asarray(wanted["frames"])), wanted["pooled"], **NEAR)


def test_videomae_has_newer_names_of_biases(tmp_path):
    """`query.bias` for `q_bias`, and none at all with `qv_bias: false`."""
    folder, wanted = source("videomae/finetuned", tmp_path / "source"), outputs("videomae/finetuned")
    tensors = load_file(folder / "model.safetensors")
    for old, new in (("q_bias", "query.bias"), ("v_bias", "value.bias")):
        tensors = {key.replace(old, new): value for key, value in tensors.items()}
    save_file(tensors, folder / "model.safetensors")
    frames = jnp.asarray(wanted["frames"])
    np.testing.assert_allclose(model_of(convert(folder)).video(frames), wanted["pooled"], **NEAR)
    change(folder, "config.json", qv_bias=False)
    with pytest.raises(UserError, match=r"has .*query\.bias"):
        convert(folder)
    kept = {key: value for key, value in tensors.items() if not key.endswith(("query.bias", "value.bias"))}
    save_file(kept, folder / "model.safetensors")
    assert "video/blocks/layers/attention/qkv/bias" not in convert(folder).params


def test_tables_are_read_both_ways(tmp_path):
    tables = {
        "videomae/finetuned": lambda video: videomae.table(video=video, prefix="videomae.", old_names=True),
        "vivit/classifier": lambda video: vivit.table(video=video, prefix="vivit."),
        "timesformer/bare": lambda video: timesformer.table(video=video, prefix="", num_frames=4),
    }
    for name, table in tables.items():
        made, _ = converted(name, tmp_path / name.replace("/", "_"))
        read = load_file(GOLDEN / name / "model.safetensors")
        written = to_tensors(made.params, rules=table(dict(made.spec.towers["video"])))
        assert written.keys() == {key for key in read if not key.startswith("classifier.")}
        for key, value in written.items():
            assert value.shape == read[key].shape, key
            if not key.endswith(("cls_token", "embeddings.position_embeddings")):  # the token holds its position
                np.testing.assert_array_equal(value, read[key], err_msg=key)


def change(folder, file, **values):
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


PIXELS = {
    "as in the file": ({}, "resize_short_bilinear(18)|center_crop(16)", 0.75, 0.25),
    "shifted once": ({"do_normalize": False}, "resize_short_bilinear(18)|center_crop(16)", 0.5, 0.5),
    "not shifted": (
        {"offset": False, "rescale_factor": 1 / 255},
        "resize_short_bilinear(18)|center_crop(16)",
        0.5,
        0.5,
    ),
    "squashed": ({"size": {"height": 16, "width": 16}}, "resize_bilinear(16,16)", 0.75, 0.25),
    "bicubic": ({"resample": 3, "size": 20}, "resize_short_bicubic(20)|center_crop(16)", 0.75, 0.25),
}


@pytest.mark.parametrize("case", PIXELS)
def test_preprocessing_is_read_from_the_processor(case, tmp_path):
    """ViViT's class shifts pixels to -1..1 and then normalises them again: -3..1."""
    values, resizing, mean, std = PIXELS[case]
    folder = source("vivit/classifier", tmp_path / "source")
    change(folder, "preprocessor_config.json", **values)
    given = convert(folder).spec.input
    assert given.eval_video == resizing and given.num_frames == 4
    np.testing.assert_allclose(given.pixel_mean, [mean] * 3)
    np.testing.assert_allclose(given.pixel_std, [std] * 3)


def test_preprocessing_where_no_file_has_it(tmp_path):
    for name, mean in (("vivit/classifier", 0.75), ("videomae/finetuned", 0.5), ("timesformer/bare", 0.485)):
        folder = source(name, tmp_path / name.replace("/", "_"))
        (folder / "preprocessor_config.json").unlink()
        np.testing.assert_allclose(convert(folder).spec.input.pixel_mean[0], mean)


BAD = {
    "hidden_act in the config.*'mish'": ("vivit/bare", "config.json", {"hidden_act": "mish"}),
    "attention_type.*'space_only'": ("timesformer/bare", "config.json", {"attention_type": "space_only"}),
    r"wanted frames, rows and columns": ("vivit/bare", "config.json", {"tubelet_size": 2}),
    "one side of a square": ("vivit/bare", "config.json", {"tubelet_size": [2, 8, 4]}),
    r"blocks/layers/up/kernel.*\(2, 24, 40\).*\(2, 24, 48\)": (
        *("timesformer/bare", "config.json"),
        {"intermediate_size": 48},
    ),
    r"lacks fc_norm\.bias|has videomae\.layernorm|lacks videomae\.layernorm": (
        *("videomae/finetuned", "config.json"),
        {"use_mean_pooling": False},
    ),
    "lacks 'hidden_size'": ("videomae/finetuned", "config.json", {"hidden_size": None}),
    "do_rescale=false": ("videomae/finetuned", "preprocessor_config.json", {"do_rescale": False}),
    "pictures of 14 x 14 pixels, config.json has image_size=16": (
        *("videomae/finetuned", "preprocessor_config.json"),
        {"crop_size": {"height": 14, "width": 14}},
    ),
    "resample.*'1'": ("videomae/finetuned", "preprocessor_config.json", {"resample": 1}),
}


@pytest.mark.parametrize("message", BAD)
def test_refusals(message, tmp_path):
    name, file, values = BAD[message]
    folder = source(name, tmp_path / "source")
    change(folder, file, **values)
    with pytest.raises(UserError, match=message):
        convert(folder)


def test_missing_and_unexpected_tensors(tmp_path):
    folder = source("timesformer/bare", tmp_path / "source")
    tensors = load_file(folder / "model.safetensors")
    moved = tensors.pop("encoder.layer.1.temporal_dense.weight")
    save_file(tensors | {"encoder.layer.1.temporal_dense.wait": moved}, folder / "model.safetensors")
    with pytest.raises(UserError, match=r"lacks encoder.layer.1.temporal_dense.weight and has .*dense.wait"):
        convert(folder)
