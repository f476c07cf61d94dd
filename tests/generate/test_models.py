"""The networks of a generator, their losses and their options, at the smallest sizes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.integrate import quad
from scipy.stats import norm
from tower_loops import drawn

from twinreel.base.config import load_config
from twinreel.base.errors import UserError
from twinreel.base.section import section
from twinreel.data.options import InputSpec
from twinreel.generate.models.autoencoder import (
    AutoencoderOptions,
    FrameAutoencoder,
    drawn_latents,
    kl_to_normal,
    rgb,
    signed,
)
from twinreel.generate.models.condition import condition_options
from twinreel.generate.models.critic import critic_loss, maker_loss
from twinreel.generate.models.generator import GeneratorSpec, build_generator
from twinreel.generate.models.velocity import VelocityOptions
from twinreel.generate.train.autoencoder import AutoencoderObjective
from twinreel.generate.train.flow import FlowObjective
from twinreel.generate.train.options import LossOptions
from twinreel.generate.train.stages import stages

SPEC = GeneratorSpec(
    input=InputSpec(num_frames=2, eval_video="center_crop(8)", context_length=5),
    size=8,
    autoencoder={"channels": 3, "stem": 4, "widths": (4,), "blocks": 1},
    flow={"width": 8, "depth": 1, "heads": 2, "patch": (1, 2, 2)},
    condition={"kind": "text", "vocab_size": 11, "width": 8, "depth": 1, "heads": 2},
)


@pytest.fixture(scope="module")
def generator():
    """One with random parameters, but for those that start as 0 (the last layer), 0 and 1 (the statistics)."""
    made = drawn(lambda: build_generator(SPEC, rngs=nnx.Rngs(0)))
    made.flow.out.kernel[...], made.flow.out.bias[...] = jnp.zeros((8, 12)), jnp.zeros(12)
    made.latent_mean.set_value(jnp.zeros(3))
    made.latent_std.set_value(jnp.ones(3))
    return made


def batch(rows=2):
    rng = np.random.default_rng(0)
    mask = np.ones((rows, 5), bool)
    mask[-1, 3:] = False
    return {
        "video": jnp.asarray(rng.integers(0, 256, (rows, 2, 8, 8, 3)), jnp.uint8),
        "text": jnp.asarray(rng.integers(0, 11, (rows, 5)), jnp.int32),
        "text_mask": jnp.asarray(mask),
        "valid": jnp.ones((rows,), bool),
    }


def test_divergence_from_a_normal_distribution():
    """Against the integral of the definition, in float64."""
    mean, logvar = np.array([0.0, 0.7, -2.0]), np.array([0.0, -1.5, 0.4])

    def integral(m, v):
        one, other = norm(m, np.exp(0.5 * v)), norm(0, 1)
        return quad(lambda x: one.pdf(x) * (one.logpdf(x) - other.logpdf(x)), -12, 12)[0]

    wanted = np.mean([integral(m, v) for m, v in zip(mean, logvar, strict=True)])
    found = kl_to_normal(jnp.asarray(mean, jnp.float32), jnp.asarray(logvar, jnp.float32))
    assert float(found.mean()) == pytest.approx(wanted, rel=1e-5)
    assert not kl_to_normal(jnp.zeros(3), jnp.zeros(3)).any()


def test_latents_are_drawn_with_mean_and_deviation():
    mean, logvar = jnp.full((20_000,), 2.0), jnp.full((20_000,), np.log(0.25), jnp.float32)
    found = np.asarray(drawn_latents(mean, logvar, key=jax.random.key(0)))
    assert found.mean() == pytest.approx(2, abs=0.02) and found.std() == pytest.approx(0.5, abs=0.02)


def test_pixels_and_back():
    pixels = jnp.arange(256, dtype=jnp.uint8)
    assert float(signed(pixels).min()) == -1 and float(signed(pixels).max()) == 1
    np.testing.assert_array_equal(rgb(signed(pixels)), pixels)
    np.testing.assert_array_equal(rgb(jnp.asarray([-3.0, 3.0])), [0, 255])


def test_each_frame_is_encoded_by_itself():
    model = FrameAutoencoder(AutoencoderOptions(channels=3, stem=2, widths=(4, 6)), rngs=nnx.Rngs(1))
    both = nnx.jit(lambda model, frames: (encoded := model.encode(frames), model.decode(encoded[0])))
    frames = batch()["video"][:, 0]
    (mean, logvar), made = both(model, frames)
    assert mean.shape == logvar.shape == (2, 2, 2, 3) and made.shape == frames.shape
    (changed, _), _ = both(model, frames.at[1].set(0))
    np.testing.assert_array_equal(changed[0], mean[0])


def test_a_generator_turns_clips_to_latents_and_noise_to_velocities(generator):
    given = batch()
    encode, decode = nnx.jit(lambda g, video: g.latents(video)), nnx.jit(lambda g, latents: g.frames(latents))
    latents = encode(generator, given["video"])
    assert latents.shape == (2, *SPEC.latents) == (2, 2, 2, 2, 3)
    generator.latent_mean[...], generator.latent_std[...] = jnp.full((3,), 0.5), jnp.full((3,), 2.0)
    np.testing.assert_allclose(encode(generator, given["video"]), (latents - 0.5) / 2, atol=1e-5)
    again = decode(generator, (latents - 0.5) / 2)
    generator.latent_mean[...], generator.latent_std[...] = jnp.zeros(3), jnp.ones(3)
    np.testing.assert_allclose(again.astype(int), decode(generator, latents).astype(int), atol=1)
    cue = generator.condition.of_text(given["text"], mask=given["text_mask"])
    at = jnp.asarray([0.25, 1.0])
    # Before training the predicted data are 0, so the velocity leads there in the time that is left.
    wanted = -np.asarray(latents) / np.array([0.75, 0.05])[:, None, None, None, None]
    found = nnx.jit(lambda g, x, cue: g.velocity(x, time=at, cue=cue))(generator, latents, cue)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_what_a_padded_word_is_makes_no_difference(generator):
    given = batch()
    made = [
        generator.condition.of_text(text, mask=given["text_mask"])
        for text in (given["text"], given["text"].at[-1, 3:].set(7))
    ]
    np.testing.assert_allclose(made[0].vector, made[1].vector, atol=1e-6)
    np.testing.assert_allclose(made[0].tokens[-1, :3], made[1].tokens[-1, :3], atol=1e-6)


def gradients(objective, given):
    model = objective.init(nnx.Rngs(0))
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    def loss(params):
        return objective.loss(nnx.merge(graph, params, rest), given, rngs=nnx.Rngs(jax.random.key(3)))

    (value, terms), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    return float(value), {k: float(v) for k, v in terms.items()}, dict(nnx.to_flat_state(grads))


def norms(grads, part):
    return {
        path: float(jnp.abs(g.get_value()).max())
        for path, g in grads.items()
        if path[0] == part and path[-1] == "kernel"
    }


def test_without_a_weight_there_is_no_critic():
    objective = AutoencoderObjective(SPEC, options=LossOptions(kl=0.5))
    value, terms, grads = gradients(objective, batch())
    assert not norms(grads, "critic") and set(terms) == {"reconstruction", "kl"}
    assert value == pytest.approx(terms["reconstruction"] + 0.5 * terms["kl"], rel=1e-5)


def test_autoencoder_and_critic_are_each_trained_by_their_own_loss():
    objective = AutoencoderObjective(SPEC, options=LossOptions(kl=0.0, adversarial=0.3))
    value, terms, grads = gradients(objective, batch())
    wanted = terms["reconstruction"] + 0.3 * terms["adversarial"] + terms["critic"]
    assert value == pytest.approx(wanted, rel=1e-5)
    twice = gradients(AutoencoderObjective(SPEC, options=LossOptions(kl=0.0, adversarial=0.6)), batch())[2]
    for path, value in norms(grads, "critic").items():  # the weight is not in the critic's loss
        assert value > 0 and norms(twice, "critic")[path] == pytest.approx(value, rel=1e-4)
    plain = gradients(AutoencoderObjective(SPEC, options=LossOptions(kl=0.0)), batch())[2]
    one, two = (flat(grads, plain), flat(twice, plain))
    np.testing.assert_allclose(two, 2 * one, atol=1e-4 * np.abs(two).max())  # and the autoencoder's is linear in it


def flat(grads, plain):
    """What the critic adds to the gradient of the autoencoder."""
    parts = [g.get_value() - plain[path].get_value() for path, g in grads.items() if path[0] == "autoencoder"]
    return np.concatenate([np.asarray(part).ravel() for part in parts])


def test_hinge_losses():
    real, made = jnp.asarray([2.0, 0.5]), jnp.asarray([-3.0, 0.5])
    np.testing.assert_allclose(critic_loss(real, made), [0 + 0, 0.5 + 1.5])
    np.testing.assert_allclose(maker_loss(made), [3.0, -0.5])


def test_no_term_of_the_autoencoder_sees_rows_that_are_not_valid():
    objective = AutoencoderObjective(SPEC, options=LossOptions(adversarial=0.3))
    model = objective.init(nnx.Rngs(0))
    terms = nnx.jit(lambda model, given: objective.loss(model, given, rngs=nnx.Rngs(jax.random.key(3)))[1])
    given = batch() | {"valid": jnp.asarray([True, False])}
    found, same = (terms(model, given | {"video": video}) for video in (given["video"], given["video"].at[1].set(255)))
    assert found.keys() == {"reconstruction", "kl", "adversarial", "critic"}
    for name, value in found.items():
        assert float(same[name]) == pytest.approx(float(value), rel=1e-5), name


def test_rows_that_are_not_valid_do_not_count(generator):
    objective = FlowObjective(SPEC, options=LossOptions())
    loss = nnx.jit(lambda model, given: objective.loss(model, given, rngs=nnx.Rngs(jax.random.key(3)))[0])
    given = batch() | {"valid": jnp.asarray([True, False])}
    found, same = (
        float(loss(generator, given | {"video": video})) for video in (given["video"], given["video"].at[1].set(255))
    )
    assert same == pytest.approx(found, rel=1e-6)
    other = float(loss(generator, given | {"video": given["video"].at[0].set(255)}))
    assert abs(other - found) > 1e-3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": 10}, "frames of 10 pixels do not divide by the 4 pixels of a latent place"),
        (
            {"flow": {"width": 8, "heads": 2, "patch": (2, 4, 4)}},
            r"config.flow.patch=\(2, 4, 4\) must divide the latents",
        ),
        ({"flow": {"width": 8, "heads": 2, "patsh": 1}}, "did you mean 'patch'"),
        ({"flow": {"width": 6, "heads": 2}}, "config.flow.width=6 must be a multiple of 4"),
        ({"autoencoder": {"channels": 0}}, "config.autoencoder.channels must be at least 1, got 0"),
        (
            {"autoencoder": {"widths": ()}},
            r"config.autoencoder.widths must be channels of at least one stage, got \(\)",
        ),
    ],
)
def test_sizes_that_do_not_fit(changes, words):
    spec = dataclasses.replace(SPEC, **changes)
    with pytest.raises(UserError, match=words):
        nnx.eval_shape(lambda: build_generator(spec, rngs=nnx.Rngs(0)))


def test_bad_options():
    for fields, words in (
        ({"kl": -1.0}, "config.loss.kl must be a weight of at least 0"),
        ({"drop_condition": 1.0}, "config.loss.drop_condition must be at least 0 and below 1"),
        ({"time_spread": 0.0}, "config.loss.time_spread must be above 0"),
        ({"time_mean": 20.0}, "config.loss.time_mean must be between -10 and 10"),
    ):
        with pytest.raises(UserError, match=words):
            LossOptions(**fields)
    with pytest.raises(UserError, match="did you mean 'tower'"):
        condition_options({"kind": "towre"})
    with pytest.raises(UserError, match=r"config.condition.source is empty"):
        condition_options({"kind": "tower", "source": ""})
    with pytest.raises(UserError, match="a share from 0 to 1"):
        condition_options({"kind": "tower", "source": "x", "clips": 2.0})
    with pytest.raises(UserError, match=r"config.flow.patch must be frames, rows and columns"):
        VelocityOptions(patch=(1, 2))


def test_the_spec_survives_json():
    again = GeneratorSpec.from_dict(SPEC.to_dict(), name="it")
    assert again.to_dict() == SPEC.to_dict()
    with pytest.raises(UserError, match="it is of format 0"):
        GeneratorSpec.from_dict({**SPEC.to_dict(), "format": 0}, name="it")
    with pytest.raises(UserError, match="did you mean 'flow'"):
        GeneratorSpec.from_dict({**SPEC.to_dict(), "flwo": {}}, name="it")


@pytest.mark.parametrize(("name", "size", "frames"), [("demo_generate", 48, 8), ("generate_clip_b32", 224, 12)])
def test_the_sizes_of_shipped_configs_fit(name, size, frames):
    config = load_config(name)
    spec = dataclasses.replace(
        SPEC,
        input=dataclasses.replace(SPEC.input, num_frames=frames),
        size=size,
        autoencoder=config.autoencoder.to_dict(),
        flow=config.flow.to_dict(),
    )
    section(LossOptions, config.loss, name="loss")
    made = nnx.eval_shape(lambda: build_generator(spec, rngs=nnx.Rngs(0)))
    tokens = frames // 2 * {48: 9, 224: 196}[size]
    assert made.flow.position.shape == (tokens, config.flow.width)
    assert stages(config)[0].data.num_frames == 1
