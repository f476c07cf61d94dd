"""Each fusion against NumPy loops over what a row has; what a row lacks has no part in result or gradient."""

import functools

import fusion_loops
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tower_loops import randomised

from twinreel.base.errors import UserError
from twinreel.models.fusion.experts import product_of_experts
from twinreel.models.fusion.interface import Features
from twinreel.models.fusion.table import FUSIONS

D, B = 8, 5
WIDTHS = {"video": 6, "audio": 10, "text": 5}
PRESENT = {"video": [1, 1, 0, 0, 1], "audio": [1, 0, 1, 0, 1], "text": [1, 0, 1, 0, 0]}  # nobody has row 3
REAL = {"video": [3, 2, 3, 3, 1], "audio": [4, 4, 2, 4, 3], "text": [2, 2, 2, 2, 2]}  # tokens of each row
SMALL = {"depth": 2, "heads": 2, "block": {"mlp_ratio": 1.0}}
ARGUMENTS = {
    "late": {"weights": "learned"},
    "graph": {"heads": 2},
    "memory": {"slots": 3},
    "bottleneck": SMALL | {"bottlenecks": 2},
    "gated": SMALL | {"latents": 3},
    "cross": SMALL | {"depth": 1},
} | dict.fromkeys(("early", "mutual", "mixed", "hierarchical"), SMALL)


def sides_of(kind):
    return ("video", "audio") if FUSIONS[kind].sees == "tokens" else tuple(WIDTHS)  # two compile faster


@functools.cache
def made(kind):
    widths = {side: D if FUSIONS[kind].sees == "embeddings" else WIDTHS[side] for side in sides_of(kind)}
    return randomised(FUSIONS[kind](widths=widths, width=D, rngs=nnx.Rngs(0), **ARGUMENTS.get(kind, {})), seed=1)


def features(kind, *, absent=0.0):
    """Features with a value of choice wherever a row lacks something."""
    rng, found = np.random.default_rng(2), {}
    for side in sides_of(kind):
        width = D if FUSIONS[kind].sees == "embeddings" else WIDTHS[side]
        there = np.array(PRESENT[side], bool)
        tokens = rng.normal(size=(B, max(REAL[side]), width)).astype(np.float32)
        mask = np.arange(tokens.shape[1])[None] < np.array(REAL[side])[:, None]
        vector = rng.normal(size=(B, width)).astype(np.float32)
        vector[~there], tokens[~there], tokens[~mask] = absent, absent, absent
        found[side] = Features(*(jnp.asarray(x) for x in (there, vector, tokens, mask)))
    return found


@functools.cache
def compiled(kind):
    graph, params = nnx.split(made(kind))

    @jax.jit
    def run(features):
        def loss(params):
            out = nnx.merge(graph, params)(features)
            total = jnp.sum(jnp.square(out.vector)) + jnp.sum(jnp.square(out.tokens))
            return total + sum(jnp.sum(term) for term in out.losses.values()), out

        return jax.grad(loss, has_aux=True)(params)

    return run


def rows_of(kind, row):
    """What one row has, as the loops want it."""
    found = {}
    for side, given in features(kind).items():
        if PRESENT[side][row]:
            alone = given.vector[row] if FUSIONS[kind].sees != "tokens" else given.tokens[row, : REAL[side][row]]
            found[side] = np.asarray(alone, np.float64)
    return found


@pytest.mark.parametrize("kind", FUSIONS)
def test_each_fusion_equals_loops_over_what_a_row_has(kind):
    _, out = compiled(kind)(features(kind))
    assert out.vector.shape == (B, D) and out.vector.dtype == jnp.float32
    for row in (0, 1, 2, 4):
        wanted = getattr(fusion_loops, kind)(made(kind), rows_of(kind, row))
        np.testing.assert_allclose(out.vector[row], wanted, rtol=2e-4, atol=2e-5)
    assert not np.any(out.vector[3])


def wanted_of(kind):
    """The features with masks that are False where a row lacks the modality, too."""
    return [given._replace(mask=given.mask & given.present[:, None]) for given in features(kind).values()]


@pytest.mark.parametrize("kind", FUSIONS)
def test_what_a_row_lacks_changes_nothing(kind):
    wanted, poisoned = compiled(kind)(features(kind)), compiled(kind)(features(kind, absent=np.nan))
    for a, b in zip(jax.tree.leaves(wanted), jax.tree.leaves(poisoned), strict=True):
        np.testing.assert_array_equal(a, b)
    gradients, out = poisoned
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradients))
    assert sum(float(np.abs(g).sum()) for g in jax.tree.leaves(gradients)) > 0.1
    assert out.tokens.shape[:2] == out.mask.shape and out.tokens.shape[2] == D
    assert not np.any(out.tokens[~out.mask]) and not out.mask[3].any() and out.mask[0].all()
    if kind not in ("memory", "gated"):  # tokens stand in the order of the modalities
        masks = [given.mask if FUSIONS[kind].sees == "tokens" else given.present[:, None] for given in wanted_of(kind)]
        np.testing.assert_array_equal(out.mask, np.concatenate(masks, 1))
    assert all(term.shape == (B,) and term[3] == 0 for term in out.losses.values())


def test_late_fusion_without_learned_weights_is_the_mean_of_unit_vectors():
    fusion = FUSIONS["late"](widths=dict.fromkeys(WIDTHS, D), width=D, rngs=nnx.Rngs(0))
    assert not jax.tree.leaves(nnx.state(fusion))
    out = fusion(features("late"))
    for row in (0, 1, 2, 4):
        np.testing.assert_allclose(out.vector[row], fusion_loops.late(fusion, rows_of("late", row)), atol=1e-6)


def test_gated_fusion_begins_as_the_main_modality_alone():
    arguments = {"widths": {"video": 6, "audio": 10}, "width": D, "rngs": nnx.Rngs(0)}
    fusion = FUSIONS["gated"](**arguments, **ARGUMENTS["gated"])
    out = fusion(features("gated"))
    for row in (0, 1, 4):
        alone = fusion_loops.projected(fusion, rows_of("gated", row))["video"].mean(0)
        np.testing.assert_allclose(out.vector[row], alone, rtol=1e-5, atol=1e-6)
    assert np.any(out.vector[2])  # sound alone: the latents


def test_bottlenecks_carry_news_from_one_layer_to_the_next_only():
    """MBT: in the first layer no token sees the other modality; what crosses comes with the shared tokens."""
    given, other = features("bottleneck"), features("bottleneck")
    audio = other["audio"]
    other["audio"] = audio._replace(tokens=audio.tokens + 1)
    for depth, crosses in ((1, False), (2, True)):
        arguments = ARGUMENTS["bottleneck"] | {"depth": depth}
        fusion = randomised(
            FUSIONS["bottleneck"](widths={"video": 6, "audio": 10}, width=D, rngs=nnx.Rngs(0), **arguments)
        )
        run = nnx.jit(lambda fusion, given: fusion(given).tokens[:, : max(REAL["video"])])
        assert np.allclose(run(fusion, given)[0], run(fusion, other)[0]) is not crosses


def test_the_kl_term_of_the_experts_is_that_of_their_product():
    _, out = compiled("poe")(features("poe"))
    rng = np.random.default_rng(3)
    for row in (0, 1, 2):
        precision, mean = np.ones(D), fusion_loops.poe(made("poe"), rows_of("poe", row))
        for _, logs in fusion_loops.experts(made("poe"), rows_of("poe", row)):
            precision = precision + np.exp(-logs)
        deviation = precision**-0.5
        z = mean + deviation * rng.normal(size=(200_000, D))
        ratio = -0.5 * ((z - mean) / deviation) ** 2 - np.log(deviation) + 0.5 * z**2  # log q(z) - log p(z)
        estimate, error = ratio.sum(1).mean(), ratio.sum(1).std() / len(z) ** 0.5
        assert float(out.losses["kl"][row]) == pytest.approx(estimate, abs=5 * error + 1e-4)


def test_the_product_of_experts_is_the_normalised_product_of_densities():
    """On a grid in one dimension: two experts and the prior."""
    mean, logs = np.array([0.7, -1.2]), np.array([-0.5, 0.8])
    x = np.linspace(-12, 12, 240_001)
    density = np.exp(-0.5 * x**2 - sum(0.5 * (x - m) ** 2 / np.exp(v) for m, v in zip(mean, logs, strict=True)))
    density /= density.sum()
    centre = (density * x).sum()
    parts = (jnp.asarray(a[None, :, None], jnp.float32) for a in (mean, logs))
    got = product_of_experts(next(parts), log_variance=next(parts), present=jnp.ones((1, 2), bool))
    np.testing.assert_allclose(np.ravel(got), [centre, (density * (x - centre) ** 2).sum()], rtol=1e-5)


def test_the_draw_of_the_experts_has_the_variance_of_the_product():
    fusion = made("poe")
    given = jax.tree.map(lambda x: jnp.repeat(x[:1], 20_000, axis=0), features("poe"))
    run = nnx.jit(lambda fusion, given, keys: fusion(given, keys=keys).vector)
    drawn = np.asarray(run(fusion, given, jax.random.split(jax.random.key(0), 20_000)))
    precision = np.ones(D)
    for _, logs in fusion_loops.experts(fusion, rows_of("poe", 0)):
        precision = precision + np.exp(-logs)
    np.testing.assert_allclose(drawn.var(0), 1 / precision, rtol=0.06)
    np.testing.assert_allclose(drawn.mean(0), fusion_loops.poe(fusion, rows_of("poe", 0)), atol=0.04)


@pytest.mark.parametrize("kind", [kind for kind in FUSIONS if FUSIONS[kind].sees == "tokens"])
def test_fusions_of_tokens_are_traced_in_bfloat16_with_dropout_and_remat(kind):
    arguments = ARGUMENTS[kind] | {"dtype": "bfloat16", "dropout": 0.1, "remat": "full", "unroll": 0}

    def gradient(features, keys):
        fusion = FUSIONS[kind](widths={"video": 6, "audio": 10}, width=D, rngs=nnx.Rngs(0), **arguments)
        graph, params = nnx.split(fusion)
        loss = lambda params: (lambda out: (jnp.sum(out.vector), out))(nnx.merge(graph, params)(features, keys=keys))  # noqa: E731
        return jax.grad(loss, has_aux=True)(params)

    gradients, out = jax.eval_shape(gradient, features(kind), jax.random.split(jax.random.key(0), B))
    assert out.vector.dtype == jnp.float32 and out.tokens.dtype == jnp.bfloat16
    assert {g.dtype for g in jax.tree.leaves(gradients)} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        ("early", {"heads": 3}, r"config\.model\.fusion\.width=8 must divide by config\.model\.fusion\.heads=3"),
        ("graph", {"heads": 3}, r"config\.model\.fusion\.width=8 must divide by config\.model\.fusion\.heads=3"),
        ("graph", {"depth": 0}, r"config\.model\.fusion\.depth must be at least 1, got 0"),
        ("mutual", {"depth": 0}, r"config\.model\.fusion: depth=0"),
        ("mixed", {"dropout": 1.0}, r"config\.model\.fusion\.dropout must be"),
        ("cross", {"block": {"activation": "gleu"}}, "did you mean 'gelu'"),
        ("bottleneck", {"bottlenecks": 0}, r"config\.model\.fusion\.bottlenecks must be at least 1, got 0"),
        ("gated", {"latents": 0}, r"config\.model\.fusion\.latents must be at least 1, got 0"),
        ("memory", {"slots": 0}, r"config\.model\.fusion\.slots must be at least 1, got 0"),
        ("memory", {"hops": 0}, r"config\.model\.fusion\.hops must be at least 1, got 0"),
        ("concat", {"hidden": 0}, r"config\.model\.fusion\.hidden must be at least 1, got 0"),
        ("add", {"width": 0}, r"config\.model\.fusion\.width must be at least 1, got 0"),
        ("late", {"weights": "means"}, "did you mean 'mean'"),
        ("late", {"width": 4}, r"config\.model\.fusion\.width=4.*leave config\.model\.fusion\.width out"),
    ],
)
def test_mistakes_name_the_field(kind, arguments, message):
    with pytest.raises(UserError, match=message):
        FUSIONS[kind](**({"widths": {"video": 8, "audio": 8}, "width": D, "rngs": nnx.Rngs(0)} | arguments))
