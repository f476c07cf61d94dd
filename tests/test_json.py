"""`--json` means the same in every verb that has it: one JSON object on standard output, and nothing else there."""

import json
import re

import pytest

from twinreel import __main__ as cli
from twinreel.data.manifest import Clip, write_manifest

LINE = "print one JSON object on standard output, nothing else"


WITHOUT = {"demo", "pretrain", "finetune", "generate train", "predict", "serve", "watch"}
"""Verbs that report by their files, the web page, and the one that prints a line of JSON for each event."""


@pytest.mark.parametrize("verb", [verb for verb in cli.VERBS if verb not in WITHOUT])
def test_the_flag_is_explained_in_the_same_words(verb, capsys):
    with pytest.raises(SystemExit):
        cli.main([*verb.split(), "--help"])
    flags = re.sub(r"\s+", " ", capsys.readouterr().out.split("\noptions:")[1])
    assert f" --json {LINE}" in flags


def test_prepare_and_inspect_print_json_alone(tmp_path, media, capsys):
    clips = [Clip(clip_id=str(i), path=f"{i}.mp4", captions=(f"clip {i}",), split="train") for i in range(2)]
    for clip in clips:
        media.write(tmp_path / clip.path, media.grey(*range(20, 180, 20), size=(48, 64)))
    write_manifest(tmp_path / "clips.jsonl", clips=clips)
    out = tmp_path / "out"
    assert cli.main(["prepare", str(tmp_path / "clips.jsonl"), "--out", str(out), "--workers", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((out / "prepare.json").read_text())
    page = ["--out", str(tmp_path / "page"), "--vocab_size", "300"]
    assert cli.main(["inspect", str(out), *page, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "page" / "inspect.json").read_text())
