"""Building models from specs: what is wrong in a spec is named by its config field."""

import pytest
from dual_towers import build_classifier, input_of
from flax import nnx

from twinreel.base.errors import UserError
from twinreel.models.backbone import Backbone
from twinreel.zoo.build import build
from twinreel.zoo.spec import ModelSpec

VIDEO = {"family": "vivit", "image_size": 16, "patch": 8, "width": 8, "depth": 1, "heads": 2, "temporal_depth": 0}
TEXT = {"family": "transformer", "vocab_size": 11, "width": 8, "depth": 1, "heads": 2}


@pytest.mark.parametrize(
    ("towers", "message"),
    [
        ({"video": VIDEO | {"family": "vivid"}, "text": TEXT}, r"config\.model\.video\.family: 'vivid'; .*'vivit'"),
        ({"video": VIDEO | {"widht": 8}, "text": TEXT}, r"config\.model\.video 'widht'; did you mean 'width'"),
        ({"video": VIDEO}, r"config\.model lacks the section 'text'"),
        ({"video": VIDEO, "text": TEXT, "smell": {}}, r"unknown tower in config\.model: 'smell'"),
    ],
)
def test_mistakes_are_named(towers, message):
    with pytest.raises(UserError, match=message):
        build(ModelSpec(towers=towers, input=input_of(num_frames=2), embed_dim=4), rngs=nnx.Rngs(0))


def test_without_a_joint_space_the_towers_stand_alone():
    spec = ModelSpec(towers={"video": VIDEO, "text": TEXT}, input=input_of(num_frames=2))
    model = build(spec, rngs=nnx.Rngs(0))
    assert isinstance(model, Backbone) and (model.video.width, model.text.width) == (8, 8)
    assert not hasattr(model, "log_scale")


def test_a_head_makes_a_model_without_text():
    video = {key: value for key, value in VIDEO.items() if key != "family"}
    model = build_classifier(video=video, num_frames=2, num_classes=5, remat="full", unroll=0)
    assert model.head.scores.out_features == 5 and not hasattr(model, "text")
    assert (model.video.space.options.remat, model.video.space.options.unroll) == ("full", 0)
