"""Which GPUs of this machine each of several processes gets. No jax: it would open them."""

import os

from ...base.errors import UserError

VARIABLE = "CUDA_VISIBLE_DEVICES"
"""Environment variable: the GPUs that a process sees, by number or by UUID; without it, all."""


def gpus_of(number: int, *, count: int, flag: str) -> dict[str, str]:
    """Return `VARIABLE` for process `number`: the next `count` of the GPUs that this process sees.

    Args:
      number: of the process, from 0.
      count: GPUs of each.
      flag: the flags that say so, for the message.

    Raises:
      UserError: this process sees fewer GPUs than that.
    """
    first, last = number * count, (number + 1) * count
    seen = os.environ.get(VARIABLE)
    if seen is None:
        return {VARIABLE: ",".join(map(str, range(first, last)))}
    names = [name.strip() for name in seen.split(",") if name.strip()]
    names = names[: names.index("-1")] if "-1" in names else names  # CUDA stops at the first that is none
    if last > len(names):
        raise UserError(
            f"{flag}: {VARIABLE}={seen!r} leaves {len(names)} GPUs, and {last} are wanted; lower them, or set the "
            "variable to more GPUs"
        )
    return {VARIABLE: ",".join(names[first:last])}
