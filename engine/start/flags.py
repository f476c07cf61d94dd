"""Joining the processes of a run by the flags of a verb; nothing of jax is imported for a run of one process."""

import argparse

from ...base.parser import Distributed


def join_run(args: argparse.Namespace) -> int:
    """Join the other processes of the run, if the flags say that there are some; return this one's number, from 0.

    Args:
      args: of a parser with `Parser.add_distributed`.

    Raises:
      UserError: flags that do not fit together, or processes that do not come; see `join.initialize_distributed`.
    """
    together = Distributed.of(args)
    if together is None:
        return 0
    from jax import process_index

    from .join import initialize_distributed

    initialize_distributed(**together.to_dict())
    return process_index()
