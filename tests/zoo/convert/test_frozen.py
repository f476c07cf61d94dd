"""Frozen in Time: equal to its public code on a tiny model, with fewer frames and masks, its start, and refusals."""

import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from public_models import converted, encode_text, encode_video, outputs, source, unit
from safetensors.numpy import load_file, save_file

from twinreel.base.errors import UserError
from twinreel.encode.embed.encoder import Encoder
from twinreel.models.towers.divided import DividedTower
from twinreel.zoo.convert.convert import convert
from twinreel.zoo.convert.frozen import table
from twinreel.zoo.convert.rules import to_tensors

ATOL = 1e-5  # of unit rows; the public code and ours differ by 3e-7


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    return converted("frozen", tmp_path_factory.mktemp("frozen") / "source")


def test_embeddings_are_those_of_the_public_code(frozen):
    made, model = frozen
    wanted = outputs("frozen")
    assert made.family == "frozen" and made.spec.towers["video"]["form"] == "frozen"
    np.testing.assert_allclose(encode_video(model, wanted["pixels"]), unit(wanted["video"]), atol=ATOL)
    np.testing.assert_allclose(encode_text(model, wanted["ids"], wanted["mask"]), unit(wanted["text"]), atol=ATOL)
    texts = Encoder(spec=made.spec, model=model).encode_text([str(text) for text in wanted["texts"]])
    np.testing.assert_allclose(texts, unit(wanted["text"]), atol=ATOL)
    np.testing.assert_allclose(model.scale, 20, rtol=1e-5)  # the loss of the public code divides by 0.05
    given = made.spec.input
    assert (given.num_frames, given.eval_sampling) == (4, "segment_middles")
    assert given.eval_video == "resize_short_bilinear(32)|center_crop_torchvision(32)|resize_bilinear(28,28)"


def test_fewer_frames_and_masked_ones_are_the_same(frozen):
    """The public code takes two frames, or one; ours also four of which the others are not real."""
    model, wanted = frozen[1], outputs("frozen")

    @nnx.jit
    def masked(model, video, mask):
        return model.encode_video(video, mask=mask)

    for name, real in (("two", 2), ("picture", 1)):
        np.testing.assert_allclose(encode_video(model, wanted["pixels"][:, :real]), unit(wanted[name]), atol=ATOL)
        mask = np.tile(np.arange(4) < real, (2, 1))
        found = masked(model, wanted["pixels"], jnp.asarray(mask))
        np.testing.assert_allclose(found, unit(wanted[name]), atol=ATOL)


def test_the_table_is_read_both_ways(frozen, tmp_path):
    towers = {side: dict(tower) for side, tower in frozen[0].spec.towers.items()}
    rules = table(video=towers["video"], text=towers["text"], num_frames=4)
    written = to_tensors(frozen[0].params, rules=rules)
    read = load_file(source("frozen", tmp_path / "source") / "model.safetensors")
    assert {f"module.{key}": value.shape for key, value in written.items()} == {k: v.shape for k, v in read.items()}
    for key in ("video_model.blocks.1.timeattn.qkv.weight", "text_model.transformer.layer.0.attention.k_lin.bias"):
        np.testing.assert_array_equal(written[key], read[f"module.{key}"])


def test_a_new_tower_begins_as_an_image_transformer_whose_attention_over_time_adds_nothing():
    """Its values are 0, its output ones, as the public code has them, so that gradients reach the values at once."""
    sizes = {"image_size": 8, "num_frames": 3, "patch": 4, "width": 12, "depth": 1, "heads": 2, "form": "frozen"}
    tower = DividedTower(**sizes, rngs=nnx.Rngs(0))
    video = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8, 3), dtype=np.uint8)
    other = video.copy()
    other[:, 1] = 255 - other[:, 1]
    tokens, changed = (np.asarray(tower.tokens(jnp.asarray(v))[0]) for v in (video, other))
    np.testing.assert_array_equal(tokens[:, [0, 2]], changed[:, [0, 2]])
    assert np.abs(tokens[:, 1] - changed[:, 1]).max() > 1e-3
    grads = nnx.grad(lambda m: jnp.sum(m(jnp.asarray(video)) ** 2))(tower)
    for path, leaf in nnx.to_flat_state(nnx.state(grads, nnx.Param)):
        name = "/".join(map(str, path))
        assert sum(name == part or name.startswith(part + "/") for part in tower.layer_order()) == 1, name
        values = leaf[...][..., 12:18] if "time/qkv/kernel" in name else leaf[...]
        if "time" not in name or "qkv/kernel" in name:
            assert np.abs(values).max() > 0, name


def test_distilbert_alone_and_with_a_head(tmp_path):
    """The text model of the same file as a folder of transformers; CLS, then what the public projection adds."""
    folder = source("frozen", tmp_path / "source")
    read, wanted = load_file(folder / "model.safetensors"), outputs("frozen")
    start = "module.text_model."
    tensors = {f"distilbert.{k.removeprefix(start)}": v for k, v in read.items() if k.startswith(start)}
    tensors["vocab_transform.weight"] = np.zeros((24, 24), np.float32)
    save_file(tensors, folder / "model.safetensors")
    config = {"model_type": "distilbert", "vocab_size": 15, "dim": 24, "n_layers": 2, "n_heads": 4, "hidden_dim": 40}
    config |= {"max_position_embeddings": 16, "activation": "gelu", "sinusoidal_pos_embds": False}
    (folder / "config.json").write_text(json.dumps(config))
    made, model = converted_folder(folder)
    assert made.family == "distilbert" and "pooled with 'cls'" in made.notes[0] and made.spec.input.context_length == 16
    vector = np.maximum(model.text(wanted["ids"], mask=wanted["mask"]), 0)
    found = vector @ read["module.txt_proj.1.weight"].T + read["module.txt_proj.1.bias"]
    np.testing.assert_allclose(found, wanted["text"], rtol=1e-4, atol=1e-5)
    (folder / "config.json").write_text(json.dumps(config | {"sinusoidal_pos_embds": True}))
    with pytest.raises(UserError, match="sinusoidal_pos_embds"):
        convert(folder)


def converted_folder(folder):
    from public_models import model_of

    made = convert(folder)
    return made, model_of(made)


BAD = {
    r"hold 14 places, no square grid": {"module.video_model.pos_embed": np.ones((1, 15, 24), np.float32)},
    r"lacks module\.video_model\.norm\.bias": {"module.video_model.norm.bias": None},
    r"has module\.video_model\.head\.weight, which no model": {"module.video_model.head.weight": np.ones(3, "f")},
    r"module\.video_model\.patch_embed\.proj\.weight has the shape \(24,\)": {
        "module.video_model.patch_embed.proj.weight": np.ones(24, np.float32)
    },
    r"has BERT as its text model": {"module.text_model.encoder.layer.0.attention.self.query.weight": np.ones(3, "f")},
}


@pytest.mark.parametrize("message", BAD)
def test_damaged_files(message, tmp_path):
    folder = source("frozen", tmp_path / "source")
    tensors = load_file(folder / "model.safetensors") | BAD[message]
    save_file({key: value for key, value in tensors.items() if value is not None}, folder / "model.safetensors")
    with pytest.raises(UserError, match=message):
        convert(folder)


def test_other_refusals(tmp_path):
    folder = source("frozen", tmp_path / "source")
    (folder / "twinreel_config.json").write_text('{"head": 3}')
    with pytest.raises(UserError, match="heads"):
        convert(folder)
    shutil.copy(folder / "vocab.txt", tmp_path / "vocab.txt")
    (folder / "twinreel_config.json").write_text('{"heads": 3, "text_heads": 4}')
    (folder / "vocab.txt").write_text((tmp_path / "vocab.txt").read_text() + "more\nwords\n")
    with pytest.raises(UserError, match=r"has 17 ids, its text tower embeddings for 15"):
        convert(folder)
    (folder / "model.safetensors").rename(folder / "frozen.pth.tar")
    with pytest.raises(UserError, match=r"frozen\.pth\.tar is a pickle.*"):
        convert(folder)
