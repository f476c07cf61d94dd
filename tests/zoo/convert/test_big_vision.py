"""SigLIP in big_vision's npz, and the NaFlex form of SigLIP 2: equal to transformers on tiny models."""

import json
import shutil

import numpy as np
import pytest
import tokenizers
from flax import nnx
from public_models import GOLDEN, converted, encode_text, encode_video, model_of, outputs, source, unit, up_to
from safetensors.numpy import load_file
from scipy.ndimage import zoom

from twinreel.base.errors import UserError
from twinreel.models.towers.vit import ImageTower
from twinreel.zoo.convert import big_vision
from twinreel.zoo.convert.convert import convert
from twinreel.zoo.convert.rules import to_tensors
from twinreel.zoo.convert.siglip import table as siglip_table

ATOL = 1e-5  # of unit rows; transformers and ours differ by 5e-7


def arrays():
    with np.load(GOLDEN / "big_vision" / "siglip.npz") as file:
        return {key: file[key] for key in file.files}


def written(folder, values):
    folder.mkdir()
    np.savez(folder / "siglip.npz", **values)
    return folder


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    made = convert(source("big_vision", tmp_path_factory.mktemp("npz") / "source"))
    return made, model_of(made)


def test_the_npz_gives_the_numbers_of_transformers(npz):
    made, model = npz
    wanted = outputs("siglip")
    assert made.family == "big_vision"
    np.testing.assert_allclose(encode_video(model, wanted["pixels"][:, None]), unit(wanted["image"]), atol=ATOL)
    ids = wanted["ids"].astype(np.int32)
    np.testing.assert_allclose(encode_text(model, ids, up_to(ids, end=1)), unit(wanted["text"]), atol=ATOL)


def scanned(values):
    """Stack the layers of each tower, as big_vision's `scan=True` writes them; without the level `params/`."""
    made = {}
    for key, value in values.items():
        before, mark, rest = key.removeprefix("params/").partition("/encoderblock_")
        if not mark:
            made[before] = value
            continue
        number, _, name = rest.partition("/")
        made.setdefault(f"{before}/encoderblock/{name}", {})[int(number)] = value
    return {
        key: np.stack([value[i] for i in range(len(value))]) if isinstance(value, dict) else value
        for key, value in made.items()
    }


def test_scanned_layers_are_the_same_model(npz, tmp_path):
    made, _ = npz
    other = convert(written(tmp_path / "scanned", scanned(arrays())))
    assert other.spec.towers == made.spec.towers and other.params.keys() == made.params.keys()
    for path, value in made.params.items():
        np.testing.assert_array_equal(other.params[path], value, err_msg=path)


@pytest.mark.parametrize("stacked", [False, True])
def test_the_table_of_the_npz_is_read_both_ways(stacked, tmp_path):
    values = scanned(arrays()) if stacked else arrays()
    made = convert(written(tmp_path / "source", values))
    towers, start = made.spec.towers, "" if stacked else "params/"
    shapes = {side: values[f"{start}{side}/pos_embedding"].shape for side in ("img", "txt")}
    given = {"image": towers["video"]["image"], "text": towers["text"], "shapes": shapes}
    found = to_tensors(made.params, rules=big_vision.table(**given, naflex=False, scanned=stacked))
    assert {f"{start}{key}" for key in found} == values.keys()
    for key, value in found.items():
        np.testing.assert_array_equal(value, values[f"{start}{key}"], err_msg=key)


def test_positions_of_the_npz_are_zoomed_as_big_vision_does(npz):
    """`scipy.ndimage.zoom` of order 1, with which big_vision resizes them."""
    made, model = npz
    table = made.params["video/image/space_position"]
    grid = table.reshape(4, 4, -1)
    wanted = zoom(grid, (6 / 4, 5 / 4, 1), order=1).reshape(30, -1)
    found = model.video.image._positions(6, 5)
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_spec_of_the_npz(npz, tmp_path):
    made, _ = npz
    given = made.spec.input
    assert (
        given.text == "canonicalize" and given.context_length == 12 and given.eval_video == "resize_tensorflow(32,32)"
    )
    assert made.spec.tokenizer == {} and made.spec.origin["licence"] == "Apache-2.0"
    folder = source("big_vision", tmp_path / "source")
    shutil.copy(GOLDEN / "siglip" / "spiece.model", folder / "sentencepiece.model")
    meta = convert(folder).spec.tokenizer
    assert (meta["kind"], meta["add_bos"], meta["add_eos"], meta["pad_id"]) == ("sentencepiece", False, True, 1)


def test_an_npz_of_the_naflex_form(npz, tmp_path):
    """A flat patch embedding and a grid of positions: the same on the grid, other positions elsewhere."""
    values = arrays()
    kernel, positions = values["params/img/embedding/kernel"], values["params/img/pos_embedding"]
    values["params/img/embedding/kernel"] = kernel.reshape(-1, kernel.shape[-1])
    values["params/img/pos_embedding"] = positions.reshape(4, 4, -1)
    made = convert(written(tmp_path / "source", values))
    for path, value in npz[0].params.items():
        np.testing.assert_array_equal(made.params[path], value, err_msg=path)
    assert made.spec.towers["video"]["image"]["position_antialias"]
    assert made.spec.input.eval_video == "naflex(16,8)"


def test_naflex_of_transformers(tmp_path):
    made, model = converted("siglip2", tmp_path / "source")
    wanted = outputs("siglip2")
    assert made.family == "siglip"
    for name in ("pixels", "wide", "large", "small"):  # positions resized to each, with antialiasing
        image = wanted["image" if name == "pixels" else f"{name}_image"]
        np.testing.assert_allclose(encode_video(model, wanted[name][:, None]), unit(image), atol=ATOL, err_msg=name)
    ids = wanted["ids"].astype(np.int32)
    np.testing.assert_allclose(encode_text(model, ids, ids >= 0), unit(wanted["text"]), atol=ATOL)
    towers = made.spec.towers
    rules = siglip_table(image=dict(towers["video"]["image"]), text=dict(towers["text"]), naflex=True)
    tensors, read = to_tensors(made.params, rules=rules), load_file(tmp_path / "source" / "model.safetensors")
    assert tensors.keys() == {key for key in read if not key.endswith("position_ids")}
    for key, value in tensors.items():
        np.testing.assert_array_equal(value, read[key], err_msg=key)


def test_naflex_positions_that_are_no_square(tmp_path):
    folder = source("siglip2", tmp_path / "source")
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["num_patches"] = 15
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"num_patches.* 15 places, no square"):
        convert(folder)


@pytest.mark.parametrize("file", ["tokenizer_config.json", "tokenizer.json"])
def test_a_tokenizer_that_pads_on_the_left_is_noted(file, tmp_path):
    folder = source("siglip", tmp_path / "source")
    assert convert(folder).notes == ()
    about = json.loads((folder / "tokenizer_config.json").read_text())
    if file == "tokenizer.json":
        made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "</s>": 1}, unk_token="a"))
        ends = [("</s>", 1)]
        made.post_processor = tokenizers.processors.TemplateProcessing(single="$A </s>", special_tokens=ends)
        made.enable_padding(direction="left", pad_id=1, pad_token="</s>")
        made.save(str(folder / file))
    else:
        (folder / file).write_text(json.dumps(about | {"padding_side": "left"}))
    assert any("padded on the left" in note for note in convert(folder).notes)


BAD = {
    "lacks params/img/MAPHead_0/LayerNorm_0/bias": {"params/img/MAPHead_0/LayerNorm_0/bias": None},
    "lacks params/img/embedding/kernel": {"params/img/embedding/kernel": None},
    "lacks params/txt/pos_embedding": {"params/txt/pos_embedding": None},
    "has params/img/head/kernel, which no model": {"params/img/head/kernel": np.ones((24, 3), np.float32)},
    "params/txt/Embed_0/embedding has the shape": {"params/txt/Embed_0/embedding": np.ones(3, np.float32)},
    r"pixels of a patch hold 3 places, no square": {"params/img/embedding/kernel": np.ones((9, 24), np.float32)},
    r"embed/out/kernel.*\(192, 23\).*\(192, 24\)": {"params/img/embedding/kernel": np.ones((8, 8, 3, 23), np.float32)},
    "no common space": {"params/txt/head/bias": np.ones(20, np.float32)},
}


@pytest.mark.parametrize("message", BAD)
def test_damaged_arrays(message, tmp_path):
    values = arrays() | BAD[message]
    with pytest.raises(UserError, match=f"(?s){message}"):
        convert(written(tmp_path / "source", {key: value for key, value in values.items() if value is not None}))


def test_a_tokenizer_of_another_model(tmp_path):
    values = arrays()
    values["params/txt/Embed_0/embedding"] = values["params/txt/Embed_0/embedding"][:20]
    folder = written(tmp_path / "source", values)
    shutil.copy(GOLDEN / "siglip" / "spiece.model", folder / "c4_en.model")
    with pytest.raises(UserError, match="belongs to another model"):
        convert(folder)


def test_antialiasing_excludes_aligned_corners():
    sizes = {"image_size": 16, "patch": 8, "width": 8, "depth": 1, "heads": 1}
    with pytest.raises(UserError, match=r"position_antialias=True needs.*position_align_corners=False"):
        ImageTower(**sizes, position_antialias=True, position_align_corners=True, rngs=nnx.Rngs(0))
