"""Template sets: those that ship, and a user's own file."""

import hashlib
import json

import pytest

from twinreel.base.errors import UserError
from twinreel.evaluate.protocols.templates import load_templates, shipped

# SHA-256 of the lines of each set, each with its line break, as its project publishes them
DIGESTS = {
    "clip_kinetics": "820c23cc30bda2e5c3e9f8a477edd75d2a9e0f01e7c6240afa6f0644ef5e93ca",
    "clip_ucf101": "d1fceafd76c54a5f54628fbdaa23bacedaf21a2adbb6eb4589aa51f8fe2d5a13",
    "actionclip": "3c15b373c88d8d5cb41f58faca1b072e49f566b0882d6eceda6a902577d26afb",
    "name_only": "ca3d163bab055381827226140568f3bef7eaac187cebd76878e0b63e9e442356",
    "plain": "af98a40a0922320eb887ac611322406db726133a242c0dcee930dc7adc9f95ab",
}


def digest(templates):
    return {hashlib.sha256("\n".join(templates).encode() + end).hexdigest() for end in (b"", b"\n")}


@pytest.mark.parametrize("name", DIGESTS)
def test_shipped_sets_are_those_published(name):
    found = shipped()[name]
    assert DIGESTS[name] in digest(found.templates)
    assert found.source
    assert load_templates(name) == found
    assert all("archery" in text and "{" not in text for text in found.fill("archery"))


def test_every_set_has_its_digest():
    assert shipped().keys() == DIGESTS.keys()


def test_a_file_of_lines_or_json(tmp_path):
    lines, listed, named = (tmp_path / name for name in ("t.txt", "t.json", "n.json"))
    lines.write_text("﻿a video of {}.\r\n\r\n  {}!  \n", encoding="utf-8")
    listed.write_text(json.dumps(["a video of {}.", "{}!"]))
    named.write_text(json.dumps({"templates": ["a video of {}.", "{}!"]}))
    for path in (lines, listed, named):
        found = load_templates(str(path))
        assert found.templates == ("a video of {}.", "{}!") and found.name == str(path)
    assert found.fill("a {} b") == ["a video of a {} b.", "a {} b!"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.txt", "a video of {}.\n\nno place\n", r"line 3 of .*t.txt, 'no place', has no \{\}"),
        ("t.txt", "{} and {}\n", r"line 1 of .*, has 2 \{\}; wanted one"),
        ("t.txt", "{class}\n", r"line 1 of .* has no \{\}"),
        ("t.txt", "{}.\na {}\n{}.\n", "line 3 of .* repeats line 1"),
        ("t.txt", "\n  \n", "has no template"),
        ("t.json", "[]", "has no template"),
        ("t.json", '["{}", "x"]', r"entry 2 of .*, 'x', has no \{\}"),
        ("t.json", '{"prompts": []}', "must hold a list of texts"),
        ("t.json", "[1]", "must hold a list of texts"),
        ("t.json", "{", "no valid JSON"),
    ],
)
def test_a_faulty_file_is_refused(name, content, message, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        load_templates(str(tmp_path / name))


def test_neither_a_set_nor_a_file(tmp_path):
    with pytest.raises(UserError, match="did you mean 'actionclip'"):
        load_templates("action_clip")
    with pytest.raises(UserError, match=r"file '.*none.txt' does not exist; shipped sets: actionclip"):
        load_templates(str(tmp_path / "none.txt"))
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9 {}\n")
    with pytest.raises(UserError, match="cannot be read as UTF-8"):
        load_templates(str(tmp_path / "latin.txt"))
