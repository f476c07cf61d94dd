"""CLIP, SigLIP, open_clip and PE-core: embeddings equal to those of the public code, on its own tiny models."""

import json

import numpy as np
import pytest
from public_models import converted, encode_text, encode_video, outputs, source, unit, up_to
from safetensors.numpy import load_file, save_file

from twinreel.base.errors import UserError
from twinreel.zoo.convert.clip import table as clip_table
from twinreel.zoo.convert.convert import convert, recognised
from twinreel.zoo.convert.files import find
from twinreel.zoo.convert.rules import to_tensors

ATOL = 1e-5  # of unit rows; the public code and ours differ by 5e-7

MODELS = {
    "clip/quick": "clip",
    "clip/exact": "clip",
    "siglip": "siglip",
    "open_clip/native": "open_clip",
    "open_clip/quick": "open_clip",
    "open_clip/siglip_exact": "open_clip",
    "open_clip/siglip_tanh": "open_clip",
    "open_clip/pe_core": "open_clip",
}


@pytest.mark.parametrize("name", MODELS)
def test_embeddings_are_those_of_the_public_code(name, tmp_path):
    made, model = converted(name, tmp_path / "source")
    wanted = outputs(name)
    assert made.family == MODELS[name]
    frames = wanted["pixels"]
    np.testing.assert_allclose(encode_video(model, frames[:, None]), unit(wanted["image"]), atol=ATOL)
    clip = frames[None]  # one clip of all pictures: the mean of their embeddings
    np.testing.assert_allclose(encode_video(model, clip)[0], unit(wanted["image"].mean(axis=0)), atol=ATOL)
    ids = wanted["ids"].astype(np.int32)
    mask = up_to(ids, end=1 if name == "siglip" else ids.max())
    np.testing.assert_allclose(encode_text(model, ids, mask), unit(wanted["text"]), atol=ATOL)
    if "big_image" in wanted:  # 48 x 40 pixels: interpolated positions
        np.testing.assert_allclose(encode_video(model, wanted["big"][:, None]), unit(wanted["big_image"]), atol=ATOL)


@pytest.mark.parametrize("form", ["cls", "g"])
def test_pe_core_under_its_own_names(form, tmp_path):
    made, model = converted(f"pe_core/{form}", tmp_path / "source")
    wanted = outputs(f"pe_core/{form}")
    assert made.family == "pe_core" and any("no tokenizer" in note for note in made.notes)
    video = wanted["frames"]  # [B,T,H,W,3]
    np.testing.assert_allclose(encode_video(model, video), unit(wanted["video_embeddings"]), atol=ATOL)
    other = wanted["other_size_images"][:, None]  # not square
    np.testing.assert_allclose(encode_video(model, other), unit(wanted["other_size_image_embeddings"]), atol=ATOL)
    tokens = model.video.image.tokens(video[:, 0])
    found = np.concatenate([tokens.leading, tokens.patches], axis=1)
    np.testing.assert_allclose(found, wanted["frame_tokens"], rtol=1e-3, atol=1e-4)
    ids = wanted["text_ids"].astype(np.int32)
    np.testing.assert_allclose(encode_text(model, ids, ids != 0), unit(wanted["text_embeddings"]), atol=ATOL)


def test_unit_frames_are_averaged_as_pe_core_does(tmp_path):
    _, model = converted("pe_core/cls", tmp_path / "source")
    wanted = outputs("pe_core/cls")
    model.video.unit_frames = True
    found = encode_video(model, wanted["frames"])
    np.testing.assert_allclose(found, unit(wanted["video_embeddings_frames_normalised_first"]), atol=ATOL)
    plain = unit(wanted["video_embeddings"])
    assert np.abs(found - plain).max() > 1e-3


def test_the_table_is_read_both_ways(tmp_path):
    """What export would write: a class token holds its position, everything else is as it was."""
    made, _ = converted("clip/exact", tmp_path / "source")
    towers = made.spec.towers
    rules = clip_table(image=dict(towers["video"]["image"]), text=dict(towers["text"]))
    written, read = to_tensors(made.params, rules=rules), load_file(tmp_path / "source" / "model.safetensors")
    moved = {f"vision_model.embeddings.{name}" for name in ("class_embedding", "position_embedding.weight")}
    assert written.keys() == {key for key in read if not key.endswith("position_ids")}
    for key in written.keys() - moved:
        np.testing.assert_array_equal(written[key], read[key], err_msg=key)
    token, position = (f"vision_model.embeddings.{name}" for name in ("class_embedding", "position_embedding.weight"))
    np.testing.assert_allclose(written[token] + written[position][0], read[token] + read[position][0], rtol=1e-6)
    np.testing.assert_array_equal(written[position][1:], read[position][1:])


def test_spec_holds_all_of_the_input(tmp_path):
    made, _ = converted("clip/quick", tmp_path / "source")
    given = made.spec.input
    assert given.eval_video == "resize_short_bicubic(32)|center_crop(32)" and given.context_length == 16
    np.testing.assert_allclose(given.pixel_mean, (0.48145466, 0.4578275, 0.40821073), rtol=1e-6)
    assert made.spec.origin["family"] == "clip" and len(made.spec.origin["sha256"]) == 64
    assert made.spec.tokenizer["kind"] == "tokenizers"
    assert converted("siglip", tmp_path / "siglip")[0].spec.input.text == "canonicalize"


def change(folder, **values):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for key, value in values.items():
        part = config
        *sections, last = key.split("__")
        for section in sections:
            part = part[section]
        part[last] = value
    path.write_text(json.dumps(config))


BAD_CONFIGS = {
    "activation": ({"vision_config__hidden_act": "mish"}, "hidden_act.*'mish'.*known|hidden_act.*mish"),
    "depth": ({"text_config__num_hidden_layers": 3}, r"text/blocks/layers/.*\(2, .*\(3, "),
    "width": ({"vision_config__intermediate_size": 48}, r"video/image/blocks/layers/up/kernel.*\(3, 24, 40\).*48"),
    "heads": (
        {"vision_config__num_attention_heads": 5},
        r"does not have the shape that the config describes|width=24 must divide by heads=5",
    ),
    "family": ({"model_type": "blip"}, "no family that twinreel reads.*blip"),
    "missing": ({"vision_config__hidden_size": None}, "lacks 'hidden_size'"),
}


@pytest.mark.parametrize("case", BAD_CONFIGS)
def test_a_config_that_contradicts_the_weights(case, tmp_path):
    values, message = BAD_CONFIGS[case]
    folder = source("clip/quick", tmp_path / "source")
    change(folder, **values)
    with pytest.raises(UserError, match=f"(?s){message}"):
        convert(folder)


def test_missing_and_additional_tensors(tmp_path):
    folder = source("clip/quick", tmp_path / "source")
    tensors = load_file(folder / "model.safetensors")
    gone = tensors.pop("visual_projection.weight")
    save_file({**tensors, "lora_A.weight": gone}, folder / "model.safetensors")
    with pytest.raises(UserError, match=r"lacks visual_projection\.weight and has lora_A\.weight"):
        convert(folder)


def test_wrong_family_and_no_family(tmp_path):
    files = find(source("siglip", tmp_path / "source"))
    with pytest.raises(UserError, match=r"not of the family 'clip'.*siglip"):
        recognised(files, family="clip")
    with pytest.raises(UserError, match=r"--family.*'clp'.*clip"):
        recognised(files, family="clp")


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        ("vision_cfg", {"attentional_pool": True}, r"vision_cfg\.attentional_pool=True"),
        ("vision_cfg", {"layers": [3, 4, 6, 3]}, r"lacks visual\.attnpool"),
        ("vision_cfg", {"timm_model_name": "convnext_base"}, "convnext_base"),
        ("vision_cfg", {"act_kwargs": {"slope": 1}}, "act_kwargs"),
        ("text_cfg", {"hf_model_name": "roberta-base"}, r"text_cfg\.hf_model_name='roberta-base'"),
        ("text_cfg", {"pool_type": "mean"}, "pool_type='mean'"),
    ],
)
def test_open_clip_settings_that_are_not_known(part, values, message, tmp_path):
    folder = source("open_clip/native", tmp_path / "source")
    path = folder / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["model_cfg"][part] |= values
    path.write_text(json.dumps(config))
    with pytest.raises(UserError, match=message):
        convert(folder)
