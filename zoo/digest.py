"""What identifies the weights of a model or of an image tower, wherever its files lie."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

MADE_BY = "features_of"
"""Field of a clip's `meta`: name of its precomputed features -> `weights_sha256` of the tower that made them."""


def weights_sha256(params: Mapping[str, Any], *, tower: str) -> str:
    """Return the SHA-256 of the parameters that give a video tower's vectors of frames: those of its image tower.

    Args:
      params: "/"-joined path -> array.
      tower: beginning of the paths of the video tower: "video/", or "" if these are its parameters alone.

    Returns:
      Hexadecimal digits; of all parameters of the tower if it has no image tower. Names, shapes and dtypes count, too.

    >>> one = {"video/image/w": np.zeros(2, np.float32), "text/w": np.ones(1)}
    >>> weights_sha256(one, tower="video/") == weights_sha256({"image/w": np.zeros(2, np.float32)}, tower="")
    True
    """
    own = {path.removeprefix(tower): value for path, value in params.items() if path.startswith(tower)}
    image = {path: value for path, value in own.items() if path.startswith("image/")}
    return params_sha256(image or own)


def params_sha256(params: Mapping[str, Any]) -> str:
    """Return the SHA-256 of parameters: of path, dtype, shape and bytes of each, in the order of the paths.

    Args:
      params: "/"-joined path -> array.

    >>> one, two = np.zeros(2, np.float32), np.ones((), np.float32)
    >>> params_sha256({"a": one, "b": two}) == params_sha256({"b": two, "a": one})
    True
    >>> params_sha256({"a": one}) == params_sha256({"b": one})
    False
    """
    digest = hashlib.sha256()
    for path, value in sorted(params.items()):
        array = np.ascontiguousarray(value)
        digest.update(f"{path} {array.dtype} {array.shape}\n".encode())
        digest.update(array.view(np.uint8).data if array.size else b"")
    return digest.hexdigest()


def model_sha256(weights: str, *, given: Any) -> str:
    """Return a hash of a model's parameters and of how its input becomes arrays: what its embeddings depend on.

    Args:
      weights: `params_sha256` of all its parameters.
      given: its `InputSpec`.
    """
    text = json.dumps(dataclasses.asdict(given), sort_keys=True, default=str)
    return hashlib.sha256(f"{weights} {text}".encode()).hexdigest()
