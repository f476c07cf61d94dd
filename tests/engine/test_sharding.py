import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec

from twinreel.configs.errors import UserError
from twinreel.engine.mesh import make_mesh
from twinreel.engine.sharding import make_rules, param_shardings

PARAMS = {
    "video/0/kernel": jax.ShapeDtypeStruct((8, 6), jnp.float32),
    "video/0/bias": jax.ShapeDtypeStruct((6,), jnp.float32),
    "log_scale": jax.ShapeDtypeStruct((), jnp.float32),
}


def test_first_match_wins():
    rules = make_rules(rules=[["/kernel$", ["fsdp", None]], ["^video/", []], [".*", []]])
    placed = param_shardings(PARAMS, mesh=make_mesh(fsdp=4), rules=rules)
    assert placed["video/0/kernel"].spec == PartitionSpec("fsdp", None)
    assert placed["video/0/bias"].spec == placed["log_scale"].spec == PartitionSpec()


def test_default_replicates_everything():
    placed = param_shardings(PARAMS, mesh=make_mesh(fsdp=4))
    assert all(sharding.is_fully_replicated for sharding in placed.values())


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([["text/", []], [".*", []]], "'text/' matches no parameter(.|\n)*video/0/kernel"),
        ([["video/", []]], "no sharding rule matches parameter 'log_scale'"),
        ([["kernel", ["fspd"]], [".*", []]], "did you mean 'fsdp'"),
        ([["kernel", [None, "fsdp"]], [".*", []]], "whose 6 does not divide by the 4 devices of mesh axis 'fsdp'"),
        ([["bias", [None, "fsdp"]], [".*", []]], r"names 2 dimensions, but 'video/0/bias' has shape \(6,\)"),
        ([["(", []]], "not a regular expression"),
        ([["kernel", "fsdp"]], "holds pairs"),
        ([["kernel", ["fsdp", "fsdp"]], [".*", []]], "names a mesh axis twice"),
        ([["kernel", ["...", "..."]]], "has '...' more than once"),
        ([["kernel", "largest:fspd"], [".*", []]], "did you mean 'fsdp'"),
        ("fspd", "config.sharding.rules.*did you mean 'fsdp'"),
    ],
)
def test_mistakes_are_named(rules, message):
    with pytest.raises(UserError, match=message):
        param_shardings(PARAMS, mesh=make_mesh(fsdp=4), rules=make_rules(rules=rules))
