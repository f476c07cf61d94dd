"""The start of several processes, as far as one process shows it; `test_preflight` has two."""

import socket

import jax
import pytest
from jax._src import clusters
from jax._src.distributed import global_state

from twinreel.base.errors import UserError
from twinreel.engine.start.join import initialize_distributed, start_devices

HOST = socket.gethostname()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_processes": 2}, "--num_processes needs --coordinator and --process_id"),
        ({"coordinator": "localhost:1"}, "needs --num_processes and --process_id"),
        ({"coordinator": "localhost:1", "num_processes": 2, "process_id": 2}, "--process_id must be from 0 to 1"),
    ],
)
def test_incomplete_flags_of_several_processes(arguments, message):
    with pytest.raises(UserError, match=message):
        initialize_distributed(**arguments)


def test_a_fault_in_jaxs_detection_names_the_host(monkeypatch):
    def fail(*_):
        raise RuntimeError("Failed to recognize coordinator address pod-0.svc")

    monkeypatch.setattr(clusters.ClusterEnv, "auto_detect_unset_distributed_params", fail)
    with pytest.raises(UserError, match=rf"on {HOST}: Failed to recognize coordinator address pod-0.svc; .*--coord"):
        initialize_distributed()


class Store:
    """The key-value store of jax's coordinator, of one process."""

    def __init__(self, **values):
        self.values = values

    def key_value_set(self, key, value):
        self.values[key] = value

    def key_value_dir_get(self, folder):
        return [(key, value) for key, value in self.values.items() if key.startswith(folder)]


def test_devices_that_do_not_start_are_told_with_their_host_to_all(monkeypatch):
    store, faults = Store(), ["DEADLINE_EXCEEDED: topology of node 1", "Unable to initialize backend\nmore"]

    def fail():
        raise RuntimeError(faults.pop())

    monkeypatch.setattr(global_state, "client", store)
    monkeypatch.setattr(jax, "local_devices", fail)
    said = []
    for process in (1, 0):
        monkeypatch.setattr(global_state, "process_id", process)
        with pytest.raises(UserError) as raised:
            start_devices(["a", "b"])
        said.append(str(raised.value).splitlines())
    assert said[0][1:2] == ["  process 1 on b: Unable to initialize backend"]
    assert said[1][1:3] == [
        "  process 0 on a: DEADLINE_EXCEEDED: topology of node 1",
        "  process 1 on b: Unable to initialize backend",
    ]
