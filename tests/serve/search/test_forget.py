"""Deletion by example: what is found; nothing of it is left in any file of the index, and it does not come back."""

import contextlib
import dataclasses
import json
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from brightness_model import brightness_model
from face_films import BACKGROUNDS, DETECTOR, RECOGNISER, film
from index_state import ask, state
from serve_films import QUICK, SETTINGS

from twinreel.base.errors import UserError
from twinreel.data.media.faces import FaceFeatures
from twinreel.evaluate.measures.neighbours import has_faiss
from twinreel.serve.index import forgetting
from twinreel.serve.index.build import build_index
from twinreel.serve.search import forget, forget_command
from twinreel.serve.search.collection import Collection


@pytest.fixture
def deleted(copied, library, tmp_path, monkeypatch):
    """A copy of the index with a second model; `main` loads the model in NumPy."""
    folder = tmp_path / "index"
    shutil.copytree(library, folder)
    second = brightness_model(name="second", gap=0.5)
    options = dataclasses.replace(QUICK, ann="hnsw" if has_faiss() else "flat")
    build_index([str(copied)], folder=folder, opened=second, settings=SETTINGS, options=options)
    monkeypatch.setattr("twinreel.serve.search.opened.open_model", lambda *a, **b: brightness_model())
    return folder


def run(*argv, capsys):
    assert forget_command.main([*map(str, argv), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def everything(folder):
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_nothing_is_left_and_nothing_comes_back(deleted, films, copied, update, monkeypatch, capsys):
    folder, gone = deleted, [str(root / "picture.png") for root in (films, copied)]
    vectors = {name: [v["video"] for k, v in state(folder, model=name).items() if k[0] in gone] for name in _NAMES}
    rows = ask(folder, "SELECT webp FROM thumbnails JOIN moments m ON m.id = moment JOIN files f ON f.id = m.file "
                       "WHERE path LIKE '%picture%'")  # fmt: skip
    secrets = [
        *(one.tobytes() for found in vectors.values() for one in found),
        *(row[0] for row in rows),
        b"picture.png",
    ]
    assert bool(list(folder.rglob("*.faiss"))) == has_faiss()
    with contextlib.closing(sqlite3.connect(folder / "index.sqlite")) as connection, connection:
        connection.execute("PRAGMA secure_delete = OFF")  # as most builds of SQLite have it
        connection.execute("CREATE TABLE moved AS SELECT path FROM files")
        connection.execute("DROP TABLE moved")
    before, plan = everything(folder), run(folder, films / "picture.png", "--above", "0.9999", capsys=capsys)
    assert len(secrets) >= 5 and all(secret in before for secret in secrets)
    assert {one["path"] for one in plan["files"]} == set(gone) and not plan["deleted"]
    assert everything(folder) == before  # a dry run
    made = run(folder, films / "picture.png", "--above", "0.9999", "--yes", capsys=capsys)
    assert made["deleted"] and made["files"] == plan["files"]
    files = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert not [(name, i) for name, data in files.items() for i, secret in enumerate(secrets) if secret in data]
    assert not list(folder.rglob("*.faiss"))
    left = {key[0] for name in _NAMES for key in state(folder, model=name)}
    assert len(left) == 14 and not left & set(gone)
    shutil.copy(copied / "picture.png", copied / "another_name.png")
    found = update(films, copied, folder=folder)
    assert (found["forgotten"], found["added"]) == (3, 8 - 1)  # the first model had not seen the copies
    log = run(folder, "--log", capsys=capsys)["forgotten"]
    assert len(log) == 2 and {one["moments"] for one in log} == {1} and {one["way"] for one in log} == {"embedding"}
    assert "path" not in log[0] and len(log[0]["sha256"]) == 64
    forget_command.main([str(folder), "--readmit", log[0]["sha256"]])
    assert update(films, copied, folder=folder)["added"] == 3


_NAMES = ("brightness", "second")


@pytest.mark.parametrize(("kill", "by"), [((forgetting.Store, "compact"), "index"), ((Path, "unlink"), "forget")])
def test_a_killed_deletion_is_completed(deleted, films, update, monkeypatch, capsys, kill, by):
    """Before the vectors are written anew, and before their old file is deleted."""
    argv = [str(deleted), str(films / "short" / "grey30.mp4"), "--above", "0.9999", "--yes"]
    vector = next(v["video"] for k, v in state(deleted).items() if "grey30" in k[0]).tobytes()
    with monkeypatch.context() as patch:
        patch.setattr(*kill, lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            forget_command.main(argv)
    assert ask(deleted, "SELECT erased FROM forgotten") == [(0,), (0,)]
    update(films, folder=deleted) if by == "index" else forget_command.main(argv)
    assert ask(deleted, "SELECT erased FROM forgotten") == [(1,), (1,)]
    assert vector not in everything(deleted)
    capsys.readouterr()
    forget_command.main([str(deleted), "--log"])
    assert capsys.readouterr().out.count("1 moments, embedding 1.000") == 2


def test_windows_of_a_deleted_file():
    def entry(start, end):
        return forgetting.Entry(key="", root="", path="", start_s=start, end_s=end)

    rest = {"sha256": "a", "size": 1, "at": "", "way": "face", "score": 1.0, "moments": 1}
    window = forgetting.Forgotten(start_s=5.0, end_s=9.0, **rest)
    overlaps = [((None, None), True), ((0.0, 5.0), False), ((8.0, None), True), ((9.0, 12.0), False)]
    assert [window.covers(entry(*times)) for times, _ in overlaps] == [wanted for _, wanted in overlaps]
    assert forgetting.Forgotten(start_s=None, end_s=None, **rest).covers(entry(100.0, 101.0))


def test_faces_find_the_person_in_another_scene(tmp_path, capsys):
    folder, index = tmp_path / "films", tmp_path / "index"
    for name, colour in BACKGROUNDS.items():
        film(folder / f"{name}.mp4", colour)
    film(folder / "red_again.mp4", (190, 60, 20), seconds=3, faces=lambda number: number >= 8)
    film(folder / "nobody.mp4", BACKGROUNDS["red"], faces=lambda number: False)
    build_index([str(folder)], folder=index, opened=brightness_model(), settings=SETTINGS, options=QUICK)
    example = film(tmp_path / "example.mp4", BACKGROUNDS["red"])
    given = ["--faces", DETECTOR, RECOGNISER]
    (folder / "green.mp4").unlink()
    found = run(index, example, *given, capsys=capsys)
    assert [one["path"].rpartition("/")[2] for one in found["files"]] == ["red.mp4", "red_again.mp4"]
    assert found["above"] == 0.363 and found["not_read"] == [f"{folder / 'green.mp4'}: file does not exist"]
    found = run(index, example, *given, "--keep", folder / "red_again.mp4", "--yes", capsys=capsys)
    assert [one["path"] for one in found["files"]] == [str(folder / "red.mp4")] and found["deleted"]
    assert ask(index, "SELECT way FROM forgotten") == [("face",)] and ask(index, "SELECT COUNT(*) FROM files") == [(4,)]
    with pytest.raises(UserError, match=r"no face was found in .*nobody.mp4"):
        forget_command.main([str(index), str(folder / "nobody.mp4"), *map(str, given)])
    with pytest.raises(UserError, match=r"example.txt cannot be looked for"):
        forget_command.main([str(index), str(tmp_path / "example.txt"), *map(str, given)])


def test_scores_are_cosines_of_the_nearest_moments(library, films):
    with Collection(library) as collection:
        found = forget.alike_by_embedding(
            collection, examples=[str(films / "short" / "grey150.mp4")], opened=brightness_model(), above=0.5
        )
        moments = state(library)
        query = next(v["video"] for k, v in moments.items() if "grey150" in k[0]).astype(np.float64)
        wanted = {}
        for (path, *_), sides in moments.items():
            wanted[path] = max(wanted.get(path, -1), float(sides["video"] @ query))
        wanted = {path: score for path, score in wanted.items() if score >= 0.5}
        assert {one.path: pytest.approx(one.score, abs=1e-5) for one in found} == wanted
        assert [one.score for one in found] == sorted(wanted.values(), reverse=True) or len(found) > 1
        assert sum(one.moments for one in found if "ramp" in one.path) == 23


def test_mistakes(library, films, tmp_path, monkeypatch):
    monkeypatch.setattr("twinreel.serve.search.opened.open_model", lambda *a, **b: brightness_model())
    example = str(films / "short" / "grey150.mp4")
    for argv, message in (
        ([], "nothing to look for; give EXAMPLE"),
        ([example, "--above", "2"], "--above is 2; wanted a cosine"),
        ([example, "--keep", "other.mp4"], "--keep .*other.mp4: this file is not among those"),
        ([str(tmp_path / "absent.mp4")], "absent.mp4 cannot be looked for: file does not exist"),
        ([example, "--faces", "absent.onnx", str(RECOGNISER)], "there is no face detector at 'absent.onnx'"),
    ):
        with pytest.raises(UserError, match=message):
            forget_command.main([str(library), *argv])
    assert FaceFeatures(DETECTOR, recogniser=RECOGNISER) is not None
    copy = tmp_path / "index"
    shutil.copytree(library, copy)
    with pytest.raises(UserError, match="no such SHA-256 in the log"):
        forget_command.main([str(copy), "--readmit", "abc"])
