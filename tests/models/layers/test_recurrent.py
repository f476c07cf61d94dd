"""LSTM and GRU against torch's with packed sequences, and pools over real places."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from twinreel.base.errors import UserError
from twinreel.models.layers.recurrent import RecurrentStack, pool_recurrent

GOLDEN = Path(__file__).parents[2] / "golden" / "recurrent.npz"


def torch_stack(case):
    """Our stack with torch's parameters, and the arrays of the case."""
    with np.load(GOLDEN) as file:
        arrays = {key: file[key] for key in file.files if "/" not in key}
        own = {key.removeprefix(case + "/"): file[key] for key in file.files if key.startswith(case + "/")}
    cell, sides = case[:-1], int(case[-1])
    kind = {"cell": cell, "depth": 2, "bidirectional": sides == 2, "field": "config.model.text"}
    stack = RecurrentStack(5, 4 * sides, **kind, rngs=nnx.Rngs(0))
    for number, layer in enumerate(stack.layers):
        for side, end in zip(layer, ("", "_reverse"), strict=False):
            for ours, theirs in ((side.input, "ih"), (side.state, "hh")):
                ours.kernel[...] = jnp.asarray(own[f"weight_{theirs}_l{number}{end}"].T)
                ours.bias[...] = jnp.asarray(own[f"bias_{theirs}_l{number}{end}"])
    mask = np.arange(6)[None] < arrays["lengths"][:, None]
    return stack, arrays["x"], mask, own


@pytest.mark.parametrize("case", ["lstm1", "lstm2", "gru1", "gru2"])
def test_outputs_are_those_of_torch(case):
    stack, x, mask, wanted = torch_stack(case)
    noisy = np.where(mask[..., None], x, 1e3)  # padding has no part in it
    found = stack(jnp.asarray(noisy, jnp.float32), mask=jnp.asarray(mask))
    np.testing.assert_allclose(found, wanted["out"], atol=1e-6)
    pools = {
        "last": wanted["last"],
        "mean": np.stack([row[real].mean(0) for row, real in zip(wanted["out"], mask, strict=True)]),
        "max": np.stack([row[real].max(0) for row, real in zip(wanted["out"], mask, strict=True)]),
    }
    for pool, value in pools.items():
        got = pool_recurrent(found, mask=jnp.asarray(mask), pool=pool, bidirectional=case[-1] == "2")
        np.testing.assert_allclose(got, value, atol=1e-6, err_msg=pool)


@pytest.mark.parametrize("pool", ["last", "mean", "max"])
def test_rows_without_anything_give_zeros(pool):
    stack, x, mask, _ = torch_stack("gru2")
    mask = jnp.asarray(mask).at[1].set(False)
    got = pool_recurrent(stack(jnp.asarray(x), mask=mask), mask=mask, pool=pool, bidirectional=True)
    assert (np.asarray(got[1]) == 0).all() and np.asarray(got[0]).any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"cell": "rnn"}, r"config\.model\.text\.cell.*'rnn'"), ({"width": 5}, "width=5 even"), ({"depth": 0}, "depth=0")],
    ids=str,
)
def test_mistakes_are_named(changes, message):
    kind = {"width": 6, "cell": "lstm", "depth": 1, "bidirectional": True} | changes
    with pytest.raises(UserError, match=message):
        RecurrentStack(3, **kind, field="config.model.text", rngs=nnx.Rngs(0))
