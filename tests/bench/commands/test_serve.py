"""`twinreel bench serve` and `bench search`: what they report, and what they refuse."""

import http.server
import threading
from typing import ClassVar

import numpy as np
import pytest

from twinreel.base.errors import UserError
from twinreel.bench.commands import search, serve
from twinreel.bench.made.index import Embeddings, make_index
from twinreel.bench.measure import clients
from twinreel.serve.index.database import ModelRow
from twinreel.serve.search.collection import Collection


def test_texts_differ():
    assert len({serve.text(n) for n in range(20_000)}) == 20_000 and serve.text(0) == "a red dog and a red dog"


def test_a_made_up_index_is_one(tmp_path):
    model = ModelRow(id=0, name="m", source="m", weights="w", width=24, sides=("video",))
    make_index(tmp_path / "index", model=model, rows=90)
    with Collection(tmp_path / "index") as collection:
        side = collection.side("video")
        rows = np.concatenate(list(Embeddings(width=24).blocks(90)))
        np.testing.assert_array_equal(side.vectors(np.arange(90)), rows)
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
        assert side.files.tolist() == [1 + i // 20 for i in range(90)] and len(collection.files(range(1, 9))) == 5
        assert collection.moments(5)[81] == (0.0, 10.0)
    queries = Embeddings(width=24).queries(5)
    right = [(np.argsort(-(rows.astype(np.float64) @ query))[:10] + 1).tolist() for query in queries]
    assert search._nearest(tmp_path / "index", queries, rows=90) == right


class Answers(http.server.BaseHTTPRequestHandler):
    """Answers each post with 200, every fifth one with 503; keeps the bodies."""

    protocol_version = "HTTP/1.1"
    bodies: ClassVar[list[bytes]] = []

    def do_POST(self):
        self.bodies.append(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(503 if len(self.bodies) % 5 == 0 else 200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_):
        pass


def test_clients_count_answers_and_errors():
    lock = threading.Lock()

    class Locked(Answers):
        def do_POST(self):
            with lock:
                super().do_POST()

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Locked) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        found = clients.load(address, path="/", body=lambda n: b"%d" % n, clients=4, seconds=0.3)
        server.shutdown()
        thread.join(20)
    count = len(Answers.bodies)
    assert found["requests"] + found["errors"] == count == len(set(Answers.bodies)) >= 4
    assert found["errors"] == count // 5 and 0 < found["p50_ms"] <= found["p99_ms"]


@pytest.mark.parametrize("flags", [["--clients", "1,x"], ["--clients", "0"], ["--seconds", "0"], ["--rows", "0"]])
def test_bad_flags_of_serve(flags):
    with pytest.raises(UserError, match="--clients"):
        serve.main(flags)


def test_bad_flags_of_search():
    with pytest.raises(UserError, match="--keep needs --dir"):
        search.main(["--keep"])
    with pytest.raises(UserError, match="must be at least 1"):
        search.main(["--queries", "0"])
