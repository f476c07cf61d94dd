"""The map: neighbours stay neighbours, large collections are sampled, the better map follows."""

import numpy as np
import pytest

from twinreel.serve.web.map import CollectionMap, principal, sample, to_square


class Side:
    def __init__(self, rows):
        self.rows = np.asarray(rows, np.float32)
        self.moments, self.files = np.arange(len(rows)) + 1, np.arange(len(rows)) // 4 + 1

    def __len__(self):
        return len(self.rows)

    def vectors(self, places):
        return self.rows[places]


def clusters(count, per, width=12):
    rng = np.random.default_rng(0)
    rows = np.repeat(rng.normal(size=(count, width)), per, axis=0) + 0.02 * rng.normal(size=(count * per, width))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_neighbours_stay_neighbours():
    made = CollectionMap(Side(clusters(6, 12)))
    first = made.answer()
    assert first["of"] == 72 and made.files == list(range(1, 19))
    assert made.wait(60) and made.answer()["method"] == "t-SNE" and made.answer()["final"]
    points = np.array(made.answer()["points"])
    assert points[:, 2].tolist() == list(range(1, 73)) and points[:, 3].tolist() == (np.arange(72) // 4 + 1).tolist()
    assert points[:, :2].min() == 0 and points[:, :2].max() == 1
    apart = np.linalg.norm(points[:, None, :2] - points[None, :, :2], axis=2) + 9 * np.eye(72)
    assert (apart.argmin(axis=1) // 12 == np.arange(72) // 12).all()


def test_the_first_map_is_that_of_scikit_learn():
    from sklearn.decomposition import PCA

    rows = clusters(9, 8)
    wanted = PCA(5, svd_solver="full").fit_transform(rows)
    found = principal(rows.astype(np.float32))
    np.testing.assert_allclose(np.abs(found[:, :5]), np.abs(wanted), atol=1e-5)
    assert principal(np.ones((3, 1), np.float32)).shape == (3, 2)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_points_have_a_map(count):
    made = CollectionMap(Side(clusters(1, count)))
    assert made.final and made.wait(1) and len(made.answer()["points"]) == count
    assert np.isfinite(np.array(made.answer()["points"])).all()


def test_large_collections_are_sampled():
    side = Side(np.zeros((100, 2)))
    chosen = sample(side, points=30)
    assert len(np.unique(chosen)) == 30 and (np.diff(chosen) > 0).all() and chosen.max() > 70
    assert sample(side).tolist() == list(range(100))
    np.testing.assert_array_equal(to_square(np.array([[1.0, 5], [3, 5], [2, 5]])), [[0, 0], [1, 0], [0.5, 0]])


def test_the_api_has_the_map(client, service):
    answer = client().get("/api/map").json()
    assert answer["of"] == 30 and len(answer["points"]) == 30 and answer["method"] in ("PCA", "t-SNE")
    assert set(answer["names"].values()) >= {"ramp.mp4", "picture.png"}
    assert {str(point[3]) for point in answer["points"]} == answer["names"].keys()
    assert service._map.wait(60) and client().get("/api/map").json()["method"] == "t-SNE"
