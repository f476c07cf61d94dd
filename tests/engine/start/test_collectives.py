import re

import jax
import jax.numpy as jnp
import pytest

from twinreel.base.config import load_config
from twinreel.base.errors import UserError
from twinreel.engine.start.collectives import OVERLAP, compile_lowered, compiler_options


def test_the_user_comes_before_the_table():
    ours = compiler_options("tpu", environment={})
    assert ours == {name: option.value for name, option in OVERLAP["tpu"].items()}
    named = {"XLA_FLAGS": "--xla_enable_async_all_gather=false", "LIBTPU_INIT_ARGS": "--xla_other=1"}
    assert ours.keys() - compiler_options("tpu", environment=named).keys() == {"xla_enable_async_all_gather"}
    chosen = {"xla_enable_async_all_reduce": None, "xla_enable_async_all_gather": False, "xla_further": 3}
    found = compiler_options("tpu", chosen=chosen, environment={})
    assert "xla_enable_async_all_reduce" not in found
    assert found["xla_enable_async_all_gather"] is False
    assert found["xla_further"] == 3
    assert compiler_options("cpu", environment={}) == {}


def test_an_option_that_the_compiler_lacks_is_named():
    options = {"xla_of_another_release": True}
    lowered = jax.jit(lambda x: x + 1, compiler_options=options).lower(jnp.zeros((), jnp.float32))
    with pytest.raises(UserError, match=r"leave it out: --config\.train\.compiler_options='({.*})'") as caught:
        compile_lowered(lowered)
    [flag] = re.findall(r"--config\.train\.compiler_options='{.*}'", str(caught.value))
    config = load_config("demo", overrides=[flag.replace("'", "")])  # as the shell passes it
    assert config.train.compiler_options.to_dict() == {"xla_of_another_release": None}
