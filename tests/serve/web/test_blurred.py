"""An index whose faces are blurred: embeddings, thumbnails, exported cuts, and what the server shows."""

import dataclasses
import io
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
from brightness_model import brightness_model
from face_films import BACKGROUNDS, DETECTOR, RECOGNISER, film, picture, shows_a_face
from index_state import ask, state
from PIL import Image
from serve_films import QUICK, SETTINGS

from twinreel.base.errors import UserError
from twinreel.data.media.decode import DecodeError, decode_clip
from twinreel.serve.index import command as index_command
from twinreel.serve.index.build import build_index
from twinreel.serve.index.store import Store
from twinreel.serve.search import command as search_command
from twinreel.serve.web.blurred import BlurredFilms
from twinreel.serve.web.service import Service

NAMES = ["blue.mp4", "picture.png", "red.mp4"]


@pytest.fixture(scope="module")
def blurred(tmp_path_factory):
    """The folder of the films, the detector (a copy that tests may move), and the index."""
    root = tmp_path_factory.mktemp("blurred")
    detector = root / "yunet.onnx"
    shutil.copy(DETECTOR, detector)
    for name in ("red", "blue"):
        film(root / "films" / f"{name}.mp4", BACKGROUNDS[name])
    Image.fromarray(picture(BACKGROUNDS["red"])).save(root / "films" / "picture.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("twinreel.serve.index.models.open_model", lambda *_, **__: brightness_model())
        argv = [str(root / "films"), "--out", str(root / "index"), "--model", "brightness", "--window", "4"]
        assert index_command.main([*argv, "--workers", "2", "--blur_faces", str(detector)]) == 0
    return root


@pytest.fixture(scope="module")
def client(blurred):
    from starlette.testclient import TestClient

    from twinreel.serve.web.app import create_app
    from twinreel.serve.web.guard import GuardOptions

    service = Service(blurred / "index", model="", opened=brightness_model())
    yield TestClient(create_app(service, options=GuardOptions()), base_url="http://127.0.0.1")
    service.close()


def frames_of(content):
    with av.open(io.BytesIO(content)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_a_stretch_that_cannot_be_made_leaves_no_file(tmp_path, monkeypatch):
    def killed(source, *, out, **_):
        out.with_name(f".{out.name}.tmp.mp4").write_bytes(b"a part")
        raise DecodeError("took longer than 120 s to decode")

    monkeypatch.setattr("twinreel.serve.web.blurred.show_apart", killed)
    films = BlurredFilms("detector")
    with pytest.raises(DecodeError):
        films.made(tmp_path / "a.mp4", file=1, mtime_ns=2, span=(0.0, 1.0))
    assert not list(Path(films._folder.name).iterdir())
    films.close()


def test_nothing_in_the_index_shows_a_face(blurred):
    index = blurred / "index"
    pictures = [np.asarray(Image.open(io.BytesIO(row[0]))) for row in ask(index, "SELECT webp FROM thumbnails")]
    assert len(pictures) == 3 and not any(map(shows_a_face, pictures))
    opened = dataclasses.replace(brightness_model(), blur_faces=str(DETECTOR))
    assert opened.decode.short_side == 320  # a detector sees nothing in 32 pixels
    for (path, *_), sides in state(index).items():
        made = []
        for detector in (str(DETECTOR), ""):
            clip = decode_clip(path, options=dataclasses.replace(opened.decode, blur_faces=detector))
            made.append(opened.embed_video([opened.frames(clip)], sounds=[], batch_size=1)[0])
        np.testing.assert_array_equal(made[0], sides["video"])
        assert (made[1] != made[0]).any()


def test_films_are_shown_without_faces(client, blurred):
    assert client.get("/api/collection").json()["blurred"] is True
    hits = client.post("/api/search", json={"text": "grey 90"}).json()["hits"]
    by_name = {hit["name"]: hit["file"] for hit in hits}
    assert sorted(by_name) == NAMES
    answer = client.get(f"/media/{by_name['red.mp4']}")
    assert answer.status_code == 403 and f"ask for /stretches/{by_name['red.mp4']}" in answer.json()["detail"]
    address = f"/stretches/{by_name['red.mp4']}?start_s=0.5&end_s=1.5"
    answer = client.get(address)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "video/mp4")
    frames = frames_of(answer.content)
    assert len(frames) == 4 and not any(map(shows_a_face, frames))
    part = client.get(address, headers={"range": "bytes=0-99"})
    assert part.status_code == 206 and part.content == answer.content[:100]  # the same file, made once
    shown = client.get(f"/stretches/{by_name['picture.png']}")
    assert shown.headers["content-type"] == "image/jpeg"
    seen = np.asarray(Image.open(io.BytesIO(shown.content)))
    assert seen.shape == (96, 96, 3) and not shows_a_face(seen)
    for query, status in (("start_s=5&end_s=1", 422), ("start_s=0&end_s=61", 422), ("start_s=50&end_s=55", 422)):
        assert client.get(f"/stretches/{by_name['red.mp4']}?{query}").status_code == status
    assert client.get("/stretches/99").status_code == 404


def test_exported_cuts_have_no_faces(blurred, tmp_path, monkeypatch):
    monkeypatch.setattr("twinreel.serve.search.opened.open_model", lambda *_, **__: brightness_model())
    argv = [str(blurred / "index"), "grey 90", "--json", "--export", str(tmp_path / "cuts")]
    assert search_command.main(argv) == 0
    cuts = list((tmp_path / "cuts").glob("*.mp4"))
    assert len(cuts) == 2
    for path in cuts:
        assert not any(map(shows_a_face, frames_of(path.read_bytes())))


def test_it_holds_for_the_index(blurred, library, tmp_path):
    index = tmp_path / "index"
    shutil.copytree(blurred / "index", index)
    detector = str(blurred / "yunet.onnx")
    given = {"folder": index, "opened": brightness_model(), "options": QUICK}
    rest = {"window_s": 4.0, "overlap_s": 2.0, "fps": 8.0}
    settings = type(SETTINGS)(**rest, blur_faces=str(DETECTOR))
    found = build_index([], settings=settings, **given)  # the file has another name now
    assert found["unchanged"] == 3
    assert ask(index, "SELECT value FROM settings WHERE name = 'blur_faces'") == [(f'"{DETECTOR}"',)]
    with pytest.raises(UserError, match=r"--blur_faces .*white_squares.onnx -> none"):
        build_index([], settings=type(SETTINGS)(**rest), **given)
    with pytest.raises(UserError, match=r"--blur_faces none -> .*yunet.onnx"):
        Store(library, settings=type(SETTINGS)(window_s=4.0, overlap_s=2.0, fps=4.0, blur_faces=detector))
    with pytest.raises(UserError, match=r"colours.onnx does not work as YuNet's face detector"):
        build_index([], settings=type(SETTINGS)(**rest, blur_faces=str(RECOGNISER)), **given)


def test_an_index_with_faces_has_no_stretches(service):
    from starlette.testclient import TestClient

    from twinreel.serve.web.app import create_app
    from twinreel.serve.web.guard import GuardOptions

    client = TestClient(create_app(service, options=GuardOptions()), base_url="http://127.0.0.1")
    answer = client.get("/stretches/1")
    assert answer.status_code == 404 and "ask for /media/1" in answer.json()["detail"]
