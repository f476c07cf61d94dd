"""The parameters of shipped configs as shapes, from the code that builds the models."""

import functools

import jax
from flax import nnx

from twinreel.base.config import load_config
from twinreel.data.options import DataOptions
from twinreel.engine.step.state import split_model
from twinreel.pretrain.objective import make_objective


@functools.cache
def parameter_table(config: str, *overrides: str) -> dict[str, jax.ShapeDtypeStruct]:
    """Return {parameter path: shape} of the model of a shipped config, changed by `KEY=VALUE` overrides."""
    loaded = load_config(config, overrides=overrides)
    data = DataOptions.of(loaded.data)
    objective = make_objective(loaded, data=data, vocab_size=32_000)
    return split_model(nnx.eval_shape(lambda: objective.init(nnx.Rngs(0))))
