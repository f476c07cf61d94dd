"""Processor files of transformers: which are read, how they become operations, and that they may not contradict."""

import json

import numpy as np
import pytest
from public_models import source

from twinreel.base.errors import UserError
from twinreel.zoo.convert.convert import convert
from twinreel.zoo.convert.files import SourceFiles
from twinreel.zoo.convert.processor import SOUND, PixelDefaults, pixel_fields, settings

OLD, VIDEO, WHOLE = "preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json"
CLIP = PixelDefaults(size=32, short=32, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))


def folder(path, **files):
    """Write JSON files: `old`, `video` and `whole`."""
    for name, value in files.items():
        (path / {"old": OLD, "video": VIDEO, "whole": WHOLE}[name]).write_text(json.dumps(value))
    return SourceFiles(name="the model", folder=path)


CASES = {
    "none": ({}, "resize_short_bicubic(32)|center_crop(32)", 0.1, 0.4),
    "short": ({"size": {"shortest_edge": 36}}, "resize_short_bicubic(36)|center_crop(32)", 0.1, 0.4),
    "number": ({"size": 40, "crop_size": 32}, "resize_short_bicubic(40)|center_crop(32)", 0.1, 0.4),
    "squash": ({"size": {"height": 32, "width": 32}, "resample": 2}, "resize_bilinear(32,32)", 0.1, 0.4),
    "both": (
        {"size": {"height": 40, "width": 50}, "crop_size": {"height": 32, "width": 32}},
        *("resize_bicubic(40,50)|center_crop(32)", 0.1, 0.4),
    ),
    "crop alone": ({"do_resize": False}, "center_crop(32)", 0.1, 0.4),
    "named filter": ({"resample": "bilinear"}, "resize_short_bilinear(32)|center_crop(32)", 0.1, 0.4),
    "one number": ({"image_mean": 0.5, "image_std": 0.25}, "resize_short_bicubic(32)|center_crop(32)", 0.5, 0.25),
    "raw": ({"do_normalize": False}, "resize_short_bicubic(32)|center_crop(32)", 0.0, 1.0),
    "other scale": ({"rescale_factor": 2 / 255}, "resize_short_bicubic(32)|center_crop(32)", 0.05, 0.2),
    "offset": ({"offset": True, "rescale_factor": 1 / 127.5}, "resize_short_bicubic(32)|center_crop(32)", 0.55, 0.2),
}


@pytest.mark.parametrize("where", ["old", "video", "image_processor", "video_processor"])
@pytest.mark.parametrize("case", CASES)
def test_each_file_is_read(case, where, tmp_path):
    given, resizing, mean, std = CASES[case]
    files = {where: given} if where in ("old", "video") else {"whole": {where: given, "processor_class": "P"}}
    found = pixel_fields(folder(tmp_path, **files), defaults=CLIP)
    assert found["eval_video"] == resizing
    np.testing.assert_allclose([found["pixel_mean"][0], found["pixel_std"][0]], [mean, std], rtol=1e-6)


def test_files_that_agree_in_other_words(tmp_path):
    """Sizes as numbers or by name, filters by number or name, rounded factors."""
    files = folder(
        tmp_path,
        old={"size": 36, "resample": 3, "crop_size": 32, "rescale_factor": 1 / 255, "processor_class": "A"},
        video={"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}, "processor_class": "B"},
        whole={"image_processor": {"resample": "bicubic", "rescale_factor": 0.00392156862745098}},
    )
    assert pixel_fields(files, defaults=CLIP)["eval_video"] == "resize_short_bicubic(36)|center_crop(32)"


@pytest.mark.parametrize(
    ("key", "one", "other"),
    [
        ("size", {"shortest_edge": 36}, {"height": 36, "width": 36}),
        ("resample", 2, 3),
        ("image_mean", [0.5, 0.5, 0.5], [0.5, 0.5, 0.4]),
        ("do_normalize", True, False),
        ("rescale_factor", 1 / 255, 1 / 127.5),
        ("crop_size", 32, {"height": 30, "width": 30}),
    ],
)
def test_files_that_contradict_each_other(key, one, other, tmp_path):
    for files in (
        {"old": {key: one}, "video": {key: other}},
        {"old": {key: one}, "whole": {"image_processor": {key: other}}},
        {"whole": {"image_processor": {key: one}, "video_processor": {key: other}}},
    ):
        path = tmp_path / str(len(list(tmp_path.iterdir())))
        path.mkdir()
        with pytest.raises(UserError, match=rf"{key} is .*_(config|processor).* and .* contradict each other"):
            pixel_fields(folder(path, **files), defaults=CLIP)


def test_sound_has_a_section_of_its_own(tmp_path):
    files = folder(tmp_path, whole={"feature_extractor": {"std": 2.0}, "image_processor": {"std": 3.0}})
    assert settings(files, sections=SOUND) == {"std": 2.0}
    files = folder(tmp_path, old={"std": 4.0})
    with pytest.raises(UserError, match=r"std is 2\.0 in processor_config\.json \(feature_extractor\) and 4\.0"):
        settings(files, sections=SOUND)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"do_rescale": False}, "do_rescale=false"),
        ({"do_flip_channel_order": True}, "do_flip_channel_order"),
        ({"resample": 1}, "resample.*'1'"),
        ({"size": {"longest_edge": 40}}, "longest_edge.*shortest_edge alone"),
        ({"size": {"shortest_edge": 32, "longest_edge": 40}}, "wanted height and width, or"),
        ({"crop_size": {"height": 32, "width": 30}}, "one side of a square"),
        ({"crop_size": 30}, "pictures of 30 x 30 pixels, config.json has image_size=32"),
        ({"do_center_crop": False}, "pictures of any size"),
    ],
)
def test_what_is_refused(given, message, tmp_path):
    with pytest.raises(UserError, match=message):
        pixel_fields(folder(tmp_path, old=given), defaults=CLIP)


def changed(folder, file, **values):
    """Change values of a JSON file, inside `preprocess_cfg` and `pretrained_cfg` where there are such."""
    path = folder / file
    config = json.loads(path.read_text()) if path.exists() else {}
    inner = next((config[key] for key in ("preprocess_cfg", "pretrained_cfg") if key in config), config)
    inner.update(values)
    path.write_text(json.dumps(config))
    return folder


RESNETS = {
    "older files": ({"size": 224}, "resize_short_bicubic(256)|center_crop(224)"),
    "share": ({"size": {"shortest_edge": 224}, "crop_pct": 0.95}, "resize_short_bicubic(235)|center_crop(224)"),
    "from 384 on": ({"size": {"shortest_edge": 384}, "resample": 2}, "resize_bilinear(384,384)"),
}


@pytest.mark.parametrize("case", RESNETS)
def test_resnets_have_the_processor_of_convnext(case, tmp_path):
    given, resizing = RESNETS[case]
    files = changed(source("resnet/hf", tmp_path / "model"), OLD, **given)
    assert convert(files).spec.input.eval_video == resizing


@pytest.mark.parametrize(
    ("name", "file", "values", "message"),
    [
        ("resnet/hf", OLD, {"size": {"height": 224, "width": 224}}, "ConvNextImageProcessor"),
        ("resnet/hf", OLD, {"do_center_crop": True}, "do_center_crop=True"),
        ("resnet/timm", "config.json", {"crop_mode": "border"}, "crop_mode.*'border'"),
        ("open_clip/native", "open_clip_config.json", {"resize_mode": "longest"}, "resize_mode.*'longest'"),
        ("open_clip/native", "open_clip_config.json", {"interpolation": "lanczos"}, "interpolation.*'lanczos'"),
        ("open_clip/native", "open_clip_config.json", {"size": 40}, "size=40 and vision_cfg.image_size=32"),
        ("siglip2", OLD, {"patch_size": 16}, "patch_size is 16 in its processor's file and 8 in config.json"),
        ("siglip2", OLD, {"resample": 3}, "resample.*'bicubic'"),
        ("videoprism/hf_lvt", VIDEO, {"size": {"height": 20, "width": 20}}, "pictures of 20 x 20 pixels"),
        ("clip/quick", VIDEO, {"image_mean": [0.5, 0.5, 0.5]}, "image_mean is .* contradict each other"),
    ],
)
def test_models_whose_files_contradict_or_ask_for_more(name, file, values, message, tmp_path):
    with pytest.raises(UserError, match=message):
        convert(changed(source(name, tmp_path / "model"), file, **values))
