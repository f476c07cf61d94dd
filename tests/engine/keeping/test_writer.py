import threading

import pytest

from twinreel.engine.keeping.writer import OthersFailed, Writer


class Store(dict):
    """As the key-value store of jax's coordinator."""

    def key_value_set(self, key, value, *, allow_overwrite):
        assert allow_overwrite
        self[key] = value

    def key_value_dir_get(self, folder):
        return [(key, value) for key, value in self.items() if key.startswith(folder)]


def test_jobs_run_one_after_another():
    writer, order, first = Writer(), [], threading.Event()
    jobs = [writer.submit(lambda: (first.wait(), order.append(1))), writer.submit(lambda: order.append(2))]
    first.set()
    for job in reversed(jobs):
        writer.result(job)
    assert order == [1, 2]
    writer.close()


def test_a_failed_save_is_told_and_the_others_do_not_wait_for_it():
    store, never = Store(), threading.Event()

    def fail():
        raise OSError("disk full")

    writer = Writer(store)
    with pytest.raises(OSError, match="disk full"):  # its own is raised as it is
        writer.result(writer.submit(fail))
    (told,) = store.values()
    assert told.startswith("process 0 on ") and told.endswith("OSError: disk full")
    store["twinreel/failed_saves/3"] = "process 3 on host: OSError: disk full"
    waiting = writer.submit(never.wait)
    with pytest.raises(OthersFailed, match=r"^process 3 on host: OSError: disk full$"):
        writer.result(waiting)
    writer.close()
    never.set()


def test_a_failed_save_ends_the_wait_where_the_coordinator_is_gone():
    class Gone(Store):
        def key_value_set(self, key, value, *, allow_overwrite):
            raise ConnectionError("no coordinator")

    def fail():
        raise OSError("disk full")

    job = Writer(Gone()).submit(fail)
    with pytest.raises(OSError, match="disk full"):
        job.result(timeout=10)
