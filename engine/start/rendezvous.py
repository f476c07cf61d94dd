"""A rendezvous of all processes before jax joins them, so that one that is missing or differs is named.

jax's own joining aborts the whole process when its time is over, and does not say who was missing. So process 0 first
listens on the coordinator's port itself: each process says its number, its host and its code, and gets the answer that
all are there, or who is not.
"""

import contextlib
import dataclasses
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

from ...base.errors import UserError

_LINE = 1 << 16  # bytes; no message of the rendezvous is near it
_PAUSE_S = 0.2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rendezvous:
    """The rendezvous of the processes of a run, and which of them this one is.

    Attributes:
      coordinator: "HOST:PORT" of process 0.
      num_processes: how many there are.
      process_id: which one this is, from 0.
    """

    coordinator: str
    num_processes: int
    process_id: int

    @property
    def address(self) -> tuple[str, int]:
        """The coordinator's host and port.

        Raises:
          UserError: it is not HOST:PORT.
        """
        host, _, port = self.coordinator.rpartition(":")
        if not host or not port.isdecimal():
            raise UserError(f"--coordinator must be HOST:PORT of process 0, got {self.coordinator!r}")
        return host.strip("[]"), int(port)


def wait_for_all(place: Rendezvous, *, code: str, timeout: float) -> list[str]:
    """Wait until all processes are there and run the same code.

    Args:
      place: the rendezvous.
      code: what must be equal on all processes, as one line.
      timeout: seconds.

    Returns:
      The host names by process.

    Raises:
      UserError: a process did not come in time, two have the same number, the code differs, or the coordinator's port
        cannot be used or reached; the message names process and host, and is the same on all that came.
    """
    hello = {"process": place.process_id, "host": socket.gethostname(), "code": code, "of": place.num_processes}
    deadline = time.monotonic() + timeout
    if place.process_id == 0:
        return _receive(place, hello=hello, deadline=deadline, timeout=timeout)
    return _report(place, hello=hello, deadline=deadline, timeout=timeout)


def _receive(place: Rendezvous, *, hello: dict[str, Any], deadline: float, timeout: float) -> list[str]:
    """Process 0: gather the others, answer all of them."""
    came = {0: hello}
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(_listen(place.address[1]))
        waiting: list[tuple[int, socket.socket]] = []
        fault = ""
        while len(came) < place.num_processes and not fault:
            found = _next_guest(listener, deadline=deadline)
            if found is None:
                fault = _missing(came, of=place.num_processes, timeout=timeout)
                break
            guest, connection = found
            stack.enter_context(connection)
            fault = _fault(guest, came=came, of=place.num_processes)
            came.setdefault(guest.get("process", -1), guest)
            waiting.append((guest.get("process", -1), connection))
        hosts = [came[i]["host"] for i in sorted(came)]
        for _, connection in waiting:
            with contextlib.suppress(OSError):  # one that has gone since is missed by jax itself
                _send(connection, {"fault": fault, "hosts": hosts})
    if fault:
        raise UserError(fault)
    return hosts


def _next_guest(listener: socket.socket, *, deadline: float) -> tuple[dict[str, Any], socket.socket] | None:
    """Return the next process that says hello and its connection; None when the time is over."""
    while (left := deadline - time.monotonic()) > 0:
        listener.settimeout(left)
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            return None
        try:
            connection.settimeout(min(left, 10.0))
            guest = _read(connection)
        except (OSError, ValueError):  # not one of ours: a port scanner, a health check
            connection.close()
            continue
        if isinstance(guest, dict) and {"process", "host", "code", "of"} <= set(guest):
            return guest, connection
        connection.close()
    return None


def _fault(guest: dict[str, Any], *, came: dict[int, dict[str, Any]], of: int) -> str:
    who = f"process {guest['process']} on {guest['host']}"
    if guest["of"] != of:
        return f"{who} was started with --num_processes {guest['of']}, process 0 with {of}; start all with the same"
    if guest["process"] in came:
        other = came[guest["process"]]["host"]
        return f"two processes have --process_id {guest['process']}, on {other} and on {guest['host']}"
    if guest["code"] != came[0]["code"]:
        return (
            f"{who} runs other code than process 0 on {came[0]['host']}: {guest['code']} against {came[0]['code']}; "
            "install the same version on all hosts"
        )
    return ""


def _missing(came: dict[int, dict[str, Any]], *, of: int, timeout: float) -> str:
    absent = [i for i in range(of) if i not in came]
    there = ", ".join(f"{i} on {came[i]['host']}" for i in sorted(came)[:8])
    more = f" and {len(came) - 8} more" if len(came) > 8 else ""
    some = ", ".join(map(str, absent[:32])) + (" ..." if len(absent) > 32 else "")
    return (
        f"{len(absent)} of {of} processes did not come within {timeout:g} s: {some}. There: {there}{more}. "
        "Look whether the missing ones have started and what they say; --init_timeout gives them more time"
    )


def _report(place: Rendezvous, *, hello: dict[str, Any], deadline: float, timeout: float) -> list[str]:
    """Another process than 0: say hello, wait for the answer."""
    host, port = place.address
    reason = "no answer"
    while (left := deadline - time.monotonic()) > 0:
        try:
            with socket.create_connection((host, port), timeout=min(left, 10.0)) as connection:
                _send(connection, hello)
                # Process 0 may have started later and so gives up later than we would.
                connection.settimeout(left + timeout)
                answer = _read(connection)
        except (OSError, ValueError) as error:
            reason = str(error) or type(error).__name__
            time.sleep(_PAUSE_S)
            continue
        if answer["fault"]:
            raise UserError(answer["fault"])
        return answer["hosts"]
    raise UserError(
        f"process {place.process_id} on {hello['host']} could not reach process 0 at {place.coordinator} within "
        f"{timeout:g} s ({reason}). Look whether process 0 has started there, and whether a firewall closes the port; "
        "--init_timeout gives it more time"
    )


@contextlib.contextmanager
def _listen(port: int) -> Iterator[socket.socket]:
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        listener = socket.create_server(("", port), family=family, dualstack_ipv6=both, backlog=1024)
    except OSError as error:
        raise UserError(
            f"process 0 on {socket.gethostname()} cannot listen on port {port} ({error.strerror}); another program, "
            "or a process of an earlier run, has it: end that, or choose another port in --coordinator"
        ) from error
    with listener:
        yield listener


def _send(connection: socket.socket, message: dict[str, Any]) -> None:
    connection.sendall(json.dumps(message).encode() + b"\n")


def _read(connection: socket.socket) -> Any:
    with connection.makefile("rb") as stream:
        line = stream.readline(_LINE << 8)
    if not line.endswith(b"\n"):
        raise ValueError("the connection ended early")
    return json.loads(line)
