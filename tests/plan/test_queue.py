"""The order in which a search compiles: what is passed over, and when it ends."""

from concurrent.futures import wait
from types import SimpleNamespace

import pytest

from twinreel.plan import queue as queue_module
from twinreel.plan.queue import Candidate, Queue, in_parallel

LIMIT = 16


def candidate(*, policy="full", fsdp=1, bytes_=10, least_s=1.0):
    return Candidate(
        {"model.remat": policy, "mesh.fsdp": fsdp, "mesh.tensor": 1}, bytes=bytes_, least_s=least_s, order=()
    )


def outcome(*, step_s=None, needed=None):
    return {"fits": needed is None, "time": None if step_s is None else {"step_s": step_s}, "needed_bytes": needed}


def names(queue):
    return [name for name, _ in iter(queue.next, None)]


def test_what_cannot_be_faster_is_passed_over():
    candidates = {name: candidate(least_s=least) for name, least in (("a", 1.0), ("b", 1.2), ("c", 1.3))}
    done = {"a": outcome(step_s=1.25)}
    queue = Queue(candidates, done=done, tries=9, limit=LIMIT)
    assert (queue.left(), names(queue), queue.passed_over) == (2, ["b"], 1)


def test_a_mesh_that_saves_too_little_is_passed_over():
    """With fsdp=1 20 bytes are needed; the meshes that save 3 and 5 of them come to 17 and 15."""
    saved = {1: 10, 4: 7, 16: 5}
    candidates = {f"{policy}{fsdp}": candidate(policy=policy, fsdp=fsdp, bytes_=size)
                  for policy in ("none", "full") for fsdp, size in saved.items()}  # fmt: skip
    queue = Queue(candidates, done={"none1": outcome(needed=20)}, tries=9, limit=LIMIT)
    assert names(queue) == ["none16", "full1", "full4", "full16"]
    assert queue.passed_over == 1


def test_known_results_count_as_tries():
    candidates = {name: candidate() for name in "abcd"}
    queue = Queue(candidates, done={"a": outcome(needed=11)}, tries=3, limit=LIMIT)
    assert (queue.left(), names(queue), queue.left()) == (2, ["b", "c"], 0)


@pytest.mark.parametrize(("end", "begun"), [(0, 2), (150, 2), (10_000, 9)])
def test_nothing_is_begun_that_would_end_too_late(end, begun, monkeypatch):
    """Two at a time by a clock that a program puts forward by 100 s: a third one would end after 200 s.

    The first two are begun even if the time is over: what came before them would take as long again.
    """
    now = [0.0]
    monkeypatch.setattr(queue_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    queue = Queue({str(i): candidate() for i in range(9)}, done={}, tries=9, limit=LIMIT)

    def compile_changes(changes):
        now[0] += 100
        return outcome(step_s=2.0)

    monkeypatch.setattr(queue_module, "wait", lambda running, **options: wait(running))  # both of a pair
    done = list(in_parallel(compile_changes, queue, end=end))
    assert len(done) == begun and queue.left() == 9 - begun
