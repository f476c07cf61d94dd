"""Encoders of transformers: BERT, RoBERTa, T5, ViT, DINOv2 and AST give the numbers of the public code."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from twinreel.base.errors import UserError
from twinreel.engine.keeping.transfer import fill
from twinreel.models.layers.fbank import kaldi_fbank
from twinreel.zoo.build import build
from twinreel.zoo.convert import ast, bert, dinov2, t5, vit
from twinreel.zoo.convert.convert import convert
from twinreel.zoo.convert.rules import to_tensors
from twinreel.zoo.spec import ModelSpec

GOLDEN = Path(__file__).parents[2] / "golden" / "weights"
ATOL = 1e-5  # of tokens of size 1 to 5


def folder_of(name, tmp_path, **files):
    """Copy a tiny model and write further JSON files into its folder; None leaves one out."""
    folder = Path(shutil.copytree(GOLDEN / name, tmp_path / name))
    for file, value in files.items():
        path = folder / file.replace("__", "/")
        path.parent.mkdir(exist_ok=True)
        path.with_suffix(".json").write_text(json.dumps(value))
    return folder


def read(name, folder):
    """Return what `convert` gives, our model, and the public code's arrays."""
    made = convert(folder)
    model = build(ModelSpec.from_dict(json.loads(json.dumps(made.spec.to_dict()))), rngs=nnx.Rngs(0))
    fill(model, values=made.params)
    with np.load(folder / "io.npz") as file:
        return made, model, dict(file)


TEXTS = {"bert": "bert", "bert_masked_lm": "bert", "roberta": "bert", "t5": "t5", "t5_gated": "t5"}


@pytest.mark.parametrize("name", TEXTS)
def test_text_encoders_give_the_tokens_of_the_public_code(name, tmp_path):
    made, model, wanted = read(name, folder_of(name, tmp_path))
    ids, mask = jnp.asarray(wanted["ids"]), wanted["mask"]
    tokens = np.asarray(model.text.tokens(ids, mask=mask))
    np.testing.assert_allclose(tokens[mask], wanted["hidden"][mask], rtol=1e-4, atol=ATOL)
    if "pooled" in wanted:
        assert model.text.pool == "pooler"
        pooled = wanted["pooled"]
    else:
        pooled = [row[real].mean(axis=0) for row, real in zip(wanted["hidden"], mask, strict=True)]
    np.testing.assert_allclose(model.text(ids, mask=mask), pooled, rtol=1e-4, atol=ATOL)
    assert made.family == TEXTS[name] and made.spec.embed_dim is None
    assert made.spec.input.context_length == {"roberta": 14}.get(name, 16 if name.startswith("bert") else 512)


IMAGES = {"vit": "vit", "vit_classifier": "vit", "dinov2": "dinov2", "dinov2_giant_form": "dinov2"}


@pytest.mark.parametrize("name", IMAGES)
def test_image_encoders_give_the_tokens_of_the_public_code(name, tmp_path):
    made, model, wanted = read(name, folder_of(name, tmp_path))
    tokens = model.video.image.tokens(wanted["pixels"])
    found = np.concatenate([tokens.leading, tokens.patches], axis=1)
    np.testing.assert_allclose(found, wanted["hidden"], rtol=1e-4, atol=ATOL)
    mean = wanted["hidden"][:, 0].mean(axis=0)
    np.testing.assert_allclose(model.video(wanted["pixels"][None])[0], mean, rtol=1e-4, atol=ATOL)
    other = model.video(wanted["other"][:, None])  # 24 x 16 pixels: interpolated positions
    np.testing.assert_allclose(other, wanted["other_class"], rtol=1e-4, atol=ATOL)
    given = made.spec.input
    assert made.family == IMAGES[name] and given.eval_video == "resize_bilinear(32,32)"
    assert given.pixel_mean == (0.485, 0.456, 0.406) and given.pixel_std == (0.229, 0.224, 0.225)


def test_sound_encoder_gives_the_tokens_of_the_public_code(tmp_path):
    """Sound of the tower's length, shorter sound and longer sound, from int16 samples on."""
    made, model, wanted = read("ast", folder_of("ast", tmp_path))
    audio, lengths = jnp.asarray(wanted["audio"]), jnp.asarray(wanted["lengths"])
    banks = (np.asarray(model.audio._filter_banks(audio, lengths=lengths)) + 4.2677393) / (2 * 4.5689974)
    np.testing.assert_allclose(banks, wanted["values"], atol=1e-5)
    tokens = model.audio.tokens(audio, lengths=lengths)
    np.testing.assert_allclose(tokens, wanted["hidden"], rtol=1e-4, atol=ATOL)
    np.testing.assert_allclose(model.audio(audio, lengths=lengths), wanted["pooled"], rtol=1e-4, atol=ATOL)
    assert made.family == "ast" and made.spec.input.audio_samples == 6_640
    silent = model.audio(audio, lengths=jnp.asarray([0, 4_000, 6_640]))
    assert (np.asarray(silent[0]) == 0).all() and np.isfinite(silent).all()


def test_gradients_of_the_sound_encoder_are_finite(tmp_path):
    _, model, wanted = read("ast", folder_of("ast", tmp_path))
    audio, lengths = jnp.zeros_like(jnp.asarray(wanted["audio"])), jnp.asarray([0, 4_000, 6_640])  # silence, too
    gradient = nnx.grad(lambda tower: jnp.sum(jnp.square(tower(audio, lengths=lengths))))(model.audio)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_filter_banks_want_a_whole_frame():
    with pytest.raises(ValueError, match="399 samples"):
        kaldi_fbank(jnp.zeros((1, 399), jnp.int16))


def tables(name, made):
    """The table that export would read."""
    if name == "ast":
        return ast.table(audio=dict(made.spec.towers["audio"]), start="audio_spectrogram_transformer.")
    if name in TEXTS:
        text = dict(made.spec.towers["text"])
        return {"bert": bert.table, "roberta": lambda **given: bert.table(**given, skipped=2), "t5": t5.table}[name](
            text=text
        )
    image = dict(made.spec.towers["video"]["image"])
    return vit.table(image=image) if name == "vit" else dinov2.table(image=image)


@pytest.mark.parametrize("name", ["bert", "roberta", "t5", "vit", "dinov2", "ast"])
def test_tables_are_read_both_ways(name, tmp_path):
    folder = folder_of(name, tmp_path)
    made, tensors = convert(folder), load_file(folder / "model.safetensors")
    written = to_tensors(made.params, rules=tables(name, made))
    left_out = {
        key for key in tensors if "mask_token" in key or "classifier" in key or (name == "vit" and "pooler" in key)
    }
    assert written.keys() == tensors.keys() - left_out
    summed = ("cls_token", "distillation_token", "embeddings.position_embeddings")  # our class token holds its position
    for key in written:
        if key.endswith(summed):
            continue
        skipped = 2 if name == "roberta" and "position_embeddings" in key else 0
        np.testing.assert_array_equal(written[key][skipped:], tensors[key][skipped:], err_msg=key)


@pytest.mark.parametrize(("mode", "pool"), [("mean_tokens", "mean"), ("cls_token", "cls")])
def test_sentence_transformers_name_pool_and_length(mode, pool, tmp_path):
    pooling = {"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": False, f"pooling_mode_{mode}": True}
    module = "sentence_transformers.models."
    modules = [{"type": module + kind} for kind in ("Transformer", "Pooling", "Normalize")]
    files = {"1_Pooling__config": pooling, "modules": modules, "sentence_bert_config": {"max_seq_length": 12}}
    made, model, wanted = read("bert", folder_of("bert", tmp_path, **files))
    hidden, mask = wanted["hidden"], wanted["mask"]
    means = [row[real].mean(axis=0) for row, real in zip(hidden, mask, strict=True)]
    found = model.text(jnp.asarray(wanted["ids"]), mask=mask)
    np.testing.assert_allclose(found, hidden[:, 0] if pool == "cls" else means, rtol=1e-4, atol=ATOL)
    assert made.spec.input.context_length == 12 and not any("pooled" in note for note in made.notes)


def changed_config(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


BAD_CONFIGS = {
    "activation": ("bert", {"hidden_act": "mish"}, "hidden_act.*'mish'"),
    "relative": ("bert", {"position_embedding_type": "relative_key"}, "position type.*'relative_key'"),
    "decoder": ("bert", {"is_decoder": True}, "is_decoder.*'True'"),
    "positions": ("roberta", {"max_position_embeddings": 20}, r"text/position.*\(14, 24\).*\(18, 24\)"),
    "heads": ("t5", {"num_heads": 4}, "qkv|SelfAttention"),
    "head width": ("t5", {"d_kv": 6}, r"text/blocks/layers/attention/qkv/kernel.*\(2, 24, 45\).*\(2, 24, 54\)"),
    "mlp": ("t5", {"feed_forward_proj": "gated-mish"}, "feed_forward_proj.*'gated-mish'"),
    "gate": ("t5", {"feed_forward_proj": "gated-gelu"}, r"lacks .*wi_0\.weight.*and has .*wi\.weight"),
    "patch": ("vit", {"patch_size": 4}, "patch_embeddings"),
    "registers": ("dinov2_giant_form", {"num_register_tokens": 2}, "register_tokens"),
    "mel bins": ("ast", {"num_mel_bins": 20}, "num_mel_bins is 20 in config.json and 16 in the file"),
    "strides": ("ast", {"time_stride": 3}, r"audio/position.*\(95, 24\).*\(65, 24\)"),
    "depth": ("dinov2", {"num_hidden_layers": 3}, r"\(2, .*\(3, "),
}


@pytest.mark.parametrize("case", BAD_CONFIGS)
def test_a_config_that_contradicts_the_weights(case, tmp_path):
    name, values, message = BAD_CONFIGS[case]
    folder = folder_of(name, tmp_path)
    changed_config(folder, **values)
    with pytest.raises(UserError, match=f"(?s){message}"):
        convert(folder)


@pytest.mark.parametrize("name", ["bert", "t5", "dinov2"])
def test_missing_and_additional_tensors(name, tmp_path):
    folder = folder_of(name, tmp_path)
    tensors = load_file(folder / "model.safetensors")
    gone = sorted(key for key in tensors if "norm.weight" in key or "LayerNorm.weight" in key)[-1]
    save_file({"lora_A.weight": tensors.pop(gone), **tensors}, folder / "model.safetensors")
    with pytest.raises(UserError, match=rf"lacks {gone} and has lora_A\.weight"):
        convert(folder)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"modules": [{"type": "sentence_transformers.models.Dense"}]}, "module 'Dense'"),
        ({"1_Pooling__config": {"pooling_mode_max_tokens": True}}, "pool.*pooling_mode_max_tokens"),
        ({"1_Pooling__config": {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}}, "names 2 pools"),
        ({"modules": {"type": "Dense"}}, "holds a dict, wanted a list"),
    ],
    ids=str,
)
def test_sentence_transformers_that_cannot_be_read(files, message, tmp_path):
    with pytest.raises(UserError, match=message):
        convert(folder_of("bert", tmp_path, **files))


def test_an_interpolation_that_is_not_known(tmp_path):
    folder = folder_of("vit", tmp_path, preprocessor_config={"resample": 5})
    with pytest.raises(UserError, match=r"resample in the config of .*'5'"):
        convert(folder)
