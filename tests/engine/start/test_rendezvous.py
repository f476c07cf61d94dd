"""The meeting of processes before jax joins them; each process is a thread here, as the meeting is sockets only."""

import concurrent.futures
import socket
import threading
from pathlib import Path

import pytest

import twinreel
from twinreel.base.errors import UserError
from twinreel.engine.start.code import code_version, source_hash
from twinreel.engine.start.rendezvous import Rendezvous, wait_for_all
from twinreel.launch.local import free_port


def gather(guests, *, of, timeout=20.0):
    """What each guest (process, code) of one meeting gets: its host list, or the text of its error."""
    port = free_port()

    def come(guest):
        process, code = guest
        place = Rendezvous(coordinator=f"localhost:{port}", num_processes=of, process_id=process)
        try:
            return wait_for_all(place, code=code, timeout=timeout)
        except UserError as error:
            return str(error)

    with concurrent.futures.ThreadPoolExecutor(len(guests)) as pool:
        return list(pool.map(come, guests))


def test_all_that_come_learn_the_hosts():
    assert gather([(2, "a"), (1, "a"), (0, "a")], of=3) == [[socket.gethostname()] * 3] * 3


def test_the_missing_one_is_named_to_all_that_came():
    answers = gather([(0, "a"), (2, "a")], of=4, timeout=1.5)
    assert answers[0] == answers[1]
    assert "2 of 4 processes did not come within 1.5 s: 1, 3." in answers[0]
    assert f"There: 0 on {socket.gethostname()}, 2 on {socket.gethostname()}" in answers[0]


def test_other_code_is_named_with_both_versions():
    first, second = gather([(0, "twinreel 1"), (1, "twinreel 2")], of=2)
    assert first == second
    assert f"process 1 on {socket.gethostname()} runs other code" in first
    assert "twinreel 2 against twinreel 1" in first


def test_the_same_number_twice_is_refused():
    answers = gather([(0, "a"), (1, "a"), (1, "a")], of=3, timeout=5.0)
    assert all("two processes have --process_id 1" in answer for answer in answers)


def test_process_0_out_of_reach():
    place = Rendezvous(coordinator=f"localhost:{free_port()}", num_processes=2, process_id=1)
    with pytest.raises(UserError, match=r"could not reach process 0 at localhost:\d+ within 0.5 s .*refused"):
        wait_for_all(place, code="a", timeout=0.5)


def test_the_port_is_taken():
    with socket.create_server(("", 0)) as other:
        place = Rendezvous(coordinator=f"localhost:{other.getsockname()[1]}", num_processes=2, process_id=0)
        with pytest.raises(UserError, match="cannot listen on port"):
            wait_for_all(place, code="a", timeout=5.0)


def test_a_stranger_at_the_port_does_no_harm():
    port = free_port()

    def stranger():
        while True:
            try:
                with socket.create_connection(("localhost", port)) as connection:
                    connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
                    return
            except ConnectionRefusedError:
                continue

    def come(process):
        if process:
            thread.join()
        return wait_for_all(
            Rendezvous(coordinator=f"localhost:{port}", num_processes=2, process_id=process), code="a", timeout=20.0
        )

    thread = threading.Thread(target=stranger)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        thread.start()
        assert list(pool.map(come, [0, 1])) == [[socket.gethostname()] * 2] * 2


@pytest.mark.parametrize("coordinator", ["localhost", ":1", "host:", "host:port"])
def test_a_coordinator_without_port_is_refused(coordinator):
    with pytest.raises(UserError, match="HOST:PORT"):
        _ = Rendezvous(coordinator=coordinator, num_processes=2, process_id=0).address


def test_the_hash_of_the_source_moves_with_code_and_not_with_experiments(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "configs").mkdir()
    (tmp_path / "models" / "a.py").write_text("x = 1\n")
    first = source_hash(tmp_path)
    source_hash.cache_clear()
    (tmp_path / "configs" / "mine.py").write_text("y = 1\n")
    assert source_hash(tmp_path) == first
    source_hash.cache_clear()
    (tmp_path / "models" / "a.py").write_text("x = 2\n")
    assert source_hash(tmp_path) != first
    assert source_hash(None) in code_version()


def test_the_hash_is_of_the_package_itself():
    assert source_hash(None) == source_hash(Path(twinreel.__file__).parent)
