"""The objective: parts of a batch, pairs of modalities, losses by name, phases."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from twinreel.configs.errors import UserError
from twinreel.data.batches.synthetic import synthetic_batch
from twinreel.engine.mesh import make_mesh
from twinreel.pretrain.objective import Contrastive

SIZES = {"num_frames": 2, "context_length": 6, "vocab_size": 20}
VIDEO = {"image_size": 16, "patch": 4, "width": 8, "depth": 2, "heads": 2, "temporal_depth": 1, "mlp_ratio": 2.0}
TEXT = {"width": 8, "depth": 1, "heads": 2, "mlp_ratio": 2.0}
AUDIO = {"mels": 8, "patch": 4, "width": 8, "depth": 1, "heads": 2}
SAMPLES = 400 + 4 * 160


def objective(*, loss=None, video=None, text=None, audio=False, **options):
    model = {"embed_dim": 6, "video": VIDEO | (video or {}), "text": TEXT | (text or {})}
    if audio:
        model["audio"] = AUDIO
        options["audio_samples"] = SAMPLES
    return Contrastive(model=model, loss=loss or {}, **SIZES, **options)


def batch(rows=16, *, audio=False):
    made = synthetic_batch(0, batch_size=rows, image_size=16, seed=0, audio_samples=SAMPLES if audio else 0, **SIZES)
    made["valid"][3] = False
    return {
        key: jnp.asarray(value.astype(np.int32) if value.dtype == np.int64 else value) for key, value in made.items()
    }


def gradient(made, rows, *, mesh=None, phase="masked"):
    graph, params = nnx.split(made.init(nnx.Rngs(0)))

    def loss(params, rows):
        return made.loss(nnx.merge(graph, params), rows, rngs=nnx.Rngs(jax.random.key(5)), phase=phase)

    compiled = jax.jit(jax.value_and_grad(loss, has_aux=True))
    if mesh is None:
        return compiled(params, rows)
    with jax.set_mesh(mesh):
        spread = jax.device_put(rows, NamedSharding(mesh, PartitionSpec(("replica", "fsdp"))))
        return compiled(jax.device_put(params, NamedSharding(mesh, PartitionSpec())), spread)


def assert_close(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=2e-6), a, b)


NOISY = {"video": {"dropout": 0.2, "patch_dropout": 0.5}, "text": {"dropout": 0.2}}


@pytest.fixture(scope="module")
def whole():
    """Loss and gradient of the full batch, with dropout and patch dropout."""
    return gradient(objective(**NOISY), batch())


@pytest.mark.parametrize("parts", [2, 4, 16])
def test_parts_have_the_gradient_of_the_full_batch(parts, whole):
    assert_close(gradient(objective(loss={"microbatch": parts}, **NOISY), batch()), whole)


@pytest.mark.parametrize(
    "loss", [{"microbatch": 2}, {"microbatch": 2, "form": "blockwise", "exchange": "ring"}], ids=str
)
def test_parts_on_a_mesh_have_it_too(loss, whole):
    mesh = make_mesh(replica=2, fsdp=2, devices=jax.devices()[:4])
    assert_close(gradient(objective(loss=loss, **NOISY), batch(), mesh=mesh), whole)


def test_parts_need_less_memory_for_activations():
    def temporary_bytes(parts):
        made = objective(loss={"microbatch": parts}, video={"depth": 4})
        graph, params = nnx.split(made.init(nnx.Rngs(0)))
        grad = jax.grad(lambda p: made.loss(nnx.merge(graph, p), batch(64), rngs=None)[0])
        return jax.jit(grad).lower(params).compile().memory_analysis().temp_size_in_bytes

    assert temporary_bytes(8) < temporary_bytes(1) / 3


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ({"microbatch": 5}, r"microbatch=5 must divide the 16 rows that each of 1 devices has of .*batch_size=16"),
        ({"microbatch": 0}, r"microbatch must be at least 1, got 0"),
        ({"name": "info_nce"}, r"config\.loss\.name 'info_nce'; did you mean 'infonce'"),
        ({"pairs": {"video_txt": 1.0}}, r"config\.loss\.pairs 'video_txt'; did you mean 'video_text'"),
        ({"pairs": {"video_text": 0.0}}, r"gives no pair a weight"),
        ({"pairs": {"video_text": -1.0}}, r"pairs\.video_text must not be negative, got -1\.0"),
        ({"pairs": {"video_audio": 1.0}}, r"add config\.model\.audio"),
        ({"name": "mil_nce", "pairs": {"video_audio": 1.0}}, r"mil_nce.*config\.loss\.pairs has video_audio"),
        ({"mask_same_text": True}, r"field of config\.loss 'mask_same_text'"),
    ],
)
def test_mistakes_name_the_field(loss, message):
    with pytest.raises(UserError, match=message):
        gradient(objective(loss=loss), batch())


def test_pairs_are_summed_with_their_weights_over_the_clips_that_have_both():
    rows = batch(audio=True)
    rows["audio_mask"] = jnp.arange(16) % 3 != 0
    weights = {"video_text": 1.0, "video_audio": 0.5, "audio_text": 0.25}
    (loss, metrics), grads = gradient(objective(loss={"pairs": weights}, audio=True), rows)
    np.testing.assert_allclose(loss, sum(w * metrics[f"loss_{pair}"] for pair, w in weights.items()), rtol=1e-6)
    assert {"accuracy_v2t", "accuracy_t2v", "accuracy_v2a", "accuracy_a2v", "accuracy_a2t", "accuracy_t2a"} < set(
        metrics
    )
    for pair in weights:
        (alone, _), _ = gradient(objective(loss={"pairs": {pair: 1.0}}, audio=True), rows)
        np.testing.assert_allclose(alone, metrics[f"loss_{pair}"], rtol=1e-5)
    silent = rows | {"audio": jnp.where(rows["audio_mask"][:, None], rows["audio"], jnp.int16(77))}
    (same, _), same_grads = gradient(objective(loss={"pairs": weights}, audio=True), silent)
    np.testing.assert_allclose(same, loss, rtol=1e-6)
    assert_close(same_grads, grads)


def test_the_sigmoid_loss_brings_its_bias_and_learns_it():
    made = objective(loss={"name": "sigmoid"})
    model = made.init(nnx.Rngs(0))
    assert float(model.bias[...]) == -10.0 and float(model.scale) == pytest.approx(10.0)
    (loss, metrics), grads = gradient(made, batch())
    assert float(metrics["bias"]) == -10.0 and np.isfinite(loss) and float(grads["bias"].get_value()) != 0.0
    assert not hasattr(objective().init(nnx.Rngs(0)), "bias")


def test_mil_nce_takes_several_captions():
    rows = batch(8)
    text = jnp.stack([rows["text"], jnp.roll(rows["text"], 1, axis=0)], axis=1)  # [B,2,L]
    mask = jnp.stack([rows["text_mask"], jnp.zeros_like(rows["text_mask"])], axis=1)
    several = rows | {"text": text, "text_mask": mask}
    one = rows | {"text": text[:, :1], "text_mask": mask[:, :1]}
    made = objective(loss={"name": "mil_nce"})
    np.testing.assert_allclose(gradient(made, several)[0][0], gradient(made, one)[0][0], rtol=1e-5)


def test_the_last_steps_see_all_patches():
    made = objective(loss={"unmasked_steps": 3}, video={"patch_dropout": 0.5}, steps=10)
    assert [made.phase(step) for step in (0, 6, 7, 9)] == ["masked", "masked", "unmasked", "unmasked"]
    (masked, _), _ = gradient(made, batch())
    (unmasked, _), _ = gradient(made, batch(), phase="unmasked")
    (plain, _), _ = gradient(objective(), batch())
    np.testing.assert_allclose(unmasked, plain, rtol=1e-6)
    assert abs(float(masked) - float(plain)) > 1e-4
