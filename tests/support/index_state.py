"""What an index holds, for comparisons."""

import contextlib
import sqlite3

import numpy as np

from twinreel.serve.search.collection import Collection


def state(folder, *, model="brightness"):
    """{(path, start, end): {side: vector}} of all moments of a model."""
    found = {}
    with Collection(folder, model=model) as collection:
        for side in collection.sides:
            one = collection.side(side)
            for place, (moment, file) in enumerate(zip(one.moments.tolist(), one.files.tolist(), strict=True)):
                key = (collection.files([file])[file].path, *collection.moments(file)[moment])
                found.setdefault(key, {})[side] = one.vectors(np.array([place]))[0]
    return found


def same(found, wanted):
    assert found.keys() == wanted.keys()
    for key, vectors in wanted.items():
        assert found[key].keys() == vectors.keys()
        for side, vector in vectors.items():
            np.testing.assert_allclose(found[key][side], vector, atol=1e-6)


def ask(folder, query):
    """The rows of a query to an index's database."""
    with contextlib.closing(sqlite3.connect(folder / "index.sqlite")) as connection:
        return connection.execute(query).fetchall()
