"""A real S3 server on the loopback interface (moto, in a process of its own), and a proxy that fails on demand."""

import http.client
import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

_SERVE = """
import logging, sys
logging.getLogger("werkzeug").setLevel(logging.ERROR)
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""
DUMMY = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class Server:
    """The server's process; `port` of 127.0.0.1."""

    def __init__(self):
        quiet = [sys.executable, "-W", "ignore", "-c", _SERVE]
        self._process = subprocess.Popen(
            quiet, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | DUMMY, text=True
        )
        self.port = int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(timeout=20)
        self._process.stdout.close()


class Proxy:
    """Hands requests on to a server; `fault(method, path)` may say "cut" (half of the body) or a status such as 403.

    Attributes:
      port: of 127.0.0.1.
      fault: what to do to a request; None = nothing.
      seen: (method, path) of all requests.
    """

    def __init__(self, to: int):
        self.fault: Callable[[str, str], str | int | None] = lambda method, path: None
        self.seen: list[tuple[str, str]] = []
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                proxy.seen.append((self.command, self.path))
                fault = proxy.fault(self.command, self.path)
                sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self.close_connection = True
                if isinstance(fault, int):
                    self.send_response(fault)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                connection = http.client.HTTPConnection("127.0.0.1", to)
                headers = {key: value for key, value in self.headers.items() if key.lower() != "connection"}
                connection.request(self.command, self.path, sent, headers)
                answer = connection.getresponse()
                body = answer.read()
                self.send_response(answer.status)
                for key, value in answer.getheaders():
                    if key.lower() not in ("transfer-encoding", "connection", "content-length"):
                        self.send_header(key, value)
                length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(body))
                self.send_header("Content-Length", length or "0")
                self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(body[: len(body) // 2] if fault == "cut" else body)
                connection.close()

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def upload(folder: Path, url: str) -> None:
    """Copy the files of a folder to a URL."""
    import fsspec

    system, path = fsspec.core.url_to_fs(url)
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            system.put_file(str(file), f"{path}/{file.relative_to(folder).as_posix()}")
