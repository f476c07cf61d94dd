"""Figures of all processes on the first."""

import json

from twinreel.engine.loop.hosts import Hosts


class Coordinator:
    """A key-value store with the methods of jax's."""

    def __init__(self):
        self.values = {}

    def key_value_set(self, key, value, *, allow_overwrite):
        assert allow_overwrite
        self.values[key] = value

    def key_value_dir_get(self, folder):
        return [(key, value) for key, value in self.values.items() if key.startswith(folder)]


def test_the_host_whose_input_is_slow_is_named():
    client = Coordinator()
    hosts = Hosts(client)
    for process, wait in enumerate((0.02, 0.4, 0.01, 0.03)):
        hosts._me = process
        hosts.tell(data_wait=0.9, memory_gb=1.0)  # an older line
        hosts.tell(data_wait=wait, memory_gb=10.0 + process)
    assert hosts.figures() == ({}, "")  # another process than the first
    hosts._me = 0
    figures, sentence = hosts.figures()
    assert figures == {"data_wait_max": 0.4, "data_wait_process": 1.0, "memory_gb_max": 13.0}
    assert sentence.startswith("process 1 on ") and "40 % of the time (median of all: 2 %)" in sentence
    assert len(client.values) == 4 and json.loads(client.values["twinreel/hosts/1"])["data_wait"] == 0.4


def test_nobody_is_named_where_all_wait_alike():
    client = Coordinator()
    hosts = Hosts(client)
    for process in range(3):
        hosts._me = process
        hosts.tell(data_wait=0.3, memory_gb=1.0)
    hosts._me = 0
    assert hosts.figures()[1] == ""
    assert Hosts().figures() == ({}, "")  # one process alone
