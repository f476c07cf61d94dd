"""The webhook: retries, refusals, and a receiver that hangs delays nobody."""

import http.server
import json
import threading

import pytest

from twinreel.base.errors import UserError
from twinreel.serve.watch import webhook
from twinreel.serve.watch.webhook import Webhook


class Receiver(http.server.BaseHTTPRequestHandler):
    """Answers with the statuses of a list, 200 when it is empty; waits for a gate."""

    statuses, got, gate = [], [], threading.Event()

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        type(self).got.append((body, self.headers["authorization"]))
        self.gate.wait(20)
        self.send_response(self.statuses.pop(0) if self.statuses else 200)
        self.send_header("location", "http://127.0.0.1:9/")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def receiver(monkeypatch):
    monkeypatch.setattr(webhook, "_BACKOFF_S", 0.01)
    handler = type("Own", (Receiver,), {"statuses": [], "got": [], "gate": threading.Event()})
    handler.gate.set()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        handler.url = f"http://127.0.0.1:{server.server_port}/events"
        yield handler
        handler.gate.set()
        server.shutdown()
        thread.join()


def test_events_arrive_in_order_and_are_sent_again(receiver):
    receiver.statuses += [200, 503, 429, 200, 404]
    hook = Webhook(receiver.url, token="secret")
    hook.start({"n": 0})
    for n in range(1, 4):
        hook.send({"n": n})
    hook.close()
    assert [body["n"] for body, _ in receiver.got] == [0, 1, 1, 1, 2, 3]
    assert {token for _, token in receiver.got} == {"Bearer secret"}
    assert hook.counts() == {"sent": 3, "failed": 1, "dropped": 0, "reason": "HTTP 404"}


def test_a_receiver_that_hangs_costs_events_and_nothing_else(receiver):
    hook = Webhook(receiver.url, room=2)
    hook.start({"n": 0})
    receiver.gate.clear()
    for n in range(50):
        hook.send({"n": n})
    hook.close(wait_s=0.05)
    assert hook.dropped >= 49 and hook.sent == 1
    receiver.gate.set()


def test_redirects_are_refused(receiver):
    receiver.statuses += [302]
    with pytest.raises(UserError, match=r"took no event \(HTTP 302\)"):
        Webhook(receiver.url, attempts=1).start({})


def test_bad_urls(monkeypatch):
    monkeypatch.setattr(webhook, "_BACKOFF_S", 0.01)
    with pytest.raises(UserError, match="wanted a URL such as"):
        Webhook("file:///etc/passwd")
    with pytest.raises(UserError, match=r"127\.0\.0\.1:9 took no event .*refused"):
        Webhook("http://127.0.0.1:9/").start({})
