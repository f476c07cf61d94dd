"""Tiny public video models: their folders without the golden outputs, and our model of each."""

import shutil
from pathlib import Path

import numpy as np
from flax import nnx

from twinreel.engine.keeping.transfer import fill
from twinreel.zoo.build import build
from twinreel.zoo.convert.convert import convert

GOLDEN = Path(__file__).parents[1] / "golden" / "weights"


def golden(name):
    """The arrays of a golden folder: inputs, and what the public code gave."""
    with np.load(GOLDEN / name / "io.npz") as file:
        return {key: file[key] for key in file.files}


def folder_of(name, folder):
    """Copy a public model's own files into `folder`, for tests that change them."""
    return Path(shutil.copytree(GOLDEN / name, folder, ignore=shutil.ignore_patterns("io.npz")))


def model_of(made):
    """Build the model of a conversion and fill in its parameters."""
    model = build(made.spec, rngs=nnx.Rngs(0))
    fill(model, values=made.params)
    return model


def converted(name, folder):
    """Convert a copy of a golden folder; returns what `convert` gives and the model."""
    made = convert(folder_of(name, folder))
    return made, model_of(made)


def unit(x):
    """Divide rows by their length, in float64."""
    x = np.asarray(x, np.float64)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)
