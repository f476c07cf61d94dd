"""What an adaptation adds to towers: where, from which start, and what blocks compute with it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tower_loops import drawn, randomised

from twinreel.base.errors import UserError
from twinreel.models.adapters import ADDED, KINDS, AdapterOptions, LoraOptions, PromptOptions, add, places
from twinreel.models.layers.attention import AttentionInputs
from twinreel.models.layers.blocks import Blocks
from twinreel.models.layers.draws import row_keys
from twinreel.models.layers.options import BlockOptions
from twinreel.models.towers.ast import AudioTower
from twinreel.models.towers.divided import DividedTower
from twinreel.models.towers.frames import FramesTower
from twinreel.models.towers.lstm import RecurrentTextTower

RNG = np.random.default_rng(0)
SMALL = {"width": 8, "depth": 1, "heads": 2}
CLIP = jnp.asarray(RNG.integers(0, 256, (2, 2, 16, 16, 3)), jnp.uint8)
WORDS, REAL = jnp.asarray(RNG.integers(1, 9, (2, 5)), jnp.int32), jnp.arange(5)[None] < jnp.array([[5], [3]])
SOUND = jnp.asarray(RNG.integers(-9999, 9999, (2, 8000)), jnp.int16)

TOWERS = {
    "frames": lambda rngs: FramesTower(image={"image_size": 16, "patch": 8, **SMALL}, num_frames=2, rngs=rngs),
    "divided": lambda rngs: DividedTower(image_size=16, num_frames=2, patch=8, **SMALL, rngs=rngs),
    "lstm": lambda rngs: RecurrentTextTower(vocab_size=9, context_length=5, width=8, rngs=rngs),
    "ast": lambda rngs: AudioTower(audio_samples=8000, mels=16, **SMALL, rngs=rngs),
}
INPUTS = {"frames": (CLIP, {}), "divided": (CLIP, {}), "ast": (SOUND, {}), "lstm": (WORDS, {"mask": REAL})}


@pytest.mark.parametrize("name", TOWERS)
def test_a_tower_starts_as_it_was_and_then_every_added_parameter_learns(name):
    """LoRA everywhere, and adapters where there are blocks."""
    tower, (x, more) = drawn(lambda: TOWERS[name](nnx.Rngs(0))), INPUTS[name]
    output = jax.jit(lambda tower: tower(x, **more))
    before = output(tower)
    kinds = {"lora": LoraOptions(layers=tuple(places(tower, kind="lora")), rank=2)}
    if name != "lstm":
        kinds["adapters"] = AdapterOptions(layers=tuple(places(tower, kind="adapters")), width=2)
    add(tower, kinds=kinds, rngs=nnx.Rngs(1))
    weights = RNG.normal(size=before.shape).astype(np.float32)

    def weighed(params):
        y = nnx.merge(graph, params, rest)(x, **more)
        return jnp.sum(y * weights), y

    graph, params, rest = nnx.split(tower, nnx.Param, ...)
    step = jax.jit(jax.grad(weighed, has_aux=True))
    _, after = step(params)
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)
    found, _ = step(nnx.state(randomised(tower), nnx.Param))  # away from zero, where A has no gradient
    slopes = {"/".join(map(str, path)): value.get_value() for path, value in nnx.to_flat_state(found)}
    added = {path for path in slopes if ADDED.search(path)}
    assert {path.rsplit("/lora/", 1)[0] for path in added if "/lora/" in path} == set(kinds["lora"].layers)
    assert len(added) == 2 * len(kinds["lora"].layers) + (8 if name != "lstm" else 0)
    silent = {path for path in added if not np.abs(slopes[path]).max() > 0}
    assert not silent


def options(**changes):
    return BlockOptions(**{"width": 8, "heads": 2, "tower": "video"} | changes)


def stack(**changes):
    return drawn(lambda: Blocks(options(**changes), depth=2, rngs=nnx.Rngs(0)))


CASES = {
    "causal": ({"causal": True}, {}, True),
    "rotary": ({"rotary": "halves"}, {}, True),
    "masked": ({}, {"mask": jnp.asarray(RNG.random((3, 4)) < 0.7)}, False),
    "biased": ({}, {"bias": jnp.asarray(RNG.normal(size=(1, 2, 4, 4)), jnp.float32)}, False),
    "pairs": ({}, {"pairs": jnp.asarray(RNG.random((3, 4, 4)) < 0.7) | jnp.eye(4, dtype=bool)[None]}, True),
}
"""Name -> options of the blocks, inputs of the attention, and whether each block has its own prompts."""


def by_hand(inputs, *, angles=None):
    """What the attention of 2 prompts and 4 tokens takes."""
    found = {}
    if "mask" in inputs:
        found["mask"] = np.concatenate([np.ones((3, 2), bool), inputs["mask"]], axis=1)
    if "bias" in inputs:
        found["bias"] = np.zeros((1, 2, 6, 6), np.float32)
        found["bias"][:, :, 2:, 2:] = inputs["bias"]
    if "pairs" in inputs:
        found["pairs"] = np.ones((3, 6, 6), bool)
        found["pairs"][:, 2:, 2:] = inputs["pairs"]
    if angles is not None:
        found["angles"] = np.concatenate([np.zeros((2, angles.shape[1]), np.float32), angles])
    return AttentionInputs(**{name: jnp.asarray(value) for name, value in found.items()})


@pytest.mark.parametrize("case", CASES)
def test_prompts_are_tokens_before_the_others(case):
    """Block by block without prompts, on tokens with the prompts put in front by hand."""
    changes, inputs, deep = CASES[case]
    with_prompts, plain = stack(**changes), stack(**changes)
    kinds = {"prompts": PromptOptions(layers=("blocks",), count=2, deep=deep)}
    add(_Holder(with_prompts), kinds=kinds, rngs=nnx.Rngs(1))
    prompts = with_prompts.layers.prompts[...] if deep else with_prompts.prompts[...][None]
    x = jnp.asarray(RNG.normal(size=(3, 4, 8)), jnp.float32)
    apply = jax.jit(lambda blocks: blocks(x, inputs=AttentionInputs(**inputs)))
    found = apply(with_prompts)
    angles = None
    if case == "rotary":
        places = np.arange(4)[:, None] * 10_000.0 ** (-np.arange(2) / 2)[None]
        angles = places.astype(np.float32)
    given = by_hand(inputs, angles=angles)
    graph, params = nnx.split(plain.layers)
    one = jax.jit(lambda params, y: nnx.merge(graph, params)(y, inputs=given))
    y = np.concatenate([np.zeros((3, 2, 8), np.float32), x], axis=1)
    for number in range(2):
        if number < len(prompts):
            y = np.concatenate([np.broadcast_to(prompts[number], (3, 2, 8)), y[:, 2:]], axis=1)
        y = np.asarray(one(jax.tree.map(lambda p, n=number: p[n], params), y))
    wanted = jax.jit(lambda norm, y: norm(y))(plain.norm, y[:, 2:])
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    assert np.abs(found - apply(plain)).max() > 1e-4


class _Holder(nnx.Module):
    """A tower with one stack."""

    def __init__(self, blocks):
        self.blocks = blocks


def test_an_adapter_stands_behind_each_branch():
    """A block written out around its own attention and MLP."""
    block = Blocks(options(layer_scale=0.5), depth=1, rngs=nnx.Rngs(0))
    add(_Holder(block), kinds={"adapters": AdapterOptions(layers=("blocks/layers",), width=3, activation="relu")},
        rngs=nnx.Rngs(1))  # fmt: skip
    for one in (block.layers.adapters.attention, block.layers.adapters.mlp):
        one.expand.kernel[...] = jnp.asarray(RNG.normal(size=(1, 3, 8)), jnp.float32)
    graph, params = nnx.split(block.layers)
    layer = nnx.merge(graph, jax.tree.map(lambda p: p[0], params))

    def adapter(x, one):
        inner = jnp.maximum(x @ one.reduce.kernel[...] + one.reduce.bias[...][None, None], 0)
        return x + inner @ one.expand.kernel[...] + one.expand.bias[...][None, None]

    x = jnp.asarray(RNG.normal(size=(2, 4, 8)), jnp.float32)

    @jax.jit
    def by_parts(layer):
        y = x + adapter(0.5 * layer.attention(layer.norm1(x)), layer.adapters.attention)
        hidden = nnx.gelu(layer.up(layer.norm2(y)))
        return block.norm(y + adapter(0.5 * layer.down(hidden), layer.adapters.mlp))

    np.testing.assert_allclose(jax.jit(lambda block: block(x))(block), by_parts(layer), rtol=1e-4, atol=1e-5)


def test_layers_of_a_stack_draw_for_themselves():
    """Dropout on the inputs of updates: by rows, layers and branches, and equal in the loop and without it."""
    found = []
    for unroll in (1, 0):
        blocks = stack(unroll=unroll)
        add(_Holder(blocks), kinds={"lora": LoraOptions(layers=("blocks/layers/attention/qkv",), rank=2, dropout=0.5)},
            rngs=nnx.Rngs(1))  # fmt: skip
        lora = blocks.layers.attention.qkv.lora
        lora.b[...] = jnp.ones_like(lora.b[...])
        x = jnp.asarray(np.random.default_rng(1).normal(size=(2, 4, 8)), jnp.float32)
        found.append(jax.jit(lambda b, x: b(x, keys=row_keys(jax.random.key(0), rows=2)))(blocks, x))
    assert np.abs(found[0] - jax.jit(lambda b, x: b(x))(blocks, x)).max() > 1e-3
    np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        ("lora", {"layers": ("blocks/layers/attention/kvq",)}, r"no dense layers at (.|\n)*layers/attention/qkv"),
        ("adapters", {"layers": ("blocks",)}, r"no transformer blocks at 'blocks'(.|\n)*blocks/layers"),
        ("prompts", {"layers": ("blocks/layers",)}, r"no stacks of transformer blocks at"),
        ("lora", {"layers": ("embed/out",), "dropout": 0.1}, r"config\.adapt\.lora\.dropout acts inside of"),
        ("lora", {"layers": (), "rank": 0}, "rank must be at least 1, got 0"),
        ("dora", {"layers": (), "alpha": 0.0}, "alpha must be above 0"),
        ("dora", {"layers": (), "dropout": 1.0}, "dropout must be at least 0 and below 1"),
        ("prompts", {"layers": (), "count": 0}, "count must be at least 1"),
        ("adapters", {"layers": (), "activation": "gleu"}, "activation='gleu' is none of gelu"),
    ],
)
def test_mistakes_are_named(kind, given, message):
    tower = nnx.eval_shape(lambda: DividedTower(image_size=16, num_frames=2, patch=8, **SMALL, rngs=nnx.Rngs(0)))
    with pytest.raises(UserError, match=message):
        add(tower, kinds={kind: KINDS[kind].options(**given)}, rngs=nnx.Rngs(0))


def test_blocks_of_another_form_take_no_prompts():
    tower = nnx.eval_shape(lambda: TOWERS["divided"](nnx.Rngs(0)))
    assert places(tower, kind="prompts") == [] and places(tower, kind="adapters") == ["blocks/layers"]


def test_a_layer_has_one_update_at_most():
    tower = drawn(lambda: TOWERS["lstm"](nnx.Rngs(0)))
    path = places(tower, kind="lora")[0]
    with pytest.raises(UserError, match="would have both lora and dora"):
        add(tower, kinds=dict.fromkeys(("lora", "dora"), LoraOptions(layers=(path,))), rngs=nnx.Rngs(0))
