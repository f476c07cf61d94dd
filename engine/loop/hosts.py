"""What each process of a run waits for and holds, gathered on the first without holding a step up."""

import json
import socket
import statistics
from typing import Any

import jax

from ..start.join import store

_ROOT = "twinreel/hosts"
_NOTABLE, _FACTOR = 0.05, 2.0  # a share of waiting that is worth a line, and how far beyond the others'


class Hosts:
    """Tells the first process how long each process waited for its input, and its peak memory.

    All processes end each step together, so a slow input of one host is waiting for it alone; the others' devices wait
    in the step. The figures go through the key-value store of jax's coordinator: nobody waits for anybody.
    """

    def __init__(self, client: Any = None):
        """Begin.

        Args:
          client: a key-value store as jax's; None = that of this run, if it has several processes.
        """
        self._client = client if client is not None or jax.process_count() == 1 else store()
        self._me = jax.process_index()

    def tell(self, *, data_wait: float, memory_gb: float) -> None:
        """Write this process's figures; data_wait is a share, 0..1, of the time since its last line."""
        if self._client is not None:
            facts = {"host": socket.gethostname(), "data_wait": data_wait, "memory_gb": memory_gb}
            self._client.key_value_set(f"{_ROOT}/{self._me}", json.dumps(facts), allow_overwrite=True)

    def figures(self) -> tuple[dict[str, float], str]:
        """Return what is logged, and a sentence that names the host that waits most, "" if none stands out.

        Figures: `data_wait_max`, `memory_gb_max` over the processes, and `data_wait_process`, which has the maximum; {}
        with one process.
        """
        if self._client is None or self._me != 0:
            return {}, ""
        found = {int(k.rsplit("/", 1)[-1]): json.loads(v) for k, v in self._client.key_value_dir_get(f"{_ROOT}/")}
        if not found:
            return {}, ""
        waits = {process: facts["data_wait"] for process, facts in found.items()}
        slowest = max(waits, key=lambda process: (waits[process], -process))
        figures = {
            "data_wait_max": waits[slowest],
            "data_wait_process": float(slowest),
            "memory_gb_max": max(facts["memory_gb"] for facts in found.values()),
        }
        others = statistics.median(waits.values())
        if waits[slowest] < _NOTABLE or waits[slowest] < _FACTOR * others:
            return figures, ""
        return figures, (
            f"process {slowest} on {found[slowest]['host']} waits for its input {100 * waits[slowest]:.0f} % of the "
            f"time (median of all: {100 * others:.0f} %), and all others wait for it"
        )
