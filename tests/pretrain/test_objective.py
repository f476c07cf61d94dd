"""The contrastive objective: pairs of modalities against NumPy, encoding in parts against the whole batch, phases."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dual_towers import input_of
from flax import nnx

from twinreel.base.config import load_config
from twinreel.base.errors import UserError
from twinreel.data.batches.synthetic import synthetic_batch
from twinreel.data.options import DataOptions
from twinreel.engine.optimizer.optimizer import make_optimizer
from twinreel.engine.sharding.mesh import BATCH_AXES, make_mesh, put_batch
from twinreel.engine.step.state import StateBuilder
from twinreel.pretrain.objective import Contrastive, make_objective

B, S = 8, 2800  # rows; samples of sound, enough for one patch of 16 frames
TOWER = {"width": 8, "depth": 2, "heads": 2, "mlp_ratio": 2.0, "dropout": 0.2}
VIDEO = TOWER | {"image_size": 8, "patch": 4, "temporal_depth": 0, "patch_dropout": 0.5}
MODEL = {"embed_dim": 6, "video": VIDEO, "text": TOWER}
SOUND = MODEL | {"audio": TOWER | {"depth": 1, "dropout": 0.0}}
SIZES = {"num_frames": 2, "context_length": 5, "vocab_size": 11}


def objective(*, model=MODEL, sound=0, steps=0, unmasked_steps=0, **loss):
    spec = input_of(num_frames=2, context_length=5, audio_samples=sound)
    return Contrastive(model=model, loss=loss, input=spec, vocab_size=11, steps=steps, unmasked_steps=unmasked_steps)


def batch_of(rows=B, *, sound=0, candidates=1):
    return synthetic_batch(0, batch_size=rows, image_size=8, seed=3, audio_samples=sound, captions=candidates, **SIZES)


def on_device(batch):
    return {key: jnp.asarray(value) for key, value in batch.items() if key != "clip_index"}


@functools.cache
def graph_and_params(objective):
    return nnx.split(objective.init(nnx.Rngs(0)))


def value_and_gradients(objective, batch, *, phase="masked", key=7):
    graph, params = graph_and_params(objective)

    @jax.jit
    def run(params, batch):
        def loss_of(params):
            return objective.loss(nnx.merge(graph, params), batch, rngs=nnx.Rngs(jax.random.key(key)), phase=phase)[0]

        return jax.value_and_grad(loss_of)(params)

    loss, gradients = run(params, batch)
    return float(loss), {
        jax.tree_util.keystr(p): np.asarray(g) for p, g in jax.tree_util.tree_leaves_with_path(gradients)
    }


def assert_same(got, wanted):
    assert got[0] == pytest.approx(wanted[0], rel=1e-5)
    assert got[1].keys() == wanted[1].keys()
    for path, gradient in wanted[1].items():
        np.testing.assert_allclose(got[1][path], gradient, rtol=1e-4, atol=1e-5, err_msg=path)


@functools.cache
def whole(name="infonce"):
    return value_and_gradients(objective(name=name), on_device(batch_of()))


@pytest.mark.parametrize(
    ("parts", "grad_cache"), [(2, True), (2, False), pytest.param(4, True, marks=pytest.mark.slow)]
)
def test_encoding_in_parts_has_the_loss_and_gradients_of_the_whole_batch(parts, grad_cache):
    wanted = whole()
    made = objective(microbatch=parts, grad_cache=grad_cache)
    assert_same(value_and_gradients(made, on_device(batch_of())), wanted)
    assert max(np.abs(g).max() for g in wanted[1].values()) > 1e-2
    other = value_and_gradients(objective(), on_device(batch_of()), key=8)
    assert abs(other[0] - wanted[0]) > 1e-4  # another step draws otherwise, so the draws do count


@pytest.mark.slow
@pytest.mark.parametrize(("name", "parts"), [("infonce", 1), ("infonce", 2), ("sigmoid", 2)])
def test_parts_on_a_mesh_of_two_by_two_equal_one_device(name, parts):
    mesh = make_mesh(replica=2, fsdp=2, devices=jax.devices()[:4])
    with jax.set_mesh(mesh):
        batch = {key: value for key, value in put_batch(batch_of(), mesh=mesh).items() if key != "clip_index"}
        made = objective(name=name, microbatch=parts, form="blockwise", block=3)
        got = value_and_gradients(made, batch)
    assert_same(got, whole(name))


@pytest.mark.slow
def test_parts_need_less_memory():
    def temporaries(parts):
        made = objective(microbatch=parts)
        graph, params = graph_and_params(made)

        def loss_of(params, batch):
            return made.loss(nnx.merge(graph, params), batch, rngs=nnx.Rngs(jax.random.key(0)))[0]

        compiled = jax.jit(jax.grad(loss_of)).lower(params, on_device(batch_of(64))).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporaries(8) < 0.5 * temporaries(1)


def info_nce64(x, y, *, scale, valid):
    """InfoNCE by loops over rows, float64."""
    rows, total = np.flatnonzero(valid), 0.0
    scores = scale * x.astype(np.float64) @ y.astype(np.float64).T
    for i in rows:
        for line in (scores[i, rows], scores[rows, i]):
            total += 0.5 * (np.log(np.sum(np.exp(line - line.max()))) + line.max() - scores[i, i])
    return total / len(rows)


def test_pairs_are_weighted_and_a_row_takes_part_by_what_it_has():
    weights = {"video_text": 1.0, "video_audio": 0.5, "audio_text": 0.25}
    made = objective(model=SOUND, sound=S, pairs=weights, same_text="negative")
    batch = batch_of(sound=S)
    batch["valid"][0] = False
    batch["audio_mask"][[2, 5]] = False
    batch["caption_index"][3] = -1
    model = made.init(nnx.Rngs(0))
    loss, logged = nnx.jit(lambda m, b: made.loss(m, b, rngs=None))(model, on_device(batch))
    there = {"video": batch["valid"], "text": batch["valid"] & (batch["caption_index"] >= 0)}
    there["audio"] = batch["valid"] & batch["audio_mask"]
    embedded = {
        "video": model.encode_video(jnp.asarray(batch["video"])),
        "text": model.encode_text(jnp.asarray(batch["text"]), mask=jnp.asarray(batch["text_mask"])),
        "audio": model.encode_audio(jnp.asarray(batch["audio"])),
    }
    wanted = 0.0
    for pair, weight in weights.items():
        x, y = pair.split("_")
        one = info_nce64(
            np.asarray(embedded[x]), np.asarray(embedded[y]), scale=float(model.scale), valid=there[x] & there[y]
        )
        assert float(logged[f"loss_{pair}"]) == pytest.approx(one, rel=2e-5)
        wanted += weight * one
    assert float(loss) == pytest.approx(wanted, rel=2e-5)
    assert {"accuracy_v2t", "accuracy_t2v", "accuracy_v2a", "accuracy_a2v", "accuracy_a2t", "scale"} <= logged.keys()


def test_a_batch_without_any_sound_has_no_loss_and_no_nan_from_it():
    made = objective(model=SOUND, sound=S, pairs={"video_audio": 1.0})
    batch = batch_of(sound=S)
    batch["audio_mask"][:] = False
    loss, gradients = value_and_gradients(made, on_device(batch))
    assert loss == 0.0
    assert not any(g.any() for g in gradients.values())


def test_the_cap_of_the_scale_judges_all_pairs_together(monkeypatch):
    made = objective(model=SOUND, sound=S, pairs={"video_text": 1.0, "video_audio": 1.0})
    slopes, hits = {"text": -2.0, "audio": 1.0}, {"accuracy_x2y": 0.0, "accuracy_y2x": 0.0}
    monkeypatch.setattr(made, "_encode", lambda *_, **__: {})
    monkeypatch.setattr(made, "_has", lambda *_: None)
    monkeypatch.setattr(made, "_pair", lambda *_, scale, y, **__: (jnp.float32(slopes[y]) * scale, hits))
    graph, params = nnx.split(made.init(nnx.Rngs(0)))
    params["log_scale"][...] = jnp.float32(9.0)
    gradient = jax.grad(lambda p: made.loss(nnx.merge(graph, p), {}, rngs=None)[0])(params)
    assert float(gradient["log_scale"][...]) == 0.0  # together they ask for more


@pytest.mark.parametrize(("name", "loss"), [("infonce", "info_nce"), ("sigmoid", "sigmoid"), ("mil_nce", "mil_nce")])
def test_the_loss_is_told_over_which_mesh_axes_its_rows_are_split(name, loss, monkeypatch):
    given, made = {}, objective(name=name)
    hits = {"accuracy_x2y": 0.0, "accuracy_y2x": 0.0}
    monkeypatch.setattr(made, "_encode", lambda *_, **__: dict.fromkeys(("video", "text"), jnp.zeros((B, 6))))
    monkeypatch.setattr(f"twinreel.pretrain.objective.{loss}", lambda **how: given.update(how) or (jnp.zeros(()), hits))
    made.loss(made.init(nnx.Rngs(0)), on_device(batch_of()), rngs=None)
    assert given["axes"] == BATCH_AXES


def mil_nce64(video, text, *, there, scale):
    """MIL-NCE by its definition (Miech et al. 2020, equation 1), float64; `there` [B,C]."""
    video, text, losses = video.astype(np.float64), text.astype(np.float64), []
    for i in range(len(video)):
        if not there[i].any():
            continue
        own = sum(np.exp(scale * video[i] @ text[i, c]) for c in np.flatnonzero(there[i]))
        rest = 0.0
        for j in range(len(video)):
            if j != i and there[j].any():
                rest += sum(np.exp(scale * video[i] @ text[j, c]) for c in np.flatnonzero(there[j]))
                rest += sum(np.exp(scale * video[j] @ text[i, c]) for c in np.flatnonzero(there[i]))
        losses.append(-np.log(own / (own + rest)))
    return np.mean(losses)


def test_mil_nce_compares_candidates_that_are_there():
    made, batch = objective(name="mil_nce", microbatch=2), batch_of(candidates=3)
    batch["caption_index"][1, 2] = batch["caption_index"][4, 1] = -1
    batch["caption_index"][6] = -1
    model = made.init(nnx.Rngs(0))
    loss, _ = nnx.jit(lambda m, b: made.loss(m, b, rngs=None))(model, on_device(batch))
    video = np.asarray(model.encode_video(jnp.asarray(batch["video"])))
    text = [
        np.asarray(model.encode_text(jnp.asarray(batch["text"][:, c]), mask=jnp.asarray(batch["text_mask"][:, c])))
        for c in range(3)
    ]
    wanted = mil_nce64(video, np.stack(text, axis=1), there=batch["caption_index"] >= 0, scale=float(model.scale))
    assert float(loss) == pytest.approx(wanted, rel=2e-5)


def test_the_sigmoid_loss_starts_as_its_paper_says_and_only_it_has_a_bias():
    model = objective(name="sigmoid").init(nnx.Rngs(0))
    assert float(model.scale) == pytest.approx(10) and float(model.bias[...]) == -10
    assert not hasattr(objective().init(nnx.Rngs(0)), "bias")
    chosen = objective(name="sigmoid", model=MODEL | {"initial_bias": -3.0}).init(nnx.Rngs(0))
    assert float(chosen.bias[...]) == -3


def test_the_last_steps_see_all_patches():
    made = objective(steps=10, unmasked_steps=3)
    assert [made.phase(step) for step in (0, 6, 7, 9)] == ["masked", "masked", "unmasked", "unmasked"]
    assert objective(steps=10).phase(9) == "masked"
    whole_frames = MODEL | {"video": VIDEO | {"patch_dropout": 0.0}}
    plain = objective(model=whole_frames)
    batch = on_device(batch_of())
    unmasked = value_and_gradients(made, batch, phase="unmasked")
    assert_same(unmasked, value_and_gradients(plain, batch))
    assert abs(unmasked[0] - whole()[0]) > 1e-4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "infonec"}, "did you mean 'infonce'"),
        ({"pairs": {"video_txt": 1.0}}, "did you mean 'video_text'"),
        ({"pairs": {"video_text": -1.0}}, r"config\.loss\.pairs\.video_text"),
        ({"pairs": {"video_text": 0.0}}, "a weight above 0"),
        ({"pairs": {"video_audio": 1.0}}, r"config\.model\.audio"),
        (
            {"model": MODEL | {"video": TOWER}, "steps": 10, "unmasked_steps": 3},
            r"set config\.model\.video\.patch_drop",
        ),
        ({"name": "mil_nce", "label_smoothing": 0.1}, "mil_nce"),
        ({"name": "mil_nce", "form": "blocks"}, r"config\.loss\.form"),
        ({"name": "sigmoid", "hard_negative": 0.5}, r"config\.loss\.hard_negative"),
        ({"name": "sigmoid", "same_text": "positve"}, r"config\.loss\.same_text.*did you mean 'positive'"),
        ({"form": "blockwize"}, r"config\.loss\.form.*did you mean 'blockwise'"),
        ({"exchange": "rnig"}, r"config\.loss\.exchange.*did you mean 'ring'"),
        ({"block": 0}, r"config\.loss\.block must be at least 1, got 0"),
        ({"label_smoothing": 1.5}, r"config\.loss\.label_smoothing must be from 0 to 1"),
        ({"microbatch": 0}, r"config\.loss\.microbatch must be at least 1, got 0"),
        ({"mask_same_text": True}, "same_text"),
    ],
)
def test_mistakes_in_the_options_are_named(options, message):
    with pytest.raises(UserError, match=message):
        objective(**options)


def embedded_twice(made, *, frozen):
    """What the towers that such a run trains make of a batch in two steps."""
    optimizer = make_optimizer(steps=1, lr=0.1, frozen=frozen)
    plan = StateBuilder(objective=made, optimizer=optimizer, mesh=make_mesh(devices=jax.devices()[:1]), seed=0)
    encode = nnx.jit(lambda model, batch, key: made._encode(model, batch, rngs=nnx.Rngs(key), drop_patches=True))
    model, batch = plan.model(plan.init()), on_device(batch_of(sound=S))
    return model, [jax.device_get(encode(model, batch, jax.random.key(step))) for step in (1, 2)]


@pytest.mark.parametrize(
    ("frozen", "still"),
    [
        (("^video/",), {"video"}),
        (("^text/", "^audio/"), {"text", "audio"}),
        (("^video/space/", "^text_projection/"), set()),
    ],
)
def test_frozen_towers_are_deterministic_and_only_they(frozen, still):
    """LiT: dropout and patch dropout in a tower that does not learn only blur its targets."""
    tower, sound = TOWER | {"depth": 1}, "^audio/" in frozen
    towers = {"embed_dim": 6, "video": VIDEO | {"depth": 1}, "text": tower} | ({"audio": tower} if sound else {})
    pairs = {"video_text": 1.0} | ({"video_audio": 1.0} if sound else {})
    made = objective(model=towers, sound=S * sound, pairs=pairs)
    model, (one, other) = embedded_twice(made, frozen=frozen)
    assert {side for side in one if np.array_equal(one[side], other[side])} == still
    if "video" in still:  # as it is evaluated: all patches, no dropout
        wanted = model.encode_video(jnp.asarray(batch_of(sound=S)["video"]))
        np.testing.assert_allclose(one["video"], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["infonce", "mil_nce"])
def test_a_loss_that_compares_rows_wants_two(name):
    with pytest.raises(UserError, match="batch_size must be at least 2, got 1"):
        objective(name=name).check_batch_size(1)
    assert objective(name=name).check_batch_size(2) == ""
    made = objective(name=name)  # and whatever made the batch so small
    with pytest.raises(UserError, match="batch_size must be at least 2, got 1"):
        made.loss(made.init(nnx.Rngs(0)), on_device(batch_of(1)), rngs=None)
    changed = [f"loss.name={name}", "loss.hard_negative=0.0", "data.batch_size=1", "data.foils_per_clip=0"]
    config = load_config("demo", overrides=changed)
    with pytest.raises(UserError, match="batch_size must be at least 2, got 1"):
        make_objective(config, data=DataOptions.of(config.data), vocab_size=11)


def test_one_pair_is_enough_for_the_sigmoid_loss_but_worth_a_warning():
    made = objective(name="sigmoid")
    assert "batch_size=1: the sigmoid loss sees one matching pair" in made.check_batch_size(1)
    loss, _ = made.loss(made.init(nnx.Rngs(0)), on_device(batch_of(1)), rngs=None)
    assert float(loss) > 0


def test_batches_that_do_not_fit_are_named():
    batch, rngs = on_device(batch_of()), nnx.Rngs(0)
    made = objective(microbatch=3)
    with pytest.raises(UserError, match=r"config\.loss\.microbatch=3 must divide the 8 rows"):
        made.loss(made.init(rngs), batch, rngs=None)
    made = objective()
    with pytest.raises(UserError, match=r"captions_per_clip=2 needs config\.loss\.name='mil_nce'"):
        made.loss(made.init(rngs), on_device(batch_of(candidates=2)), rngs=None)
    made = objective(model=SOUND, sound=S, pairs={"video_audio": 1.0})
    with pytest.raises(UserError, match="needs 'audio'"):
        made.loss(made.init(rngs), batch, rngs=None)
