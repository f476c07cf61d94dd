"""Unit rows in float32 against float64, of rows of every size."""

import numpy as np
import pytest

from twinreel.evaluate.measures.rows import UnitRows

SIZES = {np.float16: [1.0], np.float32: [1.0, 1e-43, 1e-20, 3e36], np.float64: [1.0, 1e-200, 1e200]}


@pytest.mark.parametrize(("dtype", "size"), [(dtype, size) for dtype, sizes in SIZES.items() for size in sizes])
def test_unit_rows_in_float32(dtype, size):
    rows = (size * np.random.default_rng(0).normal(size=(40, 33))).astype(dtype)
    chosen, out = np.array([3, 3, 0, 39]), np.empty((4, 33), np.float32)
    UnitRows(rows, name="rows").write_float32(chosen, out=out)
    wide = rows[chosen].astype(np.float64)
    exact = wide / np.abs(wide).max(axis=1, keepdims=True)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    np.testing.assert_allclose(out, exact, rtol=1.01 * np.finfo(np.float32).eps)
