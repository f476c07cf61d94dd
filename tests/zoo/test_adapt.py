"""`config.adapt` and the spec of an adapted model: places, counts by hand, what is trained, mistakes."""

import json

import numpy as np
import pytest
from flax import nnx
from small_encoder import small_spec

from twinreel.base.errors import UserError
from twinreel.engine.step.counts import count_parameters, counts_text
from twinreel.engine.step.state import split_model, trained_paths
from twinreel.models.adapters import ADDED
from twinreel.zoo.adapt import AdaptOptions, adapted, trained_by
from twinreel.zoo.build import abstract, build
from twinreel.zoo.spec import ModelSpec

KINDS = {
    "lora": {"layers": "^video/.*attention/", "rank": 2},
    "dora": {"layers": "^audio/.*attention/qkv$", "rank": 3},
    "adapters": {"layers": "^text/", "width": 5},
    "prompts": {"layers": "^text/", "count": 4},
}


@pytest.fixture(scope="module")
def plain():
    """The spec of a model of which nothing is trained so far."""
    return small_spec()


@pytest.fixture(scope="module")
def spec(plain):
    return adapted(plain, options=AdaptOptions(**KINDS))


@pytest.fixture(scope="module")
def shapes(spec):
    return shapes_of(spec)


@pytest.fixture(scope="module")
def plain_shapes(plain):
    return shapes_of(plain)


def shapes_of(spec):
    return split_model(abstract(spec))


def test_the_spec_lists_what_is_added_and_builds_the_same_model_from_json(spec, shapes, plain):
    again = ModelSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert again.towers["audio"]["adapters"] == {
        "dora": {"layers": ["blocks/layers/attention/qkv"], "rank": 3, "alpha": 16.0, "dropout": 0.0}
    }
    assert list(again.towers["text"]["adapters"]) == ["adapters", "prompts"]
    model, before = split_model(build(again, rngs=nnx.Rngs(0))), split_model(build(plain, rngs=nnx.Rngs(0)))
    assert {path for path in model if not ADDED.search(path)} == set(before)
    for path, value in before.items():  # the draws of the other parameters do not change
        np.testing.assert_array_equal(model[path], value)
    assert {path: x.shape for path, x in shapes.items()} == {path: x.shape for path, x in model.items()}


def test_counts_are_those_by_hand(spec, shapes):
    """Towers of 8 channels: one block in space, one in time, one each for text and sound."""
    options = AdaptOptions(**KINDS)
    trained = trained_paths(trained_by(options, spec=spec), shapes)
    rows = {row.part: row for row in count_parameters(shapes, trained=trained)}
    assert rows["video"].added == rows["video"].trained == 2 * 2 * ((8 + 24) + (8 + 8))
    assert rows["audio"].added == 3 * (8 + 24) + 24
    assert rows["text"].added == 2 * ((8 * 5 + 5) + (5 * 8 + 8)) + 4 * 8
    block = 4 * 8 + (8 * 24 + 24) + (8 * 8 + 8) + (8 * 32 + 32) + (32 * 8 + 8)  # two norms, qkv, out, up, down
    vocabulary = spec.towers["text"]["vocab_size"]
    assert rows["text"].frozen == vocabulary * 8 + 16 * 8 + block + 16  # embeddings, positions, block, last norm
    assert (rows["log_scale"].trained, rows["log_scale"].frozen) == (0, 1)
    assert rows["total"].trained == sum(rows[side].added for side in ("video", "text", "audio"))
    text = counts_text(list(rows.values()))
    assert "192" in text and f"{rows['text'].frozen:,}" in text and text.splitlines()[0].startswith("parameters")


WANTED = {
    "all biases": ({"bitfit": {}}, lambda path: path.endswith("/bias")),
    "some biases": (
        {"bitfit": {"layers": "attention|norm"}},
        lambda path: path.endswith("/bias") and ("attention" in path or "norm" in path),
    ),
    "biases and norms": (
        {"bitfit": {"layers": "^text/"}, "trainable": ("^video/.*norm",)},
        lambda path: (
            path.endswith("/bias") if path.startswith("text/") else path.startswith("video/") and "norm" in path
        ),
    ),
    "lora": ({"lora": {"layers": "^video/space"}}, lambda path: path.startswith("video/space/") and "/lora/" in path),
}
"""Case -> options, and whether they train a parameter of a tower."""


@pytest.mark.parametrize("case", WANTED)
def test_which_parameters_are_trained(plain, plain_shapes, case):
    options, wanted = AdaptOptions(**WANTED[case][0]), WANTED[case][1]
    spec = adapted(plain, options=options)
    shapes = plain_shapes if spec is plain else shapes_of(spec)
    found = set(trained_paths(trained_by(options, spec=spec), shapes))
    towers = {path for path in shapes if path.split("/")[0] in ("video", "text", "audio")}
    assert found and found == {path for path in towers if wanted(path)}


def test_a_tower_is_given_a_kind_once(spec):
    with pytest.raises(UserError, match="the text tower of the checkpoint has prompts already"):
        adapted(spec, options=AdaptOptions(prompts={"layers": "^text/"}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lora": {"layers": "("}}, r"config\.adapt\.lora\.layers: '\(' is not a regular expression"),
        ({"lora": {"layers": "kvq"}}, r"found in no path of the dense layers of the towers \(video, text, audio\)"),
        ({"prompts": {"layers": "^sound"}}, r"found in no path of the stacks(.|\n)*audio/blocks"),
        ({"lora": {}, "dora": {}}, "would have both lora and dora"),
        ({"lora": {"layers": "embed", "dropout": 0.1}}, "dropout acts inside of transformer blocks alone"),
    ],
)
def test_mistakes_are_named(plain, options, message):
    with pytest.raises(UserError, match=message):
        adapted(plain, options=AdaptOptions(**options))


def test_a_spec_of_a_kind_that_this_version_lacks(plain):
    towers = {**plain.towers, "text": {**plain.towers["text"], "adapters": {"lorra": {"layers": []}}}}
    with pytest.raises(UserError, match=r"kind in the adapters of the text tower: 'lorra'; did you mean 'lora'"):
        build(plain.replace(towers=towers), rngs=nnx.Rngs(0))
