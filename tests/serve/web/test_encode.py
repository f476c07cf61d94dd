"""The API that embeds, and the metrics that count it."""

import base64
import io
import re

import numpy as np
import pytest
from brightness_model import brightness_model
from serve_films import SETTINGS

from twinreel.serve.search.query import Term, embed_terms
from twinreel.serve.web import encoding
from twinreel.serve.web.batching import Busy


def test_texts_are_embedded(client):
    texts = [f"grey {level}" for level in range(0, 250, 10)]  # more than one batch
    wanted = brightness_model().encoder.encode_text(texts)
    answer = client().post("/api/encode", json={"texts": texts}).json()
    np.testing.assert_allclose(answer["embeddings"], wanted, atol=1e-6)
    assert answer["model"] == "brightness" and answer["width"] == 16 and answer["weights"] == "brightness 0.3"
    assert answer["rows"][7] == {"kind": "text", "item": 7} and len(answer["rows"]) == 25
    coded = client().post("/api/encode?as=base64", json={"texts": texts}).json()
    rows = np.frombuffer(base64.b64decode(coded["base64"]), "<f4").reshape(-1, coded["width"])
    np.testing.assert_array_equal(rows, np.array(answer["embeddings"], np.float32))


def test_files_and_texts_in_one_request(client, films):
    names = ("short/grey70.mp4", "long/ramp.mp4", "picture.png")
    files = [("files", (name, (films / name).read_bytes())) for name in names]
    answer = client().post("/api/encode/files?as=npz", files=files, data={"texts": ["grey 70", "a"]})
    with np.load(io.BytesIO(answer.content)) as arrays:
        found = dict(arrays)
    given = {"opened": brightness_model(), "settings": SETTINGS}
    terms = [Term(kind="text", value=text) for text in ("grey 70", "a")]
    terms += [Term(kind="like", value=str(films / name)) for name in names]
    wanted = np.concatenate([one.vectors for one in embed_terms(terms, **given)])
    np.testing.assert_allclose(found["embeddings"], wanted, atol=1e-6)
    assert found["embeddings"].dtype == np.float32 and found["kind"].tolist() == ["text"] * 2 + ["video"] * 25
    assert found["item"].tolist() == [0, 1, 0, *[1] * 23, 2]
    assert found["start_s"][3:6].tolist() == [0, 2, 4] and found["end_s"][3:6].tolist() == [4, 6, 8]
    assert np.isnan(found["start_s"][:2]).all()


def test_sound(client, films):
    data = (films / "short" / "grey110.mp4").read_bytes()
    answer = client().post("/api/encode/files?kind=sound", files=[("files", ("a.mp4", data))]).json()
    term = Term(kind="sound", value=str(films / "short" / "grey110.mp4"), side="audio")
    (wanted,) = embed_terms([term], opened=brightness_model(), settings=SETTINGS)
    np.testing.assert_allclose(answer["embeddings"], wanted.vectors, atol=1e-6)
    assert answer["rows"] == [{"kind": "audio", "item": 0}]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"texts": []}, "texts: "),
        ({"texts": [""]}, "texts.0: "),
        ({"texts": ["a" * 1001]}, "texts.0: "),
        ({"texts": ["a"] * 257}, "texts: "),
        ({"texts": "a"}, "texts: "),
        ({"texts": ["a"], "model": "b"}, "model: "),
    ],
)
def test_bad_texts_are_a_message(client, body, message):
    answer = client().post("/api/encode", json=body)
    assert answer.status_code == 422 and message in answer.json()["detail"]


def test_bad_files_are_a_message(client):
    post = client().post
    answer = post("/api/encode/files", files=[("files", ("a.mp4", b"no film" * 99))])
    assert answer.status_code == 422 and "a.mp4 cannot be looked for" in answer.json()["detail"]
    many = [("files", (f"{n}.mp4", b"")) for n in range(33)]
    assert "at most 32" in post("/api/encode/files", files=many).json()["detail"]
    assert post("/api/encode/files", data={"texts": ["a"]}).status_code == 422
    assert post("/api/encode?as=pickle", json={"texts": ["a"]}).status_code == 422
    assert client(encode_bytes=300, body_bytes=300).post("/api/encode", json={"texts": ["a" * 400]}).status_code == 413


def test_a_busy_server_says_when_to_ask_again(client, service, monkeypatch):
    def full(texts):
        raise Busy("512 rows wait", retry_s=3)

    monkeypatch.setattr(service.encoding, "texts", full)
    answer = client().post("/api/encode", json={"texts": ["a"]})
    assert answer.status_code == 503 and answer.headers["retry-after"] == "3" and "512 rows" in answer.json()["detail"]
    assert client().post("/api/search", json={"text": "a text that nobody asked for"}).status_code == 503


def test_too_many_files_at_a_time_are_refused(service, films):
    turns, places = service.encoding._turns, service.encoding._places
    taken = 0
    while places.acquire(blocking=False):
        taken += 1
    try:
        with pytest.raises(Busy) as caught:
            service.encoding.files([(films / "picture.png", "a.png")], kind="like")
        assert caught.value.retry_s == 5 and taken >= 2 + encoding._WAITING
    finally:
        places.release(taken)
    assert turns.acquire(blocking=False)
    turns.release()


def value(text, name):
    """The value of a sample, written as Prometheus does; 0 where it is not there yet."""
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.M)
    return float(found[1]) if found else 0.0


def test_metrics(client):
    get = client(per_minute=1000).get
    before = get("/metrics").text
    assert client().post("/api/encode", json={"texts": ["a"] * 5}).status_code == 200
    assert client().post("/api/encode", json={"texts": []}).status_code == 422
    assert client().get("/media/99999").status_code == 404 and client().get("/nothing/here").status_code == 404
    assert client().get("/api/collection", headers={"host": "evil.example"}).status_code == 403
    answer = get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")

    def more(name):
        return value(answer.text, name) - value(before, name)

    assert more('twinreel_requests_total{method="POST",route="/api/encode",status="200"}') == 1
    assert more('twinreel_requests_total{method="GET",route="/media/{file}",status="404"}') == 1
    assert more('twinreel_requests_total{method="GET",route="",status="404"}') == 1  # no label of the client's making
    assert more('twinreel_errors_total{kind="invalid"}') == 1 and more('twinreel_errors_total{kind="not_found"}') == 2
    assert more('twinreel_errors_total{kind="forbidden"}') == 1
    assert more('twinreel_request_seconds_count{route="/api/encode"}') == 2
    assert more('twinreel_encode_batch_rows_sum{side="text"}') == 5
    assert more('twinreel_encode_batch_seconds_count{side="text"}') >= 1
    assert value(answer.text, 'twinreel_encode_queue_rows{side="text"}') == 0
    assert value(answer.text, 'twinreel_index_size{of="moments"}') == 30


def test_health_and_what_needs_a_token(client):
    for path in ("/health", "/healthz"):
        assert client().get(path).json()["status"] == "ok"
    closed = client(token="0123456789abcdefghij")
    assert closed.get("/healthz").status_code == 200
    assert closed.get("/metrics").status_code == 401
    assert closed.post("/api/encode", json={"texts": ["a"]}).status_code == 401


def test_the_description_is_that_of_the_routes(client):
    schema = client().get("/api/openapi.json").json()
    assert schema["paths"].keys() >= {"/api/encode", "/api/encode/files", "/metrics", "/healthz"}
    answers = schema["paths"]["/api/encode"]["post"]["responses"]
    assert "Retry-After" in answers["503"]["description"] and "application/octet-stream" in answers["200"]["content"]
    docs = client().get("/docs").text
    assert "POST /api/encode/files" in docs and "texts" in docs and "json, base64 or npz" in docs
