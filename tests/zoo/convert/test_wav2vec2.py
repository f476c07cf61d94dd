"""wav2vec 2.0: equal to transformers on tiny models of both forms, whatever the padding."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from public_models import converted, outputs, source
from safetensors.numpy import load_file, save_file

from twinreel.base.errors import UserError
from twinreel.data.options import InputSpec
from twinreel.zoo.build import abstract
from twinreel.zoo.convert.convert import convert
from twinreel.zoo.convert.rules import to_tensors
from twinreel.zoo.convert.wav2vec2 import table
from twinreel.zoo.spec import ModelSpec

FORMS = ("base", "large")
ATOL = 2e-5  # transformers and ours differ by 3e-6 on values up to 3


@pytest.fixture(scope="module", params=FORMS)
def form(request, tmp_path_factory):
    return request.param, *converted(f"wav2vec2/{request.param}", tmp_path_factory.mktemp("wav2vec2") / "source")


@nnx.jit
def encoded(tower, audio, lengths):
    return *tower.features(audio, lengths=lengths), tower(audio, lengths=lengths)


def test_each_sound_gives_what_it_gives_alone(form):
    name, made, model = form
    wanted = outputs(f"wav2vec2/{name}")
    audio = np.pad(wanted["audio"], ((0, 0), (0, 300)), constant_values=77)  # what follows a sound has no part in it
    tokens, real, pooled = encoded(model.audio, audio, wanted["lengths"])
    for row in range(3):
        alone = wanted[f"tokens_{row}"]
        assert int(real[row].sum()) == len(alone)
        np.testing.assert_allclose(tokens[row, : len(alone)], alone, atol=ATOL)
        np.testing.assert_allclose(pooled[row], alone.mean(axis=0), atol=ATOL)
    assert made.family == "wav2vec2" and made.spec.input.audio_samples == 160_000


def test_silence_and_very_short_sounds(form):
    _, _, model = form
    audio = np.random.default_rng(0).normal(0, 3000, (3, 200)).astype(np.int16)
    _, real, pooled = encoded(model.audio, audio, np.array([0, 3, 200], np.int32))
    assert np.asarray(real).sum(axis=1)[:2].tolist() == [0, 1]
    np.testing.assert_array_equal(pooled[0], np.zeros(24))
    assert np.isfinite(pooled).all() and np.abs(pooled[1]).max() > 0
    with pytest.raises(UserError, match="sound of 20 samples gives no frame"):
        model.audio.features(jnp.asarray(audio[:, :20]))


def test_gradients_are_finite(form):
    name, _, model = form
    wanted = outputs(f"wav2vec2/{name}")
    loss = nnx.jit(nnx.grad(lambda tower, audio, lengths: jnp.sum(tower(audio, lengths=lengths)[:, ::2])))
    gradients = loss(model.audio, wanted["audio"][:, :600], np.array([600, 70, 0], np.int32))
    assert all(bool(jnp.isfinite(value).all()) for value in jax.tree.leaves(nnx.state(gradients)))
    assert float(jnp.abs(gradients.convolutions[0].kernel[...]).max()) > 0


def test_the_table_is_read_both_ways(form, tmp_path):
    name, made, _ = form
    read = load_file(source(f"wav2vec2/{name}", tmp_path / "source") / "model.safetensors")
    start = "" if name == "base" else "wav2vec2."
    written = to_tensors(made.params, rules=table(audio=made.spec.towers["audio"]))
    left_out = {f"{start}masked_spec_embed"} | {key for key in read if key.startswith("lm_head.")}
    assert {start + key for key in written} == read.keys() - left_out
    factor, direction = (f"encoder.pos_conv_embed.conv.parametrizations.weight.original{n}" for n in (0, 1))
    for key in written.keys() - {factor, direction}:
        np.testing.assert_array_equal(written[key], read[start + key], err_msg=key)
    kernels = [
        tensors[prefix + factor]
        * tensors[prefix + direction]
        / np.linalg.norm(tensors[prefix + direction], axis=(0, 1), keepdims=True)
        for tensors, prefix in ((written, ""), (read, start))
    ]
    np.testing.assert_allclose(*kernels, rtol=1e-5, atol=1e-7)


def test_names_of_older_files(tmp_path):
    path = source("wav2vec2/base", tmp_path / "source") / "model.safetensors"
    new = convert(path.parent).params
    tensors = load_file(path)
    for number, name in enumerate(("weight_g", "weight_v")):
        place = "encoder.pos_conv_embed.conv."
        tensors[f"{place}{name}"] = tensors.pop(f"{place}parametrizations.weight.original{number}")
    tensors["quantizer.codevectors"] = np.ones((1, 2, 3), np.float32)
    save_file(tensors, path)
    old = convert(path.parent).params
    assert old.keys() == new.keys() and all(np.array_equal(old[key], new[key]) for key in new)


def test_a_fusion_of_tokens_takes_frames_of_sound_and_steps_of_a_convolutional_tower(form):
    video = {"family": "r2plus1d", "stem": (3, 4), "widths": (4, 6), "depths": (1, 1)}
    text = {"family": "transformer", "vocab_size": 9, "width": 8, "depth": 1, "heads": 1}
    spec = ModelSpec(
        towers={"video": video, "text": text, "audio": form[1].spec.towers["audio"]},
        embed_dim=8,
        input=InputSpec(num_frames=4, context_length=3, audio_seconds=0.1),
        fusion={"kind": "early", "modalities": ["video", "audio"], "width": 8, "heads": 1},
    )
    model = abstract(spec)
    inputs = {"video": jnp.zeros((2, 4, 16, 16, 3), jnp.uint8), "audio": jnp.zeros((2, 1600), jnp.int16)}
    inputs["audio_samples"] = jnp.zeros((2,), jnp.int32)
    made = nnx.eval_shape(lambda model, inputs: model.encode_fused(inputs, sides=("video", "audio")), model, inputs)
    assert made.embedding.shape == made.sides["audio"].shape == made.sides["video"].shape == (2, 8)


BAD = {
    r"hidden_act.*'mish'": {"hidden_act": "mish"},
    r"feat_extract_norm.*'batch'": {"feat_extract_norm": "batch"},
    r"has adapters \(add_adapter=True\)": {"add_adapter": True},
    r"width=24 must be a multiple of position_groups=5": {"num_conv_pos_embedding_groups": 5},
    r"channels, kernels and strides": {"conv_stride": [5, 3]},
    r"position/kernel.*\(8, 6, 24\).*\(9, 6, 24\)": {"num_conv_pos_embeddings": 9},
    r"blocks/layers/up/kernel.*\(2, 24, 40\).*\(2, 24, 48\)": {"intermediate_size": 48},
    r"lacks .*conv_layers\.3\.conv\.weight": {
        **{"conv_dim": [12, 16, 20, 20], "conv_kernel": [10, 3, 2, 2], "conv_stride": [5, 3, 2, 2]}
    },
    r"lacks 'conv_kernel'": {"conv_kernel": None},
}


@pytest.mark.parametrize("message", BAD)
def test_configs_that_contradict_the_weights(message, tmp_path):
    folder = source("wav2vec2/base", tmp_path / "source")
    config = json.loads((folder / "config.json").read_text()) | BAD[message]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=f"(?s){message}"):
        convert(folder)


def test_another_rate_of_samples(tmp_path):
    folder = source("wav2vec2/base", tmp_path / "source")
    (folder / "preprocessor_config.json").write_text(json.dumps({"sampling_rate": 8000}))
    with pytest.raises(UserError, match=r"sampling_rate.*8000"):
        convert(folder)
