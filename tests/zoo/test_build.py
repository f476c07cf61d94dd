"""Building models from specs: what is wrong in a spec is named by its config field."""

import jax
import pytest
from dual_towers import build_classifier, input_of
from flax import nnx

from twinreel.base.errors import UserError
from twinreel.models.backbone import Backbone
from twinreel.models.layers.attention import Attention
from twinreel.zoo.build import abstract, build
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


def test_a_model_of_shapes_belongs_to_whom_asked_for_it():
    spec = ModelSpec(towers={"video": VIDEO, "text": TEXT}, input=input_of(num_frames=2))
    first, real = abstract(spec), build(spec, rngs=nnx.Rngs(0))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), nnx.state(first)) == jax.tree.map(
        lambda x: (x.shape, x.dtype), nnx.state(real)
    )
    for variable in jax.tree.leaves(nnx.state(first), is_leaf=lambda x: isinstance(x, nnx.Variable)):
        variable.set_metadata("mine", True)
    nnx.update(first, nnx.state(real, nnx.Param))
    first.video.space.norm = None
    again = abstract(spec.replace(origin={"made_by": "pretrain"}))
    leaves = jax.tree.leaves(nnx.state(again), is_leaf=lambda x: isinstance(x, nnx.Variable))
    assert again.video.space.norm is not None
    assert all(isinstance(leaf.get_value(), jax.ShapeDtypeStruct) for leaf in leaves)
    assert not any(leaf.has_metadata("mine") for leaf in leaves)
    assert abstract(spec, unroll=0).video.space.options.unroll == 0
    assert again.video.space.options.unroll == 1


FRAMES = {"family": "frames", "image": {"image_size": 16, "patch": 8, "width": 8, "depth": 1, "heads": 2, "block": {}},
          "over_time": "transformer", "depth": 1, "heads": 2}  # fmt: skip
LSTM = {"family": "lstm", "vocab_size": 11, "width": 8}
FUSION = {"kind": "early", "modalities": ["video", "text"], "depth": 1, "heads": 2}


def backends_of(model):
    """Tower -> the backends of the attentions in it."""
    found = {}
    for path, node in nnx.iter_graph(model):
        if isinstance(node, Attention):
            found.setdefault(path[0], set()).add(node.options.attention)
    return found


@pytest.mark.parametrize(
    ("attention", "wanted"),
    [
        ("auto", {"video": {"auto"}, "text": {"auto"}, "fusion": {"auto"}}),
        ("xla", {"video": {"xla"}, "text": {"xla"}, "fusion": {"xla"}}),
        ({"video": "splash", "fusion": "xla"}, {"video": {"splash"}, "text": {"auto"}, "fusion": {"xla"}}),
    ],
)
@pytest.mark.parametrize("video", [VIDEO | {"temporal_depth": 1}, FRAMES], ids=["vivit", "frames"])
def test_the_backend_of_attention_reaches_every_tower_and_not_the_spec(video, attention, wanted):
    spec = ModelSpec(towers={"video": video, "text": TEXT}, input=input_of(num_frames=2), embed_dim=4, fusion=FUSION)
    before = spec.to_dict()
    assert backends_of(build(spec, rngs=nnx.Rngs(0), attention=attention)) == wanted
    assert spec.to_dict() == before
    without = spec.replace(towers={"video": video, "text": LSTM}, fusion={})
    assert backends_of(build(without, rngs=nnx.Rngs(0), attention=attention)) == {"video": wanted["video"]}


@pytest.mark.parametrize(
    ("attention", "video", "message"),
    [
        ("flash", VIDEO, r"config\.model\.attention.*'flash'"),
        ({"vidoe": "xla"}, VIDEO, r"config\.model\.attention.*'vidoe'.*'video'"),
        ({"video": "splahs"}, VIDEO, r"config\.model\.attention.*'splahs'.*'splash'"),
        ("auto", VIDEO | {"block": {"attention": "xla"}}, r"config\.model\.video\.block .*config\.model\.attention"),
    ],
)
def test_a_mistake_in_the_backend_of_attention_is_named(attention, video, message):
    spec = ModelSpec(towers={"video": video, "text": TEXT}, input=input_of(num_frames=2), embed_dim=4)
    with pytest.raises(UserError, match=message):
        build(spec, rngs=nnx.Rngs(0), attention=attention)
