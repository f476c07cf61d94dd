"""HTTP clients for `bench serve`: several connections of one process that ask again as soon as they are answered."""

import asyncio
import contextlib
import time
import urllib.parse
from collections.abc import Callable
from typing import Any

import numpy as np

Body = Callable[[int], bytes]
"""Number of a request -> its JSON body."""


def load(address: str, *, path: str, body: Body, clients: int, seconds: float) -> dict[str, Any]:
    """Let clients post requests for some seconds.

    Args:
      address: of the server, `http://HOST:PORT`.
      path: what is asked.
      body: of each request; no two numbers are the same.
      clients: connections, each with one request at a time.
      seconds: how long; requests that are under way are finished.

    Returns:
      JSON values: `requests` that were answered with 200, `errors` (other answers, broken connections),
      `requests_per_s`, `p50_ms`, `p99_ms`, without the errors.
    """
    found = asyncio.run(_load(address, path, body, clients, seconds))
    times = np.array(found["times"] or [np.nan]) * 1000
    return {
        "requests": len(found["times"]),
        "errors": found["errors"],
        "requests_per_s": len(found["times"]) / found["seconds"],
        "p50_ms": float(np.percentile(times, 50)),
        "p99_ms": float(np.percentile(times, 99)),
    }


async def _load(address: str, path: str, body: Body, clients: int, seconds: float) -> dict[str, Any]:
    parts = urllib.parse.urlsplit(address)
    assert parts.hostname and parts.port
    numbers, times, errors, begun = iter(range(10**9)), list[float](), 0, time.perf_counter()

    async def client() -> None:
        nonlocal errors
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        try:
            while time.perf_counter() - begun < seconds:
                start = time.perf_counter()
                status = await _post(reader, writer, path=path, body=body(next(numbers)))
                if status == 200:
                    times.append(time.perf_counter() - start)
                else:
                    errors += 1
        except (OSError, EOFError, ValueError):
            errors += 1
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    await asyncio.gather(*(client() for _ in range(clients)))
    return {"times": times, "errors": errors, "seconds": time.perf_counter() - begun}


async def _post(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, path: str, body: bytes) -> int:
    """Post on a connection that stays open; return the status of the answer."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    writer.write(head.encode() + b"\r\n\r\n" + body)
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    (length,) = (int(line.split(":")[1]) for line in lines if line.lower().startswith("content-length:"))
    await reader.readexactly(length)
    return int(lines[0].split()[1])
