"""A frozen language model with gated layers: silent at the start, open gates against loops, writing with a cache."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from fusion_loops import cross_block
from tower_loops import block_by_loops, f64, layer_of, norm, randomised

from twinreel.base.errors import UserError
from twinreel.engine.keeping.transfer import fill
from twinreel.models.gated_decoder import GatedDecoder
from twinreel.models.generate import GenerateOptions, generate
from twinreel.models.layers.blocks import Context
from twinreel.zoo.build import abstract
from twinreel.zoo.convert.convert import convert

GOLDEN = Path(__file__).parents[1] / "golden" / "weights"
RNG = np.random.default_rng(0)
CLIP = Context(jnp.asarray(RNG.normal(size=(3, 4, 6)), jnp.float32), jnp.asarray([[1, 1, 1, 0]] * 2 + [[0] * 4], bool))
WRITE = nnx.jit(generate, static_argnames=("options", "eos_id", "pad_id"))
LOGITS = nnx.jit(lambda decoder, text, context: decoder(text, context=context))


def opened(name):
    """A public language model, and the arrays of its authors' code."""
    made = convert(GOLDEN / name)
    model = abstract(made.spec)
    fill(model, values=made.params)
    with np.load(GOLDEN / name / "io.npz") as file:
        return model.decoder, dict(file)


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def public(request):
    return opened(request.param)


@pytest.fixture(scope="module")
def gpt2():
    return opened("gpt2")[0]


def gated(language_model, *, gates=0.0, every=1):
    made = GatedDecoder(language_model, context_width=6, every=every, rngs=nnx.Rngs(1))
    if gates:
        randomised(made.layers)
        made.layers.gates.set_value(jnp.full_like(made.layers.gates[...], gates))
    return made


def test_at_the_start_the_logits_are_those_of_the_language_model_alone(public):
    language_model, wanted = public
    found = LOGITS(gated(language_model), wanted["ids"], CLIP)
    alone = nnx.jit(lambda decoder, text: decoder(text))(language_model, wanted["ids"])
    np.testing.assert_allclose(found, alone, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found, wanted["logits"], rtol=1e-4, atol=1e-4)  # of transformers


@pytest.mark.parametrize("every", [1, 2])
def test_open_gates_are_those_of_the_definition(gpt2, every):
    """In float64, row by row; the last row has no token of a clip."""
    decoder = gated(gpt2, gates=0.7, every=every)
    text = RNG.integers(2, 40, (3, 5)).astype(np.int32)
    found = LOGITS(decoder, text, CLIP)
    table, places = f64(gpt2.embedding), f64(gpt2.position)
    for row in range(3):
        x, context = table[text[row]] + places[:5], f64(CLIP.tokens[row])[np.asarray(CLIP.mask[row])]
        for block in range(2):
            if block % every == 0:
                x = cross_block(x, layer_of(decoder, block // every), context if len(context) else None)
            x = block_by_loops(x, layer_of(gpt2.blocks, block))
        np.testing.assert_allclose(found[row], norm(x, gpt2.blocks.norm) @ table.T, rtol=1e-3, atol=1e-3)


def test_writing_with_cached_keys_is_writing_all_anew(public):
    """Prompts of 3 and 1 tokens behind padding; by hand the whole text goes through the decoder for every token."""
    language_model, wanted = public
    decoder = gated(language_model, gates=0.7, every=1 if language_model.position is None else 2)
    prompt, mask = wanted["prompt"][1:], wanted["mask"][1:]
    context = Context(CLIP.tokens[:2], CLIP.mask[:2])
    given = {"prompt": prompt, "mask": mask, "context": context, "eos_id": 39, "pad_id": 1}
    greedy = WRITE(decoder, options=GenerateOptions(max_tokens=6), **given)
    beams = WRITE(decoder, options=GenerateOptions(max_tokens=6, method="beam", beams=2), **given)
    assert (beams.scores[:, 0] >= beams.scores[:, 1]).all()
    for row in range(2):
        text, score = prompt[row, mask[row]].tolist(), 0.0
        begun = len(text)
        while len(text) < begun + 6 and text[-1] != 39:
            whole = np.zeros((3, 12), np.int32)
            whole[:, : len(text)] = text
            context = Context(jnp.repeat(CLIP.tokens[row : row + 1], 3, 0), jnp.repeat(CLIP.mask[row : row + 1], 3, 0))
            logits = f64(LOGITS(decoder, whole, context)[0, len(text) - 1])
            logp = logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())
            text.append(int(logp.argmax()))
            score += logp.max()
        tokens = greedy.tokens[row, 0].tolist()
        assert tokens[: len(text) - begun] == text[begun:]
        assert float(greedy.scores[row, 0]) == pytest.approx(score, abs=1e-3)


def test_layers_that_do_not_divide_the_blocks_are_named(gpt2):
    with pytest.raises(UserError, match=r"every=3 must divide the 2 blocks .*: set it to one of 1, 2"):
        gated(gpt2, every=3)
