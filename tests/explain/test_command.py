"""`twinreel explain` from a bundle and a film to the page, the film with its sound, and the JSON."""

import json

import av
import numpy as np
import pytest
from html_page import Page
from known_relevance import COLUMN, ROW, STEP, known_encoder, known_frames, known_sound
from media_files import write_media

from twinreel import __main__ as cli


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """A film of 1 s whose patch is red in the third quarter, with sound."""
    frames = [one for one in known_frames(size=(32, 32)) for _ in range(2)]
    return write_media(tmp_path_factory.mktemp("film") / "a.mp4", frames, sound=known_sound())


@pytest.fixture
def loaded(monkeypatch):
    """A model that the verb finds at any name."""
    model = known_encoder()
    monkeypatch.setattr("twinreel.encode.predict.load.load", lambda name: model)


def test_a_page_a_film_and_json(loaded, film, tmp_path, capsys):
    flags = ["--grid", "4", "--draws", "3", "--sound", "--out", str(tmp_path / "out")]
    assert cli.main(["explain", "runs/a", "--video", str(film), "--text", "a red square", *flags]) == 0
    printed = capsys.readouterr().out
    assert "a red square: cosine with the text" in printed and "index.html" in printed and "deletion" in printed
    made = json.loads((tmp_path / "out" / "explain.json").read_text())
    relevance = np.array(made["patches"]["relevance"])
    assert np.unravel_index(relevance.argmax(), relevance.shape) == (STEP, ROW, COLUMN)
    assert (
        set(made["checks"]) == {"frames", "patches", "sound", "words"} and made["protocol"]["baseline"] == "mean_colour"
    )
    with av.open(str(tmp_path / "out" / "explain.mp4")) as container:
        assert len(container.streams.audio) == 1
        shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(shown) == 8 and shown[0].shape == (280, 484, 3)  # two pictures of 240 pixels beside each other
    place = slice(60 * ROW + 20, 60 * ROW + 40), slice(244 + 60 * COLUMN + 20, 244 + 60 * COLUMN + 40)
    early, late = (shown[2 * step][place].astype(int) for step in (STEP - 1, STEP))
    assert late[..., 0].mean() - late[..., 2].mean() > 80 and abs(early[..., 0] - early[..., 2]).mean() < 30
    page = Page((tmp_path / "out" / "index.html").read_text())
    assert "a red square" in page.text and "Does it hold?" in page.text and page.tags.count("svg") == 4
    assert [link for link in page.links if not link.startswith("data:")] == ["explain.mp4"]


def test_json_alone(loaded, film, capsys):
    flags = ["--grid", "2", "--draws", "2", "--method", "integrated_gradients", "--json"]
    assert cli.main(["explain", "runs/a", "--video", str(film), "--text", "a red square", *flags]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["checks"]["patches"]["completeness"]["gap"] < 0.01 and "sound" not in made


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "is a dual tower: give the text"),
        (["--text", "a", "--method", "occluson"], "did you mean 'occlusion'"),
        (["--text", "a", "--batch_size", "0"], "--batch_size must be at least 1, got 0"),
        (["--text", "a", "--out", "s3://b/out"], "--out must be a folder in the file system"),
    ],
)
def test_mistakes_are_told_before_anything_is_computed(loaded, film, flags, message, capsys):
    assert cli.main(["explain", "runs/a", "--video", str(film), *flags]) == 2
    assert message in capsys.readouterr().err


def test_a_film_without_sound_has_no_relevance_of_sound(loaded, tmp_path, capsys):
    silent = write_media(tmp_path / "b.mp4", list(known_frames(size=(32, 32))))
    assert cli.main(["explain", "runs/a", "--video", str(silent), "--text", "a red square", "--sound"]) == 2
    assert "has no sound" in capsys.readouterr().err
