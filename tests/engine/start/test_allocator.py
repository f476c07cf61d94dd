"""Freed memory stays with the process: a block of the same size touches no new pages."""

import ctypes
import subprocess
import sys

import pytest

from twinreel.engine.start import allocator

PROGRAM = """
import resource, sys, threading
from twinreel.engine.start.allocator import keep_freed_memory
assert sys.argv[1] == "no" or keep_freed_memory()

def faults_of_blocks():
    for round in range(10):
        if round == 2:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        block = b"x" * (96 << 20)  # larger than the heap of an arena of a thread
        del block
    found.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

found = []
thread = threading.Thread(target=faults_of_blocks)
thread.start(), thread.join()
print(found[0])
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library has no mallopt")
def test_blocks_are_reused_without_new_pages():
    faults = {
        keep: int(
            subprocess.run([sys.executable, "-c", PROGRAM, keep], capture_output=True, check=True, text=True).stdout
        )
        for keep in ("no", "yes")
    }
    assert faults["yes"] < 100 < 8 * 96 < faults["no"]


def test_a_c_library_without_mallopt_is_left_alone(monkeypatch):
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: object())
    assert not allocator.keep_freed_memory()


@pytest.mark.parametrize(
    ("platforms", "device", "cores", "kept"),
    [
        ("", False, 2, True),
        ("", True, 2, False),
        ("cpu", True, 2, True),
        ("cuda,cpu", False, 2, False),
        ("cpu", False, 64, False),
    ],
)
def test_only_runs_on_a_few_cpu_cores_keep_memory(platforms, device, cores, kept, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    monkeypatch.setattr(allocator, "_has_accelerator", lambda: device)
    monkeypatch.setattr(allocator, "cores", lambda: cores)
    monkeypatch.setattr(allocator, "keep_freed_memory", lambda: True)
    assert allocator.keep_freed_memory_on_cpus() is kept
