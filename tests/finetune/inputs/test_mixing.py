"""Mixup and CutMix: every value is explained by the row, its partner and its share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from twinreel.base.errors import UserError
from twinreel.finetune.inputs.mixing import Mixing, mixed

TARGET = jnp.eye(4)
VALID = jnp.array([True, True, False, True])  # so rows 1 and 2 have no partner
VIDEO = jnp.broadcast_to(jnp.array([0, 80, 160, 240], jnp.uint8)[:, None, None, None, None], (4, 2, 16, 16, 3))
TOKENS = jnp.broadcast_to(jnp.arange(4.0)[:, None, None], (4, 32, 3))


@pytest.mark.parametrize("x", [VIDEO, TOKENS], ids=["clips", "tokens"])
@pytest.mark.parametrize("mixing", [Mixing(mixup=1.0), Mixing(cutmix=1.0), Mixing(mixup=1.0, cutmix=1.0)])
def test_shares_of_clips_are_those_of_targets(x, mixing):
    mix = jax.jit(lambda x, key: mixed(x, target=TARGET, valid=VALID, mixing=mixing, key=key))
    kinds = set()
    for seed in range(8):
        got, target = mix(x, jax.random.key(seed))
        assert got.dtype == x.dtype and got.shape == x.shape
        np.testing.assert_allclose(target.sum(axis=1), 1, rtol=1e-5)
        np.testing.assert_array_equal(got[1:3], x[1:3])
        np.testing.assert_array_equal(target[1:3], TARGET[1:3])
        for row, other in ((0, 3), (3, 0)):
            share, (a, b) = float(target[row, row]), (float(x[row].ravel()[0]), float(x[other].ravel()[0]))
            assert target[row, other] == pytest.approx(1 - share, abs=1e-5)
            values = np.asarray(got[row], np.float64)
            assert values.mean() == pytest.approx(share * a + (1 - share) * b, abs=0.51)
            kinds.add("cut" if np.isin(values, [a, b]).all() and 0.05 < share < 0.95 else "blend")
            if x.ndim == 5 and mixing.mixup == 0:
                assert (values == values[:1]).all(), "the same box in all frames"
    wanted = {"blend"} if not mixing.cutmix else {"cut"} if not mixing.mixup else {"cut", "blend"}
    assert kinds >= wanted and (mixing.cutmix or "cut" not in kinds)


def test_nothing_to_mix():
    assert not Mixing() and Mixing(cutmix=0.1)
    with pytest.raises(UserError, match=r"config\.task\.mixup must be at least 0"):
        Mixing(mixup=-1.0)
