"""Options by which XLA's compilers send between chips while these compute, by platform."""

import os
import re
from collections.abc import Mapping
from typing import NamedTuple

import jax

from ...base.errors import UserError

Value = bool | int | float | str


class Option(NamedTuple):
    """An option of a compiler: its value, and what it is for."""

    value: Value
    why: str


OVERLAP: dict[str, dict[str, Option]] = {
    "tpu": {
        "xla_tpu_enable_latency_hiding_scheduler": Option(True, "starts what is sent early and waits for it late"),
        "xla_enable_async_all_gather": Option(True, "splits an all-gather (parameters over fsdp) into start and end"),
        "xla_tpu_enable_async_collective_fusion": Option(True, "computes in the fusions between start and end"),
        "xla_tpu_enable_async_collective_fusion_fuse_all_gather": Option(True, "does so with all-gathers"),
        "xla_tpu_enable_async_collective_fusion_multiple_steps": Option(True, "spreads one over several fusions"),
        "xla_enable_async_all_reduce": Option(True, "splits an all-reduce (gradients over replica) into start and end"),
        "xla_tpu_enable_async_collective_fusion_fuse_all_reduce": Option(True, "computes meanwhile; off by default"),
        "xla_tpu_overlap_compute_collective_tc": Option(True, "lets the TensorCore compute meanwhile"),
        "xla_enable_async_collective_permute": Option(
            True, "sends the columns of a ring loss while scores are computed"
        ),
    },
    "gpu": {
        "xla_gpu_enable_latency_hiding_scheduler": Option(True, "starts what is sent early and waits for it late"),
    },
}
"""Platform of a device -> options that are set for the train step.

Chosen by compiled programs of layers over fsdp x replica: with those of "tpu" all-reduces are under way while the chip
computes, which they are not by default (libtpu 0.0.42); reduce-scatters are not with any known option. Of GPUs, options
named pipelined_* let less be sent beside computing (jaxlib 0.10), and are left alone.
"""

_ENVIRONMENT = ("XLA_FLAGS", "LIBTPU_INIT_ARGS")
_UNKNOWN = re.compile(r"No such compile option: '(\w+)'")


def compiler_options(
    platform: str, *, chosen: Mapping[str, Value | None] | None = None, environment: Mapping[str, str] = os.environ
) -> dict[str, Value]:
    """Return the options with which the step is compiled.

    Args:
      platform: `jax.Device.platform`.
      chosen: config.train.compiler_options: further options, other values; None leaves an option to the compiler.
      environment: an option that XLA_FLAGS or LIBTPU_INIT_ARGS name is left to them.

    >>> compiler_options("cpu", chosen={"xla_cpu_enable_fast_math": False})
    {'xla_cpu_enable_fast_math': False}
    """
    given = " ".join(environment.get(name, "") for name in _ENVIRONMENT)
    named = set(re.findall(r"--(\w+)", given))
    ours = {name: option.value for name, option in OVERLAP.get(platform, {}).items() if name not in named}
    return {name: value for name, value in (ours | dict(chosen or {})).items() if value is not None}


def compile_lowered(lowered: jax.stages.Lowered) -> jax.stages.Compiled:
    """Compile a step.

    Raises:
      UserError: the installed compiler does not know one of its options.
    """
    try:
        return lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        unknown = _UNKNOWN.search(str(error))
        if unknown is None:
            raise
        raise UserError(
            f"the installed compiler has no option {unknown[1]}; leave it out: "
            f"--config.train.compiler_options='{{\"{unknown[1]}\": None}}', with any other options in the same dict"
        ) from error
