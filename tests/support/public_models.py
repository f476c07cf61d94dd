"""Tiny public models: their folders without what the tests compare with, and our model of each."""

import shutil
from functools import partial
from pathlib import Path

import numpy as np
from flax import nnx

from twinreel.engine.keeping.transfer import fill
from twinreel.zoo.build import abstract
from twinreel.zoo.convert.convert import convert

GOLDEN = Path(__file__).parents[1] / "golden" / "weights"
"""Folders `FAMILY/NAME` with weights, config and `io.npz`, the public code's inputs and outputs."""


def outputs(name):
    """Return the arrays of a golden folder: inputs, and what the public code gave."""
    with np.load(GOLDEN / name / "io.npz") as file:
        return {key: file[key] for key in file.files}


def source(name, folder):
    """Copy a public model's own files into `folder`, for tests that change them."""
    return Path(shutil.copytree(GOLDEN / name, folder, ignore=shutil.ignore_patterns("io.npz")))


def model_of(made):
    """Build the model of a conversion, of shapes alone, and fill in its parameters, which are all there."""
    model = abstract(made.spec)
    fill(model, values=made.params)
    hash(nnx.graphdef(model))  # a program is compiled once for each kind of model, not for each call
    return model


def converted(name, folder, **options):
    """Convert a golden folder; returns what `convert` gives and the filled model."""
    made = convert(source(name, folder), **options)
    return made, model_of(made)


@partial(nnx.jit, static_argnames="drop_patches")
def encode_video(model, video, keys=None, drop_patches=True):
    """Embed clips in one compiled program, which is made much sooner than one for each operation."""
    return model.encode_video(video, keys=keys, drop_patches=drop_patches)


@nnx.jit
def encode_text(model, ids, mask):
    """Embed token ids in one compiled program."""
    return model.encode_text(ids, mask=mask)


def unit(x):
    """Divide rows by their length, in float64."""
    x = np.asarray(x, np.float64)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def up_to(ids, *, end):
    """Return the mask of ids up to and with the first `end` of each row."""
    last = np.argmax(ids == end, axis=1)
    return np.arange(ids.shape[1])[None] <= last[:, None]
