"""Conditional writes through gcsfs, against the few requests of Google's JSON API that they need."""

import http.server
import json
import re
import threading
import urllib.parse

import pytest

from twinreel.engine.remote.ledger import Ledger
from twinreel.engine.remote.store import Conflict, Store

gcsfs = pytest.importorskip("gcsfs")


class Google(http.server.BaseHTTPRequestHandler):
    """Objects with generations: metadata, content, upload of type `media` with ifGenerationMatch."""

    objects: dict[str, tuple[int, bytes]]

    def answer(self, status, body):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def about(self, name):
        generation, data = self.objects[name]
        return {"name": name, "bucket": "b", "generation": str(generation), "size": str(len(data))}

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        name = urllib.parse.unquote(re.fullmatch(r"(?:/download)?/storage/v1/b/b/o(?:/(.*))?", url.path)[1] or "")
        if name not in self.objects:
            self.answer(200, {"items": []}) if not name else self.answer(404, {"error": {"message": "absent"}})
        elif "alt=media" in url.query:
            self.answer(200, self.objects[name][1])
        else:
            self.answer(200, self.about(name))

    def do_POST(self):
        data = self.rfile.read(int(self.headers["Content-Length"]))
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query))
        assert query["uploadType"] == "media"
        now = self.objects.get(query["name"], (0, b""))[0]
        if int(query["ifGenerationMatch"]) != now:
            self.answer(412, {"error": {"message": "conditionNotMet"}})
            return
        self.objects[query["name"]] = (now + 1, data)
        self.answer(200, self.about(query["name"]))

    def log_message(self, *_):
        pass


@pytest.fixture
def google(monkeypatch):
    handler = type("Handler", (Google,), {"objects": {}})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_address[1]}")
    gcsfs.GCSFileSystem.clear_instance_cache()
    yield handler
    gcsfs.GCSFileSystem.clear_instance_cache()
    server.shutdown()
    server.server_close()
    thread.join()


def test_generations_decide(google):
    store = Store("gs://b/run")
    assert store.read("a") is None
    first = store.replace("a", b"1", tag=None)
    second = store.replace("a", b"2", tag=first)
    for tag in (None, first):
        with pytest.raises(Conflict):
            store.replace("a", b"3", tag=tag)
    assert store.read("a") == (b"2", second) and google.objects["run/a"] == (2, b"2")
    assert store.retried == 0


def test_a_lease(google):
    ledger = Ledger(Store("gs://b/run"), say=print)
    ledger.update(lambda state: state["checkpoints"].update({"4": {}}))
    ledger.release()
    kept = json.loads(google.objects["run/run.json"][1])
    assert (kept["owner"], kept["checkpoints"], kept["epoch"]) == (None, {"4": {}}, 1)
