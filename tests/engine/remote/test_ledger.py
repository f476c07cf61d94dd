"""The lease of a run: one writer, commits that a writer taken for dead cannot make."""

import json
import threading
import time

import pytest

from twinreel.base.errors import UserError
from twinreel.engine.remote import ledger as module
from twinreel.engine.remote.ledger import FILE, LeaseLost, Ledger, read_state
from twinreel.engine.remote.store import Store

BEAT_S = 0.2


@pytest.fixture
def store(bucket):
    return Store(f"{bucket}/run")


def take(store, **options):
    said = []
    return Ledger(store, say=said.append, beat_s=BEAT_S, **options), said


def stop_the_heart(ledger):
    ledger._closed.set()
    ledger._thread.join()


def rewrite_owner(store, **changes):
    """Let the owner in the store be another one."""
    state = read_state(store)
    state["owner"] |= changes
    store.write(FILE, json.dumps(state).encode())


def test_a_second_writer_is_refused_and_a_dead_one_replaced(store, monkeypatch):
    first, _ = take(store)
    with pytest.raises(UserError, match=r"another run is writing to workdir s3://.*process \d+ on"):
        take(store)
    first.update(lambda state: state["checkpoints"].update({"4": {"folder": "checkpoints/4-1"}}))
    stop_the_heart(first)
    monkeypatch.setattr(module, "_runs_here", lambda owner: False)  # as after kill -9 on this machine: no waiting
    second, said = take(store)
    assert (second.epoch, second.state["checkpoints"], said) == (2, {"4": {"folder": "checkpoints/4-1"}}, [])
    with pytest.raises(LeaseLost, match="taken over by another run"):
        first.update(lambda state: state["checkpoints"].clear())
    assert not first.fresh() and second.fresh()
    second.release()
    assert read_state(store)["checkpoints"] and read_state(store)["owner"] is None
    first.release()


def test_an_owner_elsewhere_is_watched(store):
    lost = threading.Event()
    first, _ = take(store, on_lost=lambda text: lost.set())
    stop_the_heart(first)
    rewrite_owner(store, host="far", place="another machine")
    began = time.monotonic()
    second, said = take(store)
    assert time.monotonic() - began >= module.MISSED * BEAT_S
    assert "watching its lease" in said[0] and "on far" in said[0]
    rewrite_owner(store, host="far", place="another machine")  # a third takes over behind its back
    assert lost.is_set() is False
    time.sleep(3 * BEAT_S)
    with pytest.raises(LeaseLost):
        second.update(lambda state: None)
    second.release()


def test_an_owner_elsewhere_that_lives_is_not_replaced(store):
    first, _ = take(store)
    with first._mutex:
        first.state["owner"] |= {"host": "far", "place": "another machine"}
    time.sleep(2 * BEAT_S)  # its beats write that
    with pytest.raises(UserError, match="on far"):
        take(store)
    first.release()
    assert take(store)[0].release() is None


def test_a_write_whose_answer_was_lost_counts(store, monkeypatch):
    """The request arrives, its answer does not, and the repeated request conflicts with it."""
    ledger, _ = take(store)
    replace = store.replace
    monkeypatch.setattr(store, "replace", lambda *a, tag: replace(*a, tag=(replace(*a, tag=tag), tag)[1]))
    ledger.update(lambda state: state["checkpoints"].update({"8": {}}))
    assert read_state(store)["checkpoints"] == {"8": {}}
    ledger.release()
