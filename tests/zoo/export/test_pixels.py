"""Processor files: what `eval_video` says, in the words of transformers and open_clip."""

import dataclasses

import pytest
from exported_models import clip_spec

from twinreel.zoo.export.pixels import Resizing, clip_processor, open_clip_pixels, resizing, siglip_processor


def spec_of(eval_video):
    spec = clip_spec()
    return spec.replace(input=dataclasses.replace(spec.input, eval_video=eval_video))


@pytest.mark.parametrize(
    ("declared", "wanted"),
    [
        ("resize_short_bicubic(224)|center_crop(224)", Resizing(method="bicubic", size=(224, 224), crop=224)),
        ("resize_short_bilinear(256)|center_crop(224)", Resizing(method="bilinear", size=(256, 256), crop=224)),
        ("resize_bicubic(32, 48)", Resizing(method="bicubic", size=(32, 48))),
        ("resize_bilinear(32)", Resizing(method="bilinear", size=(32, 32))),
        ("resize_short(256)|center_crop(224)", Resizing(method="bilinear", size=(256, 256), crop=224, exact=False)),
        ("center_crop(48)", Resizing(method="bilinear", size=(48, 48), exact=False)),
        ("resize(64)", Resizing(method="bilinear", size=(16, 16), exact=False)),
    ],
)
def test_declarations(declared, wanted):
    assert resizing(spec_of(declared).input, size=16) == wanted


def test_clip_crops_or_squashes():
    crop = clip_processor(spec_of("resize_short_bicubic(256)|center_crop(224)"), size=224)
    assert crop.file["size"] == {"shortest_edge": 256} and crop.file["crop_size"] == {"height": 224, "width": 224}
    assert crop.file["do_center_crop"] and crop.file["resample"] == 3 and not crop.notes
    assert crop.file["image_mean"] == [0.4, 0.5, 0.6] and crop.file["image_std"] == [0.2, 0.3, 0.25]
    squash = clip_processor(spec_of("resize_bilinear(32, 32)"), size=32)
    assert squash.file["size"] == {"height": 32, "width": 32} and not squash.file["do_center_crop"]
    assert squash.file["resample"] == 2


def test_what_a_processor_cannot_do_is_said():
    (note,) = siglip_processor(spec_of("resize_short_bicubic(32)|center_crop(32)"), size=32).notes
    assert "'resize_short_bicubic(32)|center_crop(32)'" in note and "nearest" in note
    assert clip_processor(spec_of("center_crop(48)"), size=48).notes
    assert open_clip_pixels(spec_of("resize_short_bicubic(256)|center_crop(224)"), size=224).notes
    given = "resize_short_bicubic(224)|center_crop(224)"  # whose crop may lie a pixel beside that of open_clip
    assert open_clip_pixels(spec_of(given), size=224).notes and not clip_processor(spec_of(given), size=224).notes
    given = given.replace("center_crop", "center_crop_torchvision")
    assert clip_processor(spec_of(given), size=224).notes
    exact = open_clip_pixels(spec_of(given), size=224)
    assert not exact.notes and exact.file["resize_mode"] == "shortest" and exact.file["size"] == 224
