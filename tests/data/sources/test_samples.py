"""Which files belong together by their names, in folders and in archives."""

import hypothesis
import pytest
from hypothesis import strategies as st

from twinreel.data.sources.notes import Notes
from twinreel.data.sources.samples import group


def grouped(*names, one_film=True):
    notes = Notes()
    samples = group(names, notes=notes, one_film=one_film)
    return {sample.media or sample.key: sample for sample in samples}, notes.lines()


def texts(samples):
    return {name: list(sample.texts.values()) for name, sample in samples.items()}


@pytest.mark.parametrize("one_film", [True, False])
def test_dots_in_names_of_films(one_film):
    names = [
        "Song 2.0 (Clean).mp4",
        "Song 2.0 (Clean).txt",
        "Song 2.1 (Live).mp4",
        "Song 2.1 (Live).txt",
        "a.mp4",
        "a.txt",
    ]
    samples, notes = grouped(*names, one_film=one_film)
    assert texts(samples) == {film: [text] for film, text in zip(names[::2], names[1::2], strict=True)}
    assert [sample.key for sample in samples.values()] == ["Song 2.0 (Clean)", "Song 2.1 (Live)", "a"]
    assert notes == []


@pytest.mark.parametrize("one_film", [True, False])
def test_further_names_between_key_and_suffix(one_film):
    names = [
        "d.x/k.mp4",
        "d.x/k.txt",
        "d.x/k.en.vtt",
        "d.x/k.info.json",
        "d.x/k.rgb.npy",
        "d.x/k.mp4.cls",
        "d.x/k.JSON",
    ]
    samples, notes = grouped(*names, one_film=one_film)
    [sample] = samples.values()
    assert (sample.key, sample.features) == ("d.x/k", {"rgb": "d.x/k.rgb.npy"})
    found = {".txt": "d.x/k.txt", ".cls": "d.x/k.mp4.cls", ".json": "d.x/k.JSON", ".vtt": "d.x/k.en.vtt"}
    assert sample.texts == found
    assert [line.rpartition(": ")[2] for line in notes] == ["1 ('d.x/k.info.json')"]


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        (["k.de.srt", "k.en.vtt"], {".vtt": "k.en.vtt"}),
        (["k.de.srt", "k.vtt"], {".vtt": "k.vtt"}),
        (["k.es.srt", "k.de.srt"], {".srt": "k.de.srt"}),
        (["k.info.srt", "other.srt", "k.en.ass"], {}),
    ],
)
def test_one_subtitle_file_is_taken_for_a_film_and_the_others_are_counted(names, taken):
    samples, notes = grouped("k.mp4", *names, one_film=False)
    assert samples["k.mp4"].texts == taken and samples["k.mp4"].media == "k.mp4" and len(samples) == 1
    assert len(notes) == 1 and f"one for each KEY): {len(names) - len(taken)} (" in notes[0]


@pytest.mark.parametrize("one_film", [True, False])
@pytest.mark.parametrize(
    "preview",
    [
        "a.jpg",
        "a.webp",
        "a.gif",
        "a_thumb.jpg",
        "a-thumbnail.png",
        "a.thumb.jpg",
        "a-poster.jpg",
        "poster.jpg",
        "a.mp4.jpg",
    ],
)
def test_pictures_beside_a_film_are_previews(preview, one_film):
    samples, notes = grouped(preview, "a.mp4", "a.txt", one_film=one_film)
    assert texts(samples) == {"a.mp4": ["a.txt"]}
    assert len(notes) == 1 and notes[0].startswith("pictures beside a video left out") and repr(preview) in notes[0]


@pytest.mark.parametrize("picture", ["b.jpg", "a_side.jpg", "x/poster.jpg", "a_thumb.jpg"])
def test_pictures_that_are_clips(picture):
    own = ["a_thumb.txt"] if picture == "a_thumb.jpg" else []
    samples, notes = grouped("a.mp4", "a.txt", picture, *own, one_film=False)
    assert list(samples) == ["a.mp4", picture] and notes == []


def test_several_films_of_one_key():
    names = ("a.mp4", "a.webm", "a.left.mp4", "a.txt")
    samples, notes = grouped(*names)
    assert texts(samples) == {"a.mp4": ["a.txt"]} and notes == [
        "further media of one sample left out: 2 ('a.webm', 'a.left.mp4')"
    ]
    samples, notes = grouped(*names, one_film=False)
    assert texts(samples) == {"a.mp4": ["a.txt"], "a.webm": ["a.txt"], "a.left.mp4": []} and notes == []


@pytest.mark.parametrize("one_film", [True, False])
def test_texts_of_a_shorter_key(one_film):
    samples, notes = grouped("k.1080p.mp4", "k.txt", one_film=one_film)
    assert texts(samples) == {"k.1080p.mp4": ["k.txt"]} and notes == []
    samples, _ = grouped("k.left.mp4", "k.right.mp4", "k.txt", one_film=one_film)
    assert {sample.refused for sample in samples.values()} == {
        "2 films share the key 'k': give each film texts of its own name"
    }


def test_features_without_a_film():
    samples, notes = grouped(
        "n0.npy", "n0.cap", "n0.json", "b.rgb.npy", "b.audio.npy", "b.txt", "1.5.npy", "k.txt", "k.clip-vit.npy"
    )
    assert {name: sample.features for name, sample in samples.items()} == {
        "n0": {"rgb": "n0.npy"},
        "b": {"rgb": "b.rgb.npy", "audio": "b.audio.npy"},
        "1.5": {"rgb": "1.5.npy"},
        "k": {},
    }
    assert len(notes) == 1 and "KEY.NAME.npy" in notes[0] and "'k.clip-vit.npy'" in notes[0]


def test_letters_in_both_unicode_forms_are_the_same():
    samples, notes = grouped("cafe\u0301.mp4", "caf\u00e9.txt", "caf\u00e9.rgb.npy")
    [sample] = samples.values()
    assert (sample.key, sample.texts, list(sample.features)) == ("cafe\u0301", {".txt": "caf\u00e9.txt"}, ["rgb"])
    assert notes == []


def test_what_is_of_no_use_is_named():
    names = ["README", "a.xyz", "._a.mp4", "Thumbs.db", "a.m4a", "a.mp4.part", "b.parquet", "a.pt", "a.zip", "p.heic"]
    samples, notes = grouped(*names)
    assert samples == {}
    counted = {line.partition(" left out")[0]: int(line.rpartition(": ")[2].split()[0]) for line in notes}
    assert counted.pop("hidden files") == 2 and set(counted.values()) == {1}
    assert sorted(counted) == [
        *("archives", "arrays of a kind that is not read", "files of the unknown kind .xyz", "files without a suffix"),
        *("lists", "pictures of a kind that is not read", "sound in files of its own", "unfinished downloads"),
    ]


NAMES = st.lists(
    st.builds(
        "{}{}{}".format,
        st.sampled_from(["", "d/", "d.x/"]),
        st.text("ab. é", max_size=5),
        st.sampled_from(
            ["", ".mp4", ".webm", ".gif", ".jpg", ".txt", ".json", ".npy", ".rgb.npy", "_thumb.jpg", ".vtt"]
        ),
    ),
    unique=True,
    max_size=12,
)


@hypothesis.given(names=NAMES, one_film=st.booleans())
def test_each_file_is_used_or_counted(names, one_film):
    names = [name for name in names if name and not name.endswith("/")]
    notes = Notes()
    samples = group(names, notes=notes, one_film=one_film)
    used = {name for sample in samples for name in (sample.media, *sample.texts.values(), *sample.features.values())}
    assert len(used - {""}) + sum(notes.counts().values()) == len(names)
    assert len({(sample.key, sample.media) for sample in samples}) == len(samples)
