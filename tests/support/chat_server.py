"""A stand-in for an OpenAI-compatible chat endpoint: a local server whose answers a test writes."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class ChatServer(ThreadingHTTPServer):
    """Answers `POST .../chat/completions`.

    Attributes:
      answer: called with each request's body; returns the text of the answer, or (status, headers, bytes) to send as
        they are, or None to hang until the server ends.
      requests: bodies in the order in which they came.
      keys: their `Authorization` headers.
    """

    daemon_threads = True

    def __init__(self, answer: Callable[[dict[str, Any]], Any]):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer, self.requests, self.keys, self.ended = answer, [], [], threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        server: Any = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server.requests.append(body)
        server.keys.append(self.headers.get("Authorization"))
        made = server.answer(body) if self.path == "/v1/chat/completions" else (404, {}, b"no such page")
        if made is None:
            server.ended.wait(20)
            return
        if isinstance(made, str):
            reply = {"model": "stand-in", "choices": [{"message": {"content": made}, "finish_reason": "stop"}]}
            made = (200, {}, json.dumps(reply).encode())
        status, headers, content = made
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def chat_server(answer: Callable[[dict[str, Any]], Any]) -> Iterator[ChatServer]:
    """Run a server in a thread for the length of a `with`."""
    server = ChatServer(answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.ended.set()
        server.shutdown()
        thread.join()
        server.server_close()
