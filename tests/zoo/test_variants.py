"""Sizes by public names: parameters as published, and rows below what a config says."""

import jax
import ml_collections
import pytest
from flax import nnx

from twinreel.base.errors import UserError
from twinreel.base.section import section
from twinreel.data.options import InputSpec
from twinreel.zoo.build import TOWERS, abstract, argument_of
from twinreel.zoo.spec import ModelOptions, ModelSpec
from twinreel.zoo.variants import VARIANTS, expanded

MILLIONS = {  # of an image tower without a head: the tables that `zoo.variants` cites, and timm's model cards
    "Ti/16": 5.5,
    "S/32": 22.5,
    "S/16": 21.7,
    "B/32": 87.5,
    "B/16": 85.8,
    "L/16": 303.3,
    "H/14": 630.8,
    "g/14": 1011.2,
    "G/14": 1843,
    "So400m/14": 412.4,
}


def parameters(towers):
    spec = ModelSpec(towers=towers, input=InputSpec(num_frames=4, context_length=16, audio_seconds=2.0))
    model = abstract(spec)
    return sum(x.size for x in jax.tree.leaves(nnx.state(model, nnx.Param)))


@pytest.mark.parametrize("name", MILLIONS)
def test_image_towers_have_the_published_number_of_parameters(name):
    image = expanded({"variant": name}, family="vit")
    found = parameters({"video": {"family": "frames", "image": image}}) / 1e6
    assert found == pytest.approx(MILLIONS[name], rel=0.01)


@pytest.mark.parametrize("family", sorted(set(VARIANTS) - {"vit", "videoprism"}))
def test_every_row_builds(family):
    side = next(side for side, families in TOWERS.items() if family in families)
    for name in VARIANTS[family]:
        tower = expanded({"variant": name}, family=family)
        sizes = {"text": {"vocab_size": 50}, "video": {"image_size": 4 * tower.get("patch", 0)}, "audio": {}}
        small = tower | ({"depth": 1} if "depth" in tower else {}) | sizes[side]
        assert parameters({side: {"family": family, **small}}) > 0


def test_a_section_goes_above_its_row():
    video = {"variant": "g/14", "depth": 3, "block": {"norm_epsilon": 1e-6}, "image_size": 28}
    options = section(ModelOptions, {"embed_dim": 8, "video": video, "text": {"variant": "XS"}}, name="model")
    made = options.spec(input=InputSpec(), vocab_size=9).towers
    assert made["video"]["block"] == {"mlp_hidden": 6144, "norm_epsilon": 1e-6}
    assert (made["video"]["width"], made["video"]["depth"], made["text"]["depth"]) == (1408, 3, 2)
    assert "variant" not in made["video"] and "variant" not in made["text"]
    assert argument_of(video, side="video", field="width") == 1408
    frames = {"family": "frames", "image": {"variant": "B/32", "image_size": 64}}
    assert argument_of(frames, side="video", field="heads") == 12
    assert argument_of(ml_collections.ConfigDict(frames), side="video", field="width") == 768
    assert argument_of({"family": "lstm"}, side="text", field="heads") is None


def test_an_unknown_row():
    with pytest.raises(UserError, match=r"variant of the family 'vivit' in config\.model: 'B/15'; did you mean 'B/16'"):
        expanded({"variant": "B/15"}, family="vivit")
    with pytest.raises(UserError, match=r"variant of the family 'lstm' in config\.model: 'B'"):
        expanded({"family": "lstm", "variant": "B"}, family="transformer")
