"""The API: searches, uploads, films by their ids; and what it refuses."""

import os
import shutil
import sqlite3

import pytest
from brightness_model import brightness_model
from serve_films import write_films

from twinreel.base.errors import UserError
from twinreel.serve.web.command import checked_token
from twinreel.serve.web.guard import GuardOptions
from twinreel.serve.web.service import Service


def test_collection_and_health(client):
    facts = client().get("/api/collection").json()
    assert {key: facts[key] for key in ("files", "moments", "model", "hears")} == {
        **{"files": 8, "moments": 30, "model": "brightness", "hears": True}
    }
    assert client().get("/health").json()["status"] == "ok"


def test_a_search_without_paths(client, films):
    found = client().post("/api/search", json={"text": "grey 30"}).json()
    assert found["hits"][0]["name"] in ("grey30.mp4", "ramp.mp4") and found["unit"] == "cosine"
    assert len(found["hits"]) == 8 and str(films) not in str(found)
    folded = client().post("/api/search", json={"text": "grey 30", "fold": 0.99}).json()
    assert len(folded["hits"]) < 8 and any(hit["alike"] for hit in folded["hits"])


def test_more_like_a_moment(client):
    hit = client().post("/api/search", json={"text": "grey 150"}).json()["hits"][3]
    again = client().post("/api/search", json={"moments": {hit["moment"]: 1.0}}).json()
    assert again["hits"][0]["moment"] == hit["moment"] and again["hits"][0]["score"] == pytest.approx(1, abs=1e-4)
    minus = client().post("/api/search", json={"text": "grey 150", "moments": {hit["moment"]: -1.0}}).json()
    assert minus["unit"] == "z" and minus["hits"][0]["moment"] != hit["moment"]


def test_uploads_are_looked_for(client, films):
    for name, kind in (("grey70.mp4", "like"), ("grey190.mp4", "sound")):
        data = (films / "short" / name).read_bytes()
        made = client().post(f"/api/uploads?kind={kind}", files={"file": (f"../../{name}", data)}).json()
        assert made["kind"] == kind and made["name"] == name
        found = client().post("/api/search", json={"uploads": {made["id"]: 1.0}}).json()
        assert found["hits"][0]["name"] == name and found["hits"][0]["score"] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.mp4", b"no film" * 100, "a.mp4 cannot be looked for: cannot be opened"),
        ("b.png", b"\x89PNG\r\n\x1a\n" + bytes(50), "b.png cannot be looked for: picture cannot be decoded"),
        ("c.mp4", b"", "c.mp4 cannot be looked for: file is empty"),
        ("\r\nx: y.mp4", b"12", "y.mp4 cannot be looked for"),
    ],
)
def test_a_bad_upload_is_a_message(client, name, data, message):
    answer = client().post("/api/uploads", files={"file": (name, data)})
    assert answer.status_code == 422 and message in answer.json()["detail"]
    assert "/tmp" not in answer.json()["detail"]


def test_a_picture_that_unpacks_to_too_much(client, tmp_path):
    import zlib

    def part(kind, data):
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    size = (60_000).to_bytes(4, "big")
    data = b"\x89PNG\r\n\x1a\n" + part(b"IHDR", size + size + bytes([8, 2, 0, 0, 0]))
    data += part(b"IDAT", zlib.compress(bytes(10**6))) + part(b"IEND", b"")
    answer = client().post("/api/uploads", files={"file": ("bomb.png", data)})
    assert answer.status_code == 422 and "pictures larger than" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "nothing to look for"),
        ({"text": "-dark"}, "names only what to avoid"),
        ({"text": 'a "b'}, "check its quotes"),
        ({"text": "a", "limit": 0}, "limit: "),
        ({"text": "a", "folder": "/etc"}, "folder: "),
        ({"text": "a", "within": "files"}, "within: "),
        ({"text": "a" * 1001}, "text: "),
        ({"text": "a", "labels": ["dog"]}, "unknown label"),
        ({"text": "a", "after": "soon"}, "is no date"),
        ({"moments": {"99999": 1}}, "no moment 99999"),
        ({"uploads": {"x": 1}}, "not remembered any more"),
        ({"text": "a", "moments": {"1": 0.0}}, "weight 0"),
    ],
)
def test_a_bad_search_is_a_message(client, body, message):
    answer = client().post("/api/search", json=body)
    assert answer.status_code == 422 and message in answer.json()["detail"], answer.text


def test_exports(client, films):
    for form, start in (("csv", "rank,score,path"), ("m3u", "#EXTM3U"), ("edl", "TITLE: "), ("json", "{")):
        answer = client().post(f"/api/export?form={form}", json={"text": "grey 30"})
        assert answer.text.startswith(start) and f"twinreel.{form}" in answer.headers["content-disposition"]
    assert client().post("/api/export?form=exe", json={"text": "a"}).status_code == 422


def test_a_collection_is_written_in_its_order(client):
    first, second = (file_of(client, name)["file"] for name in ("ramp.mp4", "grey30.mp4"))
    stretches = [{"file": first, "start_s": 4, "end_s": 8.5, "score": 0.25}, {"file": second, "start_s": 0, "end_s": 2}]
    body = {"name": "beach days", "stretches": stretches}
    rows = client().post("/api/cutlist?form=csv", json=body).text.splitlines()
    assert [row.split(",")[1] for row in rows[1:]] == ["0.250000", "0.000000"]
    assert "ramp.mp4,4.000,8.500" in rows[1] and "grey30.mp4,0.000,2.000" in rows[2]
    assert "beach days" in client().post("/api/cutlist?form=edl", json=body).text
    for wrong, message in (
        ({"stretches": []}, "stretches: "),
        ({"name": ""}, "name: "),
        ({"stretches": [{"file": 9999, "start_s": 0, "end_s": 1}]}, "no file 9999"),
        ({"stretches": [{"file": first, "start_s": 2, "end_s": 1}]}, "ends before it starts"),
        ({"stretches": [{"file": first, "start_s": 0, "end_s": 1, "path": "/etc"}]}, "path: "),
    ):
        answer = client().post("/api/cutlist?form=csv", json=body | wrong)
        assert answer.status_code == 422 and message in answer.json()["detail"]


def file_of(client, name):
    hits = client().post("/api/search", json={"text": "grey 30"}).json()["hits"]
    return next(hit for hit in hits if hit["name"] == name)


def test_films_are_served_by_id_with_ranges(client, films):
    hit, data = file_of(client, "grey110.mp4"), (films / "short" / "grey110.mp4").read_bytes()
    answer = client().get(f"/media/{hit['file']}")
    assert answer.content == data and answer.headers["content-type"] == "video/mp4"
    part = client().get(f"/media/{hit['file']}", headers={"range": "bytes=100-199"})
    assert part.status_code == 206 and part.content == data[100:200]
    assert part.headers["content-range"] == f"bytes 100-199/{len(data)}"
    assert client().get(f"/media/{hit['file']}", headers={"range": f"bytes={len(data)}-"}).status_code == 416
    thumbnail = client().get(f"/thumbnails/{hit['moment']}")
    assert thumbnail.headers["content-type"] == "image/webp" and thumbnail.content[8:12] == b"WEBP"


@pytest.mark.parametrize(
    "path",
    [
        *("/media/0", "/media/-1", "/media/999", f"/media/{2**70}", "/media/../../etc/passwd", "/media//etc/passwd"),
        *("/media/%2e%2e%2fetc%2fpasswd", "/static/..%2fapp.py", "/static/../app.py", "/static/index.html"),
        *("/thumbnails/999", "/thumbnails/1.webp", f"/thumbnails/{2**70}", "/redoc", "/openapi.json"),
    ],
)
def test_nothing_else_is_served(client, path):
    assert client().get(path).status_code in (404, 422)


def test_a_file_that_was_changed_or_replaced_is_not_served(tmp_path, update):
    """A symbolic link in the place of a film, a film written anew, and one that is gone."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from starlette.testclient import TestClient

    from twinreel.serve.web.app import create_app

    films = write_films(tmp_path / "own")
    update(films / "short")
    service = Service(tmp_path / "index", model="", opened=brightness_model())
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    (films / "short" / "grey30.mp4").unlink()
    (films / "short" / "grey30.mp4").symlink_to(secret)
    os.utime(films / "short" / "grey70.mp4", (1, 1))
    (films / "short" / "grey110.mp4").unlink()
    client = TestClient(create_app(service, options=GuardOptions()), base_url="http://localhost")
    statuses = {
        service.file(key).path.rpartition("/")[2]: client.get(f"/media/{key}").status_code for key in range(1, 7)
    }
    assert statuses == {
        **{"grey30.mp4": 410, "grey70.mp4": 410, "grey110.mp4": 410},
        **{"grey150.mp4": 200, "grey190.mp4": 200, "grey230.mp4": 200},
    }
    service.close()


def test_a_new_index_is_noticed(tmp_path, copied, update, monkeypatch):
    from twinreel.serve.web import service as module

    update(copied)
    service = Service(tmp_path / "index", model="", opened=brightness_model())
    monkeypatch.setattr(module, "_FRESH_S", 0.0)
    before = service.facts()["files"]
    shutil.copy(copied / "short" / "grey30.mp4", copied / "more.mp4")
    update(copied)
    assert (before, service.facts()["files"]) == (8, 9)
    results, _ = service.search(module.Asked(text="grey 30"))
    assert "more.mp4" in {hit.file.path.rpartition("/")[2] for hit in results.hits}
    service.close()
    with pytest.raises(sqlite3.ProgrammingError):
        service.facts()


def test_headers_keep_other_sites_out(client):
    answer = client().get("/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    for host in ("evil.example", "127.0.0.1.evil.example", "", "[::1"):
        assert client().get("/api/collection", headers={"host": host}).status_code == 403
    assert client().get("/api/collection", headers={"host": "localhost:8000"}).status_code == 200
    post = {"json": {"text": "a"}}
    assert client().post("/api/search", headers={"origin": "http://evil.example"}, **post).status_code == 403
    assert client().post("/api/search", headers={"origin": "http://127.0.0.1"}, **post).status_code == 200


def test_the_page_asks_no_other_server(client):
    for path in (
        "/",
        "/static/app.js",
        "/static/map.js",
        "/static/player.js",
        "/static/common.js",
        "/static/app.css",
        "/static/base.css",
        "/docs",
    ):
        text = client().get(path).text
        assert "https://" not in text and "http://" not in text.replace("http://www.w3.org/2000/svg", ""), path
    docs = client().get("/docs").text
    assert "POST /api/search" in docs and "fold" in docs and "openapi.json" in docs
    assert client().get("/api/openapi.json").json()["paths"].keys() >= {"/api/search", "/media/{file}", "/health"}


TOKEN = "0123456789abcdefghij"


def test_a_token(client):
    open_one = client(token=TOKEN)
    host = {"host": "films.example"}
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {TOKEN}"}, {"cookie": "a=b; ;;="}):
        assert open_one.get("/api/collection", headers=host | headers).status_code == 401
    assert open_one.get("/media/1", headers=host).status_code == 401
    assert open_one.get(f"/api/collection?token={TOKEN}", headers=host).status_code == 401  # for the page alone
    bearer = {"authorization": f"Bearer {TOKEN}"}
    assert open_one.get("/api/collection", headers=host | bearer).status_code == 200
    assert open_one.get("/health", headers=host).status_code == 200
    answer = open_one.get(f"/?token={TOKEN}", headers=host, follow_redirects=False)
    cookie = answer.headers["set-cookie"].lower()
    assert answer.status_code == 303 and "httponly" in cookie and "samesite=strict" in cookie
    given = {"cookie": f"twinreel_token={TOKEN}"}
    assert open_one.get("/api/collection", headers=host | given).status_code == 200


def test_who_may_listen_without_a_token():
    for host in ("127.0.0.1", "localhost", "::1", "127.1.2.3"):
        assert checked_token(host, "") == ""
    for host in ("0.0.0.0", "::", "192.168.1.5", "films.example"):
        with pytest.raises(UserError, match="needs a token"):
            checked_token(host, "")
        assert checked_token(host, TOKEN) == TOKEN
    for short in ("short", "with spaces in the middle", "0123456789abcdé0123"):
        with pytest.raises(UserError, match="at least 16 characters"):
            checked_token("127.0.0.1", short)


def test_size_and_rate(client):
    small = client(upload_bytes=1000, body_bytes=500)
    assert small.post("/api/uploads", files={"file": ("a.mp4", bytes(2**17))}).status_code == 413
    assert small.post("/api/search", json={"text": "a" * 600}).status_code == 413
    chunks = (b"x" * 100 for _ in range(50))  # of a length that is not stated
    assert small.post("/api/search", content=chunks).status_code == 413
    assert small.post("/api/search", content=b"{}", headers={"content-length": "-5"}).status_code == 413
    few = client(per_minute=3)
    assert [few.get("/api/collection").status_code for _ in range(5)] == [200, 200, 200, 429, 429]
    assert few.get("/thumbnails/1").status_code == 200  # pictures do not count


def test_malformed_bodies(client):
    headers = {"content-type": "multipart/form-data; boundary=x"}
    for body in (b"", b"--x\r\n", b"--x\r\ncontent-disposition: form-data; name=file\r\n\r\n", b"\xff" * 99):
        assert client().post("/api/uploads", content=body, headers=headers).status_code in (400, 422)
    for body in (b"{", b"[]", b"null", b'"a"', b'{"text": "a", "text2": 1}', b"[" * 5000):
        answer = client().post("/api/search", content=body, headers={"content-type": "application/json"})
        assert answer.status_code in (400, 422) and "detail" in answer.json()


def test_a_slow_client_is_left(service):
    """A body that never arrives."""
    import asyncio

    from twinreel.serve.web.app import create_app

    app, sent = create_app(service, options=GuardOptions(body_seconds=0.2)), []
    scope = {
        **{"type": "http", "method": "POST", "path": "/api/search", "raw_path": b"/api/search", "query_string": b""},
        **{"headers": [(b"host", b"localhost"), (b"content-type", b"application/json")], "client": ("127.0.0.1", 1)},
        **{"scheme": "http", "server": ("localhost", 80), "http_version": "1.1", "root_path": "", "asgi": {}},
    }

    async def receive():
        await asyncio.sleep(60)

    async def send(message):
        sent.append(message)

    asyncio.run(asyncio.wait_for(app(scope, receive, send), 10))
    assert sent[0]["status"] == 408
