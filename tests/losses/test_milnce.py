"""MIL-NCE against float64 loops in NumPy, and its blockwise and ring forms against the dense one."""

import jax.numpy as jnp
import numpy as np
import pytest
from contrast import COLLAPSED, ROWS, assert_same, chance, mesh, unit, value_and_gradients

from twinreel.base.errors import UserError
from twinreel.losses.infonce import info_nce
from twinreel.losses.milnce import mil_nce

NAMES = ("video", "text", "scale")


def reference(video, text, scale, *, valid, text_valid):
    """The loss and the accuracies by loops over clips and candidates, float64."""
    clips = [i for i in range(len(video)) if valid[i] and text_valid[i].any()]
    total, hits = 0.0, [0, 0]
    for i in clips:
        own = [np.exp(scale * float(video[i] @ text[i, c])) for c in np.flatnonzero(text_valid[i])]
        of_video, of_texts = [], []
        for j in clips:
            if j != i:
                of_video += [np.exp(scale * float(video[i] @ text[j, c])) for c in np.flatnonzero(text_valid[j])]
                of_texts += [np.exp(scale * float(video[j] @ text[i, c])) for c in np.flatnonzero(text_valid[i])]
        total -= np.log(sum(own) / (sum(own) + sum(of_video) + sum(of_texts)))
        hits[0] += chance(own, own + of_video)
        hits[1] += chance(own, own + of_texts)
    count = max(len(clips), 1)
    return total / count, {"accuracy_x2y": hits[0] / count, "accuracy_y2x": hits[1] / count}


def clips(rng, rows, candidates=3):
    video = unit(rng, rows, 6)
    text = 0.5 * video[:, None, :] + 0.7 * unit(rng, rows, candidates, 6)
    return video, text, {"valid": rng.random(rows) < 0.8, "text_valid": rng.random((rows, candidates)) < 0.6}


@pytest.mark.parametrize("form", ["dense", "blockwise"])
def test_equals_loops_in_float64(form):
    video, text, known = clips(np.random.default_rng(0), 9)
    (loss, metrics), gradients = value_and_gradients(
        mil_nce, video, text, 5.0, names=NAMES, form=form, block=4, **known
    )
    wanted, wanted_metrics = reference(video, text, 5.0, **known)
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)
    assert {k: pytest.approx(float(v)) for k, v in metrics.items()} == wanted_metrics
    assert all(0 < share < 1 for share in wanted_metrics.values())
    assert not gradients[1][~known["text_valid"]].any() and not gradients[0][~known["valid"]].any()
    step = 1e-6
    for which, index in [(0, (0, 1)), (0, (3, 2)), (1, (1, 0, 2)), (1, (4, 2, 0)), (2, ())]:
        sides = []
        for sign in (1, -1):
            moved = [video.copy(), text.copy(), np.array(5.0)]
            moved[which][index] += sign * step
            sides.append(reference(*moved, **known)[0])
        slope = (sides[0] - sides[1]) / (2 * step)
        np.testing.assert_allclose(gradients[which][index], slope, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("rows", "shape", "exchange"),
    [
        (23, None, "gather"),
        pytest.param(24, (2, 4, 1), "gather", marks=pytest.mark.slow),
        (24, (2, 2, 2), "ring"),
    ],
)
def test_blockwise_equals_dense(rows, shape, exchange):
    video, text, known = clips(np.random.default_rng(rows), rows)
    wanted = value_and_gradients(mil_nce, video, text, 20.0, names=NAMES, **known)
    form = {"form": "blockwise", "exchange": exchange, "block": 5}
    on = None if shape is None else mesh(shape)
    got = value_and_gradients(mil_nce, video, text, 20.0, names=NAMES, on=on, **form, **known)
    assert_same(got, wanted)


@pytest.mark.parametrize("collapse", COLLAPSED.values(), ids=COLLAPSED)
@pytest.mark.parametrize(("form", "shape"), [("dense", None), ("blockwise", None), ("blockwise", (2, 4, 1))])
def test_collapsed_embeddings_are_right_as_often_as_chance(collapse, form, shape):
    video, text, known = clips(np.random.default_rng(0), 16)
    video, text = collapse(video), collapse(text)
    how = {"form": form, "block": 5, "on": None if shape is None else mesh(shape)}
    (_, metrics), _ = value_and_gradients(mil_nce, video, text, 5.0, names=NAMES, **how, **known)
    _, wanted = reference(video, text, 5.0, **known)
    assert {k: pytest.approx(float(v)) for k, v in metrics.items()} == wanted
    assert all(0 < share < 0.5 for share in wanted.values())


def test_accuracies_with_one_candidate_are_those_of_infonce():
    video, text, _ = clips(np.random.default_rng(2), 12, candidates=1)
    (_, metrics), _ = value_and_gradients(mil_nce, video, text, 5.0, names=NAMES, form="blockwise", block=5)
    (_, wanted), _ = value_and_gradients(info_nce, video, text[:, 0], 5.0)
    assert wanted["accuracy_x2y"] > 0
    assert metrics == {name: pytest.approx(value) for name, value in wanted.items()}


def test_a_single_row_has_nothing_to_be_compared_with():
    x = jnp.ones((1, 4), jnp.float32)
    with pytest.raises(UserError, match=r"MIL-NCE compares .*config\.data\.batch_size must be at least 2, got 1"):
        mil_nce(video=x, text=jnp.ones((1, 3, 4)), scale=jnp.float32(1.0), axes=ROWS)


@pytest.mark.parametrize("form", ["dense", "blockwise"])
def test_no_valid_row_gives_zero(form):
    video, text, _ = clips(np.random.default_rng(2), 4)
    (loss, metrics), gradients = value_and_gradients(
        mil_nce, video, text, 5.0, names=NAMES, form=form, block=3, text_valid=np.zeros((4, 3), bool)
    )
    assert loss == 0 and not any(metrics.values()) and not any(np.any(g) for g in gradients)
