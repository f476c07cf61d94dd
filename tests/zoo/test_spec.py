"""The spec of a model: its JSON form, and what the sections of a config make of it."""

import json

import pytest

from twinreel.base.errors import UserError
from twinreel.base.section import section
from twinreel.data.options import InputSpec
from twinreel.zoo.spec import ModelOptions, ModelSpec

TOWERS = {"video": {"image_size": 16, "patch": 8, "width": 8}, "text": {"width": 8, "family": "transformer"}}


def spec(**model):
    options = section(ModelOptions, {"embed_dim": 4, **TOWERS, **model}, name="model")
    return options.spec(input=InputSpec(num_frames=2, decode={"fps": 4.0}), vocab_size=11)


def test_the_json_form_comes_back():
    made = spec().replace(tokenizer={"kind": "x"}, origin={"made_by": "pretrain", "seed": 3})
    again = ModelSpec.from_dict(json.loads(json.dumps(made.to_dict())))
    assert again == made
    assert again.input.pixel_mean == (0.5, 0.5, 0.5) and again.input.decode == {"fps": 4.0}


def test_a_config_names_families_only_where_they_are_not_the_usual_ones():
    assert {side: tower["family"] for side, tower in spec(audio={}).towers.items()} == {
        "video": "vivit",
        "text": "transformer",
        "audio": "ast",
    }
    assert spec(video={"family": "other"}).towers["video"]["family"] == "other"
    assert spec().towers["text"]["vocab_size"] == 11
    assert spec(text={"vocab_size": 20}).towers["text"]["vocab_size"] == 20


def test_only_the_sigmoid_loss_starts_with_a_bias():
    options = section(ModelOptions, {"embed_dim": 4, **TOWERS}, name="model")
    start = options.spec(input=InputSpec(), vocab_size=11, loss="sigmoid")
    assert (start.initial_scale, start.initial_bias) == (10.0, -10.0)
    assert spec().initial_bias is None and spec().initial_scale == pytest.approx(1 / 0.07)
    own = section(ModelOptions, {"embed_dim": 4, **TOWERS, "initial_scale": 5.0}, name="model")
    assert own.spec(input=InputSpec(), vocab_size=11, loss="sigmoid").initial_scale == 5.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 0}, r"mine is of format 0, this version of twinreel reads format 1"),
        ({"tower": {}}, r"unknown field of mine 'tower'; did you mean 'towers'"),
        ({"input": None}, r"mine lacks the field 'input'"),
        ({"input": {"num_frame": 3}}, r"unknown field of config\.mine\.input 'num_frame'; did you mean 'num_frames'"),
        ({"input": {"pixel_std": [1.0, 0.0, 1.0]}}, r"pixel_std must be 3 numbers .*got \(1\.0, 0\.0, 1\.0\)"),
    ],
)
def test_a_spec_that_cannot_be_read_is_named(change, message):
    with pytest.raises(UserError, match=message):
        ModelSpec.from_dict(spec().to_dict() | change, name="mine")
    with pytest.raises(UserError, match="format 'list'"):
        ModelSpec.from_dict([])
