"""Which models a public format holds: the arguments decide, and each one that does not fit is named. No compiling."""

import dataclasses

import pytest
from exported_models import clip_spec
from public_models import source

from twinreel.base.errors import UserError
from twinreel.engine.keeping.transfer import shapes
from twinreel.zoo.build import abstract
from twinreel.zoo.convert.convert import convert
from twinreel.zoo.convert.open_clip_timm import PE_CORE, SIGLIP
from twinreel.zoo.export.form import arguments, canonical, differences
from twinreel.zoo.export.layouts import fitting
from twinreel.zoo.export.public import WRITERS


def layout(spec, *, format="hf"):
    params = shapes(abstract(spec))
    own, values = canonical(spec, params=params)
    return fitting(own, params=values, writers=WRITERS[format], format=format)


def test_a_model_of_our_own_making_is_clip():
    made, others = layout(clip_spec())
    assert made.family == "clip" and not others
    config = made.files["config.json"]
    assert config["projection_dim"] == 8 and config["vision_config"]["hidden_size"] == 16
    assert config["vision_config"]["intermediate_size"] == 32  # mlp_ratio 2
    assert config["vision_config"]["hidden_act"] == "gelu_pytorch_tanh" and config["text_config"]["eos_token_id"] == 2
    assert config["text_config"]["bos_token_id"] == 518


@pytest.mark.parametrize("format", ["hf", "open_clip"])
@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (
            {"video": {"over_time": "transformer", "heads": 2}},
            r"config\.model\.video\.over_time is 'transformer'.*'mean'",
        ),
        ({"video": {"unit_frames": True}}, r"config\.model\.video\.unit_frames is True"),
        ({"image": {"registers": 2}}, r"config\.model\.video\.image\.registers is 2, the format has 0"),
        ({"image": {"pre_norm": False}}, r"video\.image\.pre_norm is False, the format has True"),
        ({"image": {"activation": "squared_relu"}}, r"video\.image\.activation is 'squared_relu'"),
        ({"image": {"pool": "mean"}}, r"video\.image\.pool is 'mean', the format has 'cls'"),
        ({"image": {"block": {"layer_scale": 0.1}}}, r"video\.image\.block\.layer_scale is True, the format has False"),
        ({"image": {"block": {"qk_norm": "head"}}}, r"block\.qk_norm is 'head', the format has 'none'"),
        ({"text": {"causal": False}}, r"config\.model\.text\.(causal is False|padding_seen)"),
        ({"text": {"pool": "attention"}}, r"config\.model\.text\.pool is 'attention'"),
        ({"text": {"positions": 6, "stretch_positions": True}}, r"text\.stretch_positions is True"),
        (
            {"text": {"position": "sinusoids"}},
            r"config\.model\.text\.position is 'sinusoids', the format has 'learned'",
        ),
        ({"projections": {"text": "norm_affine"}}, r"config\.model\.projections\.text is 'norm_affine'"),
    ],
)
def test_every_field_that_does_not_fit_is_named(changes, named, format):
    with pytest.raises(UserError, match=rf"(?s)format '{format}' cannot hold this model.*{named}.*stablehlo"):
        layout(clip_spec(**changes), format=format)


@pytest.mark.parametrize(
    "changes",
    [
        {"image": {"dropout": 0.1, "patch_dropout": 0.5, "dtype": "bfloat16"}},
        {"text": {"dropout": 0.1, "block": {"drop_path": 0.1}}},
        {"text": {"padding_seen": True}},  # causal, so padding is never seen
        {"image": {"projection": 8}, "projections": {"video": "none"}},
        {"initial_scale": 40.0},
        {"video": {"features": "clip"}},
        {"text": {"positions": 30}},
    ],
)
def test_what_changes_no_embedding_fits(changes):
    assert layout(clip_spec(**changes))[0].family == "clip"


def test_other_kinds_of_towers_are_named():
    spec = clip_spec()
    own = {"image_size": 16, "patch": 8, "width": 16, "depth": 1, "heads": 2, "temporal_depth": 1}
    own = spec.replace(towers={**spec.towers, "video": {"family": "vivit", **own}})
    with pytest.raises(UserError, match=r"no model with config\.model\.video\.family='vivit'.*stablehlo"):
        layout(own)
    headed = clip_spec(heads={"classify": {"kind": "linear", "labels": ["a", "b"]}}, embed_dim=None)
    headed = headed.replace(towers={"video": headed.towers["video"]})
    with pytest.raises(UserError, match="has the head classify"):
        fitting(headed, params={}, writers=WRITERS["hf"], format="hf")


def test_a_model_with_sound_does_not_fit():
    sound = {"family": "ast", "width": 16, "depth": 1, "heads": 2}
    given = dataclasses.replace(clip_spec().input, audio_seconds=1.0)
    spec = clip_spec(input=given)
    spec = spec.replace(towers={**spec.towers, "audio": sound})
    with pytest.raises(UserError, match=r"config\.model\.audio is True, the format has False"):
        layout(spec)


def test_the_weights_origin_does_not_decide(tmp_path):
    spec = convert(source("siglip", tmp_path / "siglip")).spec
    assert layout(spec.replace(origin={"made_by": "pretrain"}))[0].family == "siglip"
    assert layout(clip_spec(origin={"family": "siglip", "made_by": "convert"}))[0].family == "clip"


def test_siglip_of_open_clip_is_named_by_its_sizes(tmp_path, monkeypatch):
    spec = convert(source("open_clip/siglip_exact", tmp_path / "tiny")).spec
    with pytest.raises(UserError, match=r"patch=8, width=24.*timm's nearest model \w+ has patch=(16|32), width=768"):
        layout(spec, format="open_clip")
    tiny = {"patch": 8, "width": 24, "depth": 2, "heads": 3, "activation": "gelu_exact"}
    monkeypatch.setitem(SIGLIP, "vit_tiny_patch8_siglip_32", tiny)
    made, others = layout(spec, format="open_clip")
    assert (
        made.files["open_clip_config.json"]["model_cfg"]["vision_cfg"]["timm_model_name"] == "vit_tiny_patch8_siglip_32"
    )
    assert made.files["open_clip_config.json"]["model_cfg"]["init_logit_bias"] == -10.0 and not others


def test_pe_core_of_open_clip(tmp_path, monkeypatch):
    spec = convert(source("open_clip/pe_core", tmp_path / "tiny")).spec
    tiny = {"patch": 8, "width": 48, "depth": 2, "heads": 3, "pool_heads": 4}
    monkeypatch.setitem(PE_CORE, "vit_pe_core_nano_patch8_32", tiny)
    made, _ = layout(spec, format="open_clip")
    assert made.title == "open_clip with timm's vit_pe_core_nano_patch8_32"


def test_positions_of_other_sizes_are_a_remark_and_no_error(tmp_path):
    spec = convert(source("open_clip/native", tmp_path / "native")).spec
    made, others = layout(spec)
    assert made.family == "clip" and [one.field for one in others] == ["config.model.video.image.position_antialias"]


def test_defaults_are_arguments_too():
    spec = clip_spec()
    image = arguments(spec)["video"]["image"]
    assert image["registers"] == 0 and image["block"]["norm_epsilon"] == 1e-5
    same = clip_spec(image={"registers": 0, "block": {"norm_epsilon": 1e-5, "mlp_hidden": 32}})
    assert not differences(spec, public=same)
    assert [one.field for one in differences(spec, public=clip_spec(image={"mlp_ratio": 3.0}))] == [
        "config.model.video.image.block.mlp_hidden"
    ]


@pytest.mark.parametrize("format", ["hf", "open_clip"])
@pytest.mark.parametrize("name", ["open_clip/mobileclip_s0", "resnet/hf"])
def test_image_towers_that_no_format_has(name, format, tmp_path):
    spec = convert(source(name, tmp_path / "source")).spec
    family = spec.towers["video"]["image"]["family"]
    with pytest.raises(UserError, match=rf"no model with .*config\.model\.video\.image\.family='{family}'"):
        layout(spec, format=format)


@pytest.mark.parametrize("name", ["big_vision", "siglip2"])
def test_other_forms_of_siglip_are_siglip_of_fixed_size(name, tmp_path):
    """The same embeddings at the size of training; other sizes have other positions, which is noted."""
    made, others = layout(convert(source(name, tmp_path / "source")).spec)
    assert made.family == "siglip" and others
    start = ("config.model.video.image.position_", "config.model.video.image.naflex")
    assert all(one.field.startswith(start) and not one.exact for one in others)
