"""Bytes that chips send, from programs on eight fake devices whose collectives are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from twinreel.cost.collectives import axes_of, count_collectives, device_groups
from twinreel.cost.hlo import parse_program
from twinreel.engine.sharding.mesh import AXES, make_mesh

MESH = {"replica": 2, "fsdp": 2, "tensor": 2}
ROWS, WIDTH = 16, 8
SIZE = 4 * ROWS * WIDTH  # bytes of the whole array
HALVES = P("fsdp")
DEVICES = np.arange(8).reshape(2, 2, 2)


def traffic(body, *, spec=HALVES, out=None, check=True):
    mesh = make_mesh(**MESH)
    mapped = jax.shard_map(body, mesh=mesh, in_specs=spec, out_specs=spec if out is None else out, check_vma=check)
    x = jax.ShapeDtypeStruct((ROWS, WIDTH), jnp.float32, sharding=jax.NamedSharding(mesh, spec))
    program = parse_program(jax.jit(mapped).lower(x).compile().as_text())
    return count_collectives(program, mesh=MESH)


def test_an_all_reduce():
    (found,) = traffic(lambda x: jax.lax.psum(x, "fsdp"), out=P())
    part = SIZE // 2
    assert (found.kind, found.axes, found.calls) == ("all-reduce", ("fsdp",), 1)
    assert found.bytes == part and found.sent == 2 * part / 2


def test_an_all_gather():
    (found,) = traffic(lambda x: jax.lax.all_gather(x, ("replica", "fsdp"), tiled=True), spec=P(("replica", "fsdp")),
                       out=P(), check=False)  # fmt: skip
    assert (found.kind, found.axes, found.bytes, found.sent) == ("all-gather", ("replica", "fsdp"), SIZE, 3 * SIZE / 4)


def test_a_reduce_scatter():
    (found,) = traffic(lambda x: jax.lax.psum_scatter(x, "tensor", tiled=True), out=P(("fsdp", "tensor")))
    part = SIZE // 2
    assert (found.kind, found.axes, found.bytes, found.sent) == ("reduce-scatter", ("tensor",), part, part / 2)


def test_a_ring_in_a_loop():
    def ring(x):
        step = lambda _, x: jax.lax.ppermute(x, "replica", [(0, 1), (1, 0)]) + 1.0  # noqa: E731
        return jax.lax.fori_loop(0, 5, step, x)

    (found,) = traffic(ring, spec=P("replica"))
    assert (found.kind, found.axes, found.calls) == ("collective-permute", ("replica",), 5)
    assert found.bytes == found.sent == 5 * SIZE // 2


def test_a_gather_in_a_scan_counts_once_for_each_layer():
    depth, width = 3, 32
    mesh = make_mesh(**MESH)

    def layers(weights, x):
        def layer(h, w):
            return jnp.tanh(h @ jax.lax.all_gather(w, "fsdp", tiled=True)), None

        return jax.lax.scan(layer, x, weights)[0]

    rows = P(("replica", "fsdp"))
    mapped = jax.shard_map(layers, mesh=mesh, in_specs=(P(None, "fsdp"), rows), out_specs=rows, check_vma=False)
    weights = jax.ShapeDtypeStruct((depth, width, width), jnp.float32)
    x = jax.ShapeDtypeStruct((1024, width), jnp.float32)
    found = count_collectives(parse_program(jax.jit(mapped).lower(weights, x).compile().as_text()), mesh=MESH)
    gathers = [one for one in found if one.axes == ("fsdp",)]
    assert [(one.kind, one.calls, one.bytes) for one in gathers] == [("all-gather", depth, depth * 4 * width * width)]


@pytest.mark.parametrize(
    ("written", "axes"),
    [
        ("replica_groups={{0,2},{1,3},{4,6},{5,7}}", ("fsdp",)),
        ("replica_groups={}", AXES),
        ("replica_groups={{0,1,2,3},{4,5,6,7}}", ("fsdp", "tensor")),
        ("replica_groups=[4,2]<=[8]", ("tensor",)),
        ("replica_groups=[4,2]<=[2,4]T(1,0)", ("replica",)),
        ("replica_groups=[2,4]<=[2,2,2]T(1,0,2)", ("replica", "tensor")),
        ("replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_1'}", ("tensor",)),
        ("replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_0'}", ("replica", "fsdp")),
        ("replica_groups=mesh['a'=4,'b'=2] {'a':(1)2}", ("replica",)),
        ("replica_groups=mesh['a'=4,'b'=2] {'a':(2)2}", ("fsdp",)),
        ("replica_groups=mesh['a'=2,'b'=2,'c'=2], device_ids=([2,2,2]T(2,1,0)) {'c'}", ("replica",)),
        ("source_target_pairs={{0,0},{2,4},{4,2},{6,6}}", ("replica", "fsdp")),
    ],
)
def test_all_notations_of_groups(written, axes):
    groups = device_groups(written, devices=8)
    assert axes_of(groups, mesh=MESH) == axes
    if "pairs" in written:
        return
    kept = [i for i, name in enumerate(AXES) if name not in axes]
    moved = [i for i, name in enumerate(AXES) if name in axes]
    wanted = DEVICES.transpose(kept + moved).reshape(-1, 2 ** len(moved))
    assert {frozenset(group) for group in groups.tolist()} == {frozenset(group) for group in wanted.tolist()}


def test_between_slices_the_hosts_send():
    text = """HloModule m

%sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %add = f32[] add(%a, %b)
}

ENTRY %main (p: f32[8,4]) -> f32[8,4] {
  %p = f32[8,4]{1,0} parameter(0)
  %near = f32[8,4]{1,0} all-reduce(%p), replica_groups={{0,1},{2,3}}, to_apply=%sum
  %token = token[] after-all()
  %send = (f32[8,4]{1,0}, u32[], token[]) send(%near, %token), MEGASCALE
  %pass = (f32[8,4]{1,0}, u32[], token[]) send(%near, %token), ONE
  ROOT %copy = f32[8,4]{1,0} copy(%near)
}
"""
    for name, kind in {"MEGASCALE": "ALL_REDUCE", "ONE": "ONE_TO_ONE"}.items():
        text = text.replace(name, f'frontend_attributes={{_xla_megascale_transfer_type="{kind}"}}')
    found = {(one.kind, *one.axes): one for one in count_collectives(parse_program(text), mesh=MESH, slices=2)}
    sent = {key: (one.over_network, one.sent) for key, one in found.items()}
    assert sent == {
        ("all-reduce", "replica"): (True, 128),
        ("collective-permute", "replica"): (True, 128),
        ("all-reduce", "tensor"): (False, 128),
    }


@pytest.mark.parametrize(
    ("groups", "over_network", "host_members"),
    [
        ("[4,2]<=[8]", False, 1),  # pairs of neighbours
        ("[2,4]<=[8]", False, 1),  # each host by itself
        ("[1,8]<=[8]", True, 4),  # all of both hosts
        ("[4,2]<=[2,4]T(1,0)", True, 1),  # the k-th of each host
        ("[2,4]<=[2,2,2]T(1,0,2)", True, 2),
    ],
)
def test_groups_of_gpus_that_reach_over_hosts_of_four(groups, over_network, host_members):
    text = """HloModule m

ENTRY %main (p: f32[8,4]) -> f32[8,4] {
  %p = f32[8,4]{1,0} parameter(0)
  %start = f32[8,4]{1,0} all-reduce-start(%p), replica_groups=GROUPS, to_apply=%sum
  ROOT %done = f32[8,4]{1,0} all-reduce-done(%start)
}
"""
    (found,) = count_collectives(parse_program(text.replace("GROUPS", groups)), mesh=MESH, host_devices=4)
    assert (found.over_network, found.host_members) == (over_network, host_members)
