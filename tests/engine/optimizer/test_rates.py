"""What each parameter gets of the learning rate and of weight decay, where layers are stacked."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dual_towers import build
from flax import nnx

from twinreel.base.errors import UserError
from twinreel.engine.optimizer.optimizer import make_optimizer
from twinreel.engine.optimizer.rates import layer_distances
from twinreel.engine.optimizer.transforms import OPTIMIZERS
from twinreel.engine.step.state import split_model

SHAPES = {
    "log_scale": (),
    "text/blocks/layers/up/bias": (3, 5),
    "text/blocks/layers/up/kernel": (3, 4, 5),
    "text/embedding": (7, 4),
    "text_projection/kernel": (4, 2),
    "video/embed/kernel": (6, 4),
    "video/space/layers/up/kernel": (2, 4, 5),
    "video/space_position": (9, 4),
    "video/time/layers/up/kernel": (1, 4, 5),
}


def moved(params=None, *, model=None, **options):
    """How far one step of plain gradient descent with gradient 1 and rate 1 goes."""
    optimizer = make_optimizer(steps=1, name="sgd", b1=0.0, lr=1.0, schedule="constant", **options)
    optimizer = optimizer if model is None else optimizer.for_model(model)
    params = params or {path: jnp.full(shape, 2.0) for path, shape in SHAPES.items()}
    grads = jax.tree.map(jnp.ones_like, params)
    step = jnp.int32(0)
    new, _ = jax.jit(lambda p, g: optimizer.update(g, state=optimizer.init(p), params=p, step=step))(params, grads)
    return {path: np.asarray(params[path] - new[path], np.float64) for path in params}


def towers(*, depth=12, temporal_depth=4):
    """The real towers, tiny, with all that they can have between and around their stacks of layers."""
    block = {"width": 8, "heads": 2, "mlp_ratio": 1.0}
    return build(
        video=block | {"image_size": 8, "patch": 4, "stem": 2, "pool": "depthwise", "depth": depth,
                       "temporal_depth": temporal_depth},
        text=block | {"depth": 2},
        audio=block | {"depth": 1},
        embed_dim=4, num_frames=2, context_length=5, vocab_size=11, audio_samples=2800, rngs=nnx.Rngs(0),
    )  # fmt: skip


def test_biases_of_stacked_layers_are_not_decayed():
    got = moved(weight_decay=0.25, no_decay=("embedding$",))
    decayed = {path for path, value in got.items() if np.allclose(value, 1.5)}
    assert decayed == {path for path in SHAPES if path.endswith("kernel")} | {"video/space_position"}
    assert all(np.allclose(got[path], 1.0) for path in SHAPES.keys() - decayed)


def test_towers_have_rates_of_their_own():
    got = moved(lr_scale=(("/embedding$", 0.0), ("^text/", 0.1), ("text", 0.5)))
    wanted = {"text/embedding": 0.0, "text_projection/kernel": 0.5}
    for path, value in got.items():
        factor = wanted.get(path, 0.1 if path.startswith("text/") else 1.0)
        np.testing.assert_allclose(value, factor, rtol=1e-6, err_msg=path)


def expected_rates(by_prefix, paths):
    """The rate of each path: of the first beginning that fits, in a table by hand."""
    return {path: next((rate for start, rate in by_prefix.items() if path.startswith(start)), None) for path in paths}


def test_layer_wise_decay_follows_the_depth_of_the_real_towers():
    model = towers()
    params = {path: jnp.full(value.shape, 2.0) for path, value in split_model(model).items()}
    got = moved(params, model=model, layer_decay=0.75, lr_scale=(("^text/", 0.1),))
    between = 0.75**4.5
    assert 0.24 < between < 0.30  # after spatial block 12 (0.237), before temporal block 13 (0.316)
    by_hand = {
        "video/embed/": 0.75**17,
        "video/space_position": 0.75**17,
        "video/space/layers/": [0.75 ** (17 - l) for l in range(1, 13)],  # noqa: E741
        "video/space/norm/": between,
        "video/pool": between,
        "video/time_position": between,
        "video/time/layers/": [0.75**4, 0.75**3, 0.75**2, 0.75],
        "video/time/norm/": 1.0,
        "text/embedding": 0.1 * 0.75**3,
        "text/position": 0.1 * 0.75**3,
        "text/blocks/layers/": [0.1 * 0.75**2, 0.1 * 0.75],
        "text/blocks/norm/": 0.1,
        "audio/embed/": 0.75**2,
        "audio/position": 0.75**2,
        "audio/blocks/layers/": [0.75],
        "audio/blocks/norm/": 1.0,
        "video_projection/": 1.0,
        "text_projection/": 1.0,
        "audio_projection/": 1.0,
        "log_scale": 1.0,
    }
    assert {"video/embed/stem/kernel", "video/embed/norm/scale", "video/pool", "video/space/norm/bias"} <= got.keys()
    for path, rate in expected_rates(by_hand, got).items():
        each = np.reshape(rate, (-1, *[1] * (got[path].ndim - 1))) if np.ndim(rate) else rate
        np.testing.assert_allclose(got[path], np.broadcast_to(each, got[path].shape), rtol=1e-5, err_msg=path)


def test_every_part_of_a_tower_has_a_place_in_its_order():
    block = {"width": 8, "heads": 2, "mlp_ratio": 1.0, "block": {"layer_scale": 0.1, "fused_qkv": False}}
    video = block | {"image_size": 8, "patch": 4, "depth": 1, "temporal_depth": 1}
    text = block | {"depth": 1, "pool": "attention"}
    sizes = {"num_frames": 2, "context_length": 5, "vocab_size": 11}
    model = nnx.eval_shape(lambda: build(video=video, text=text, embed_dim=4, **sizes, rngs=nnx.Rngs(0)))
    distances = layer_distances(model)
    towers = {path for path in split_model(model) if path.startswith(("video/", "text/"))}
    assert distances.keys() == towers
    assert distances["text/pooler/attention/out/kernel"] == 0
    np.testing.assert_array_equal(distances["text/blocks/layers/scale1"], [1])


def test_rates_follow_the_model_where_some_of_its_layers_are_not_trained():
    model = towers(depth=3, temporal_depth=1)
    params = {path: jnp.ones(v.shape) for path, v in split_model(model).items() if path.startswith("video/time")}
    got = moved(params, model=model, layer_decay=0.5)
    np.testing.assert_allclose(got["video/time/layers/up/kernel"], 0.5, rtol=1e-6)
    np.testing.assert_allclose(got["video/time_position"], 0.5**1.5, rtol=1e-6)


def test_without_temporal_layers_what_follows_the_spatial_ones_is_at_the_output():
    distances = layer_distances(towers(depth=2, temporal_depth=0))
    np.testing.assert_array_equal(distances["video/space/layers/up/kernel"], [2, 1])
    for path in ("video/space/norm/scale", "video/pool", "video/time_position", "video/time/norm/scale"):
        assert distances[path] == 0, path
    assert distances["video/embed/out/kernel"] == 3


def trajectory(params, grads, **options):
    optimizer = make_optimizer(steps=len(grads), lr=0.1, schedule="constant", **options)
    state = jax.jit(optimizer.init)(params)
    update = jax.jit(lambda g, s, p, step: optimizer.update(g, state=s, params=p, step=step))
    for step, grad in enumerate(grads):
        params, state = update(grad, state, params, jnp.int32(step))
    return params, state


@pytest.mark.parametrize("name", ["adafactor", "lamb", "muon"])
def test_a_stacked_layer_trains_as_it_would_alone(name):
    """Matrices of 130 x 128 are large enough for Adafactor to factor; depth 2 is not confused with them."""
    rng = np.random.default_rng(0)
    shapes = {"t/layers/up/kernel": (2, 130, 128), "t/layers/up/bias": (2, 128)}
    draw = lambda: {k: rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}  # noqa: E731
    start, grads = draw(), [draw() for _ in range(3)]
    grads = [{k: np.concatenate([v[:1], 10 * v[1:]]) for k, v in g.items()} for g in grads]  # layers of unlike size
    options = {"name": name, "weight_decay": 0.1}
    whole, _ = trajectory(jax.tree.map(jnp.asarray, start), grads, **options)
    second = lambda tree: {k: jnp.asarray(v[1:]) for k, v in tree.items()}  # noqa: E731
    alone, _ = trajectory(second(start), [second(g) for g in grads], **options)
    for path, value in alone.items():
        np.testing.assert_allclose(whole[path][1], value[0], rtol=2e-4, atol=2e-5, err_msg=path)


def adafactor_by_hand(param, grads, *, lr, b1, cap):
    """Shazeer & Stern 2018, algorithm 4, of one matrix, in float64; momentum as a moving average of updates."""
    row, column, average = np.zeros(param.shape[0]), np.zeros(param.shape[1]), np.zeros_like(param)
    for t, grad in enumerate(grads, start=1):
        decay = min(1 - t**-0.8, cap)
        square = grad**2 + 1e-30
        row = decay * row + (1 - decay) * square.mean(axis=1)
        column = decay * column + (1 - decay) * square.mean(axis=0)
        update = grad / np.sqrt(np.outer(row, column) / row.mean())
        update = update / max(1.0, np.sqrt((update**2).mean()))
        average = b1 * average + (1 - b1) * update
        param = param - lr * average
    return param


def muon_by_hand(param, grads, *, lr, beta):
    """Jordan et al. 2024 with Nesterov momentum, of one matrix, in float64."""
    if param.shape[0] > param.shape[1]:
        return muon_by_hand(param.T, [grad.T for grad in grads], lr=lr, beta=beta).T
    moment = np.zeros_like(param)
    for t, grad in enumerate(grads, start=1):
        moment = beta * moment + (1 - beta) * grad
        x = beta * moment / (1 - beta ** (t + 1)) + (1 - beta) * grad / (1 - beta**t)
        x = x / np.linalg.norm(x)
        for _ in range(5):
            a = x @ x.T
            x = 3.4445 * x + (-4.775 * a + 2.0315 * a @ a) @ x
        param = param - lr * 0.2 * np.sqrt(max(param.shape)) * x
    return param


@pytest.mark.parametrize(
    ("name", "shape"),
    [("adafactor", (130, 128)), ("muon", (4, 6)), ("muon", (12, 4)), ("muon", (5, 5)), ("lion", (4, 6))],
)
def test_one_layer_against_a_loop_in_float64(name, shape):
    rng = np.random.default_rng(1)
    path = "t/layers/up/kernel"
    start, grads = rng.normal(size=shape), [rng.normal(size=shape) for _ in range(4)]
    wrap = lambda value: {path: jnp.asarray(value[None], jnp.float32)}  # noqa: E731
    got, _ = trajectory(wrap(start), [wrap(g) for g in grads], name=name, b1=0.8, b2=0.9)
    if name == "adafactor":
        wanted = adafactor_by_hand(start, grads, lr=0.1, b1=0.8, cap=0.9)
    elif name == "muon":
        wanted = muon_by_hand(start, grads, lr=0.1, beta=0.95)
    else:  # Chen et al. 2023, algorithm 2
        wanted, moment = start, np.zeros(shape)
        for grad in grads:
            wanted = wanted - 0.1 * np.sign(0.8 * moment + 0.2 * grad)
            moment = 0.9 * moment + 0.1 * grad
    np.testing.assert_allclose(got[path][0], wanted, rtol=2e-4, atol=2e-4)


def test_muon_leaves_all_but_matrices_of_layers_to_adamw():
    rng = np.random.default_rng(2)
    start = {path: jnp.asarray(rng.normal(size=shape), jnp.float32) for path, shape in SHAPES.items()}
    grads = [jax.tree.map(lambda x: x + 1.0, start)] * 2
    muon, _ = trajectory(start, grads, name="muon")
    adamw, _ = trajectory(start, grads, name="adamw")
    for path in SHAPES:
        same = bool(np.allclose(muon[path], adamw[path], rtol=1e-6))
        assert same != ("layers" in path and path.endswith("kernel")), path


@pytest.mark.parametrize("name", ["adamw", "lion", "muon", "adafactor", "sgd"])
def test_first_moment_in_bfloat16(name):
    start = {"t/layers/up/kernel": jnp.ones((1, 4, 6)), "bias": jnp.ones(3)}
    grads = [jax.tree.map(lambda x: 0.3 * x, start)] * 2
    wide, _ = trajectory(start, grads, name=name)
    narrow, state = trajectory(start, grads, name=name, mu_dtype="bfloat16")
    assert {leaf.dtype.name for leaf in jax.tree.leaves(state)} >= {"bfloat16"}
    for path, value in wide.items():
        assert narrow[path].dtype == jnp.float32
        np.testing.assert_allclose(narrow[path], value, rtol=0.02)


def test_average_by_hand():
    optimizer = make_optimizer(steps=9, lr=1.0, ema_decay=0.4)
    ema, wanted = {"a": jnp.float32(1.0)}, 1.0
    for step, value in enumerate([2.0, 3.0, 5.0, 8.0, 13.0]):
        ema = optimizer.average(ema, params={"a": jnp.float32(value)}, step=jnp.int32(step))
        decay = min(0.4, (2 + step) / (11 + step))
        wanted = decay * wanted + (1 - decay) * value
    np.testing.assert_allclose(ema["a"], wanted, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr_scale": (("^audio/", 0.1),)}, r"'\^audio/' matches no trained parameter; correct config.optimizer.lr_sc"),
        (
            {"no_decay": ("^audio/",), "weight_decay": 0.1},
            "trained parameter; correct config.optimizer.no_decay",
        ),
    ],
)
def test_regexes_that_match_nothing(options, message):
    with pytest.raises(UserError, match=message):
        moved(**options)


def test_layer_decay_without_layers():
    with pytest.raises(UserError, match=r"config.optimizer.layer_decay=0.5 needs parameters of a tower's layers"):
        moved({"kernel": jnp.ones((2, 2))}, model=towers(depth=1), layer_decay=0.5)


def test_muon_is_the_same_on_one_cpu_and_on_several():
    """On one CPU the iteration runs on Gram matrices; optax's own runs where a mesh has more devices."""
    rng = np.random.default_rng(3)
    grads = {"t/layers/up/kernel": jnp.asarray(rng.normal(size=(2, 8, 24)), jnp.float32)}
    transform = OPTIMIZERS["muon"](b1=0.9, b2=0.99, eps=1e-8, muon_beta=0.95, mu_dtype=jnp.float32)
    updates = []
    for devices in (1, 2):
        mesh = jax.sharding.Mesh(np.array(jax.devices()[:devices]), "x")
        with jax.set_mesh(mesh), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            state = transform.init(grads)
            updates.append(jax.jit(transform.update)(grads, state, grads))
    (one, one_state), (several, several_state) = updates
    assert jax.tree.structure(one_state) == jax.tree.structure(several_state)
    np.testing.assert_allclose(one["t/layers/up/kernel"], several["t/layers/up/kernel"], rtol=1e-4, atol=1e-6)
