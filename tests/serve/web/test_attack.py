"""Attacks on a running server, byte by byte over a socket: nothing leaks, nothing is injected, it goes on answering."""

import contextlib
import gzip
import json
import socket
import urllib.parse
import urllib.request

import pytest

from twinreel.serve.web.protocol import TimedProtocol


def connect(address):
    parts = urllib.parse.urlsplit(address)
    return socket.create_connection((parts.hostname, parts.port), timeout=20)


def answer_to(address, data):
    """Send bytes as they are, and read until the server closes; b"" if it closes without an answer."""
    found = b""
    with connect(address) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(data)
        while block := connection.recv(2**16):
            found += block
    return found


def request(path="/", *, method="GET", headers=(), body=b""):
    lines = [f"{method} ".encode() + path.encode("latin-1") + b" HTTP/1.1", b"Host: localhost", b"Connection: close"]
    return b"\r\n".join([*lines, *headers, b"", body])


def status_of(answer):
    return int(answer.split(b" ", 2)[1]) if answer else 0


@pytest.fixture(autouse=True)
def well(address):
    """Whatever a test sends, the server answers afterwards."""
    yield
    with urllib.request.urlopen(f"{address}healthz", timeout=20) as answer:
        assert json.load(answer)["status"] == "ok"


@pytest.mark.parametrize(
    "path",
    [
        *("/media/../../../etc/passwd", "/media/%2e%2e/%2e%2e/etc/passwd", "/static/..%2f..%2fapp.py", "//etc/passwd"),
        *("/static/..\\..\\app.py", "/static/app.js%00.py", "/static//etc/passwd", "/thumbnails/../media/1"),
        *("/static/%252e%252e%252fapp.py", "/media/1%00", "file:///etc/passwd", "/media/１", "/static/%c0%ae%c0%ae/"),
    ],
)
def test_no_path_leads_out(address, path):
    raw = path.encode().decode("latin-1")
    answer = answer_to(address, request(raw))
    assert status_of(answer) in (400, 404, 422), answer[:200]
    assert b"root:" not in answer and b"import" not in answer and b"Traceback" not in answer


@pytest.mark.parametrize(
    "path",
    [
        *("/api/export?form=csv%0d%0aX-Evil:%201", "/?token=a%0d%0aX-Evil:%201", "/static/a%0d%0aX-Evil:%201"),
        "/media/1?a=%0d%0aX-Evil:%201",
    ],
)
def test_nothing_is_injected_into_headers(address, path):
    head = answer_to(address, request(path)).split(b"\r\n\r\n")[0].lower()
    assert head and not any(line.startswith(b"x-evil") for line in head.split(b"\r\n"))


def test_a_file_name_does_not_reach_a_header(address):
    name = b'a"\r\nX-Evil: 1\r\n.mp4'
    part = b'--x\r\nContent-Disposition: form-data; name="file"; filename="' + name + b'"\r\n\r\n12\r\n--x--\r\n'
    headers = [b"Content-Type: multipart/form-data; boundary=x", b"Content-Length: %d" % len(part)]
    answer = answer_to(address, request("/api/uploads", method="POST", headers=headers, body=part))
    assert status_of(answer) in (400, 422) and b"\r\nx-evil" not in answer.lower()


@pytest.mark.parametrize(
    "headers",
    [
        [b"A: b\x00c"],
        [b"A b: c"],
        [b": c"],
        [b"A: " + b"x" * 4_000_000],
        [b"Content-Length: 1", b"Content-Length: 2"],
        [b"Content-Length: -1"],
        [b"Transfer-Encoding: gzip, chunked"],
        [b"Host: evil.example"],
    ],
    ids=["nul", "space", "no name", "long", "two lengths", "negative", "encoding", "two hosts"],
)
def test_malformed_heads_are_refused(address, headers):
    answer = answer_to(address, request("/api/collection", headers=headers))
    assert status_of(answer) in (0, 400, 403, 431, 501), answer[:200]
    assert b"moments" not in answer


def test_two_lengths_do_not_smuggle_a_request(address):
    """A length and chunks: the body is read as chunks or not at all, and never as a second request."""
    body = b"0\r\n\r\nGET /api/collection HTTP/1.1\r\nHost: localhost\r\n\r\n"
    headers = [b"Content-Length: %d" % len(body), b"Transfer-Encoding: chunked", b"Content-Type: application/json"]
    answer = answer_to(address, request("/api/search", method="POST", headers=headers, body=body))
    assert status_of(answer) in (0, 400, 422) and b"moments" not in answer


def test_heads_that_do_not_arrive_end(address, monkeypatch):
    monkeypatch.setattr(TimedProtocol, "head_seconds", 0.2)
    slow = [connect(address) for _ in range(20)]
    for number, connection in enumerate(slow):
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nA: "[: 2 * number])
    for connection in slow:
        assert connection.recv(100) == b""  # closed, without an answer
        connection.close()
    with connect(address) as again:  # and so does a second request of a connection
        again.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" in again.recv(2**16)
        again.sendall(b"GET /healthz HTTP/1.1\r\nHost: loc")
        assert again.recv(100) == b""


def test_a_body_that_does_not_arrive_ends(address):
    headers = [b"Content-Type: application/json", b"Content-Length: 50"]
    assert status_of(answer_to(address, request("/api/search", method="POST", headers=headers, body=b"{"))) == 408


def test_very_many_parts(address):
    part = b'--x\r\nContent-Disposition: form-data; name="texts"\r\n\r\na\r\n'
    body = part * 3000 + b"--x--\r\n"
    headers = [b"Content-Type: multipart/form-data; boundary=x", b"Content-Length: %d" % len(body)]
    answer = answer_to(address, request("/api/encode/files", method="POST", headers=headers, body=body))
    assert status_of(answer) == 400


def test_a_packed_body_is_not_unpacked(address):
    body = gzip.compress(b'{"texts": ["' + b"a" * 10**7 + b'"]}')
    headers = [b"Content-Type: application/json", b"Content-Encoding: gzip", b"Content-Length: %d" % len(body)]
    answer = answer_to(address, request("/api/encode", method="POST", headers=headers, body=body))
    assert status_of(answer) in (400, 422)


def test_a_film_that_unpacks_to_too_much(client):
    """A GIF of a few bytes that states 65,535 by 65,535 pixels, 13 GB."""
    size = b"\xff\xff\xff\xff"
    data = b"GIF89a" + size + b"\x80\x00\x00" + bytes(6) + b"," + bytes(4) + size + b"\x00\x02\x03\x44\x01\x05\x00;"
    answer = client().post("/api/encode/files", files=[("files", ("bomb.gif", data))])
    assert answer.status_code == 422 and "bomb.gif cannot be looked for" in answer.json()["detail"]
