"""S3D of MIL-NCE and R(2+1)D: equal to their public code on tiny models."""

import json

import numpy as np
import pytest
from flax import nnx
from public_models import converted, encode_text, outputs, source, unit
from safetensors.numpy import load_file, save_file

from twinreel.base.errors import UserError
from twinreel.data.text.clean import text_cleaner
from twinreel.data.text.tokenizer import tokenizer_from_meta
from twinreel.zoo.convert import r2plus1d, s3d
from twinreel.zoo.convert.convert import convert
from twinreel.zoo.convert.rules import to_tensors

ATOL = 1e-5  # of unit rows; the public code and ours differ by 2e-6


@pytest.fixture(scope="module")
def milnce(tmp_path_factory):
    return converted("s3d", tmp_path_factory.mktemp("s3d") / "source")


def test_embeddings_of_s3d(milnce):
    made, model = milnce
    wanted = outputs("s3d")
    both = nnx.jit(lambda model, video: (model.video(video), model.encode_video(video)))
    pooled, embedding = both(model, wanted["frames"])
    largest = np.abs(wanted["mixed_5c_mean"]).max()
    np.testing.assert_allclose(pooled, wanted["mixed_5c_mean"], atol=1e-4 * largest)
    np.testing.assert_allclose(embedding, unit(wanted["video_embedding"]), atol=ATOL)
    assert made.family == "s3d" and made.notes == ()


def test_texts_of_s3d(milnce):
    """From strings: words in lower case, unknown ones skipped, the rest cut or padded."""
    made, model = milnce
    wanted, given = outputs("s3d"), made.spec.input
    clean, tokenizer = text_cleaner(given.text), tokenizer_from_meta(made.spec.tokenizer)
    texts = [clean(str(text)) for text in wanted["texts"]]
    ids, mask, _ = tokenizer.encode(texts, context_length=given.context_length)
    np.testing.assert_array_equal(ids, wanted["text_ids"])
    np.testing.assert_allclose(encode_text(model, ids, mask), unit(wanted["text_embedding"]), atol=ATOL)


def test_spec_of_s3d(milnce):
    given = milnce[0].spec.input
    assert (given.num_frames, given.context_length, given.pixel_std) == (32, 6, (1.0, 1.0, 1.0))
    assert milnce[0].spec.projections == {"video": "affine", "text": "affine"}


def test_r2plus1d(tmp_path):
    made, model = converted("r2plus1d", tmp_path / "source")
    wanted = outputs("r2plus1d")
    tokens = nnx.jit(lambda tower, video: tower.tokens(video)[0])
    for name in ("video", "odd", "image"):  # of other times and sides, and of a single frame
        maps = wanted[f"{name}_maps"]
        np.testing.assert_allclose(tokens(model.video, wanted[name]), maps.reshape(2, maps.shape[1], -1, 16), atol=1e-5)
    assert (
        made.spec.embed_dim is None
        and made.spec.input.eval_video == "resize_linear(128,171)|center_crop_torchvision(112)"
    )
    video = made.spec.towers["video"]
    assert (video["stem"], video["widths"], video["depths"]) == ([5, 8], [8, 8, 12, 16], [2, 1, 2, 1])


@pytest.mark.parametrize("name", ["s3d", "r2plus1d"])
def test_the_tables_are_read_both_ways(name, tmp_path):
    made = convert(source(name, tmp_path / "source"))
    rules = s3d.table() if name == "s3d" else r2plus1d.table(video=dict(made.spec.towers["video"]))
    written, read = to_tensors(made.params, rules=rules), load_file(tmp_path / "source" / "model.safetensors")
    left_out = {key for key in read if key.endswith("num_batches_tracked") or (name == "r2plus1d" and key[:3] == "fc.")}
    assert written.keys() == read.keys() - left_out
    for key, value in written.items():
        np.testing.assert_array_equal(value, read[key], err_msg=key)


def without(name):
    return lambda tensors: tensors.pop(name)


BAD = {
    "lacks mixed_4d.gating_b2.fc.bias": ("s3d", without("mixed_4d.gating_b2.fc.bias")),
    "lacks conv_2c.conv1.weight": ("s3d", without("conv_2c.conv1.weight")),
    "has extra": ("s3d", lambda tensors: tensors.update(extra=np.ones(2, np.float32))),
    r"video/conv1/conv/kernel.*\(2, 4, 4, 3, 8\).*\(2, 4, 4, 24, 8\)": (
        "s3d",  # a network without space-to-depth
        lambda tensors: tensors.update({"conv1.conv1.weight": np.ones((8, 3, 2, 4, 4), np.float32)}),
    ),
    "conv1.conv1.weight has the shape": (
        "s3d",
        lambda tensors: tensors.update({"conv1.conv1.weight": np.ones((8, 24), np.float32)}),
    ),
    "lacks layer2.0.downsample.1.running_var": ("r2plus1d", without("layer2.0.downsample.1.running_var")),
    "lacks layer3.1.conv2.0.0.weight": ("r2plus1d", without("layer3.1.conv2.0.0.weight")),
}


@pytest.mark.parametrize("message", BAD)
def test_damaged_weights(message, tmp_path):
    name, change = BAD[message]
    path = source(name, tmp_path / "source") / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    with pytest.raises(UserError, match=f"(?s){message}"):
        convert(path.parent)


def test_lists_of_words_that_do_not_fit(tmp_path):
    folder = source("s3d", tmp_path / "source")
    words = np.load(folder / "s3d_dict.npy")
    np.save(folder / "s3d_dict.npy", np.concatenate([words, ["another"]]))
    with pytest.raises(UserError, match=r"wanted fewer than 21 words"):
        convert(folder)
    (folder / "s3d_dict.npy").write_bytes(b"\x93NUMPY nothing")
    with pytest.raises(UserError, match="no plain array of words"):
        convert(folder)
    (folder / "s3d_dict.npy").unlink()
    made = convert(folder)
    assert made.spec.tokenizer == {} and any("no tokenizer" in note for note in made.notes)
    (folder / "twinreel_config.json").write_text(json.dumps({"max_word": 6}))
    with pytest.raises(UserError, match="max_word"):
        convert(folder)
