"""The command line: verbs, suggestions, speed of start."""

import subprocess
import sys

import pytest

from twinreel import __main__ as cli
from twinreel import __version__


def run(*argv, capsys):
    status = cli.main(list(argv))
    streams = capsys.readouterr()
    return status, streams.out, streams.err


def test_help_lists_every_verb_with_a_line(capsys):
    status, out, _ = run("--help", capsys=capsys)
    assert status == 0
    for verb, (_, line) in cli.VERBS.items():
        assert f"  {verb} " in out and line in out


def test_version(capsys):
    assert run("--version", capsys=capsys)[:2] == (0, f"twinreel {__version__}\n")


@pytest.mark.parametrize(
    ("typed", "meant"), [("pretain", "pretrain"), ("evalute", "evaluate"), ("finetun", "finetune")]
)
def test_an_unknown_verb_suggests_the_nearest(typed, meant, capsys):
    status, _, err = run(typed, capsys=capsys)
    assert status == 2 and f"did you mean '{meant}'" in err


@pytest.mark.parametrize(
    ("verb", "typed", "meant"),
    [
        ("demo", "--sed", "--seed"),
        ("prepare", "--shortside", "--short_side"),
        ("inspect", "--tokenzier", "--tokenizer"),
        ("pretrain", "--workdri", "--workdir"),
        ("evaluate", "--spilt", "--split"),
        ("finetune", "--inti", "--init"),
        ("encode", "--vidoe", "--video"),
        ("inspect", "--verfy", "--verify"),
        ("launch", "--bakend", "--backend"),
        ("plan", "--toplogy", "--topology"),
        ("bench step", "--step", "--steps"),
        ("bench checkpoint", "--conifg", "--config"),
        ("bench loss", "--bacth", "--batch"),
        ("bench prepare", "--cilps", "--clips"),
        ("bench data", "--dta", "--data"),
    ],
)
def test_an_unknown_flag_suggests_the_nearest(verb, typed, meant, capsys):
    status, _, err = run(*verb.split(), typed, "1", capsys=capsys)
    assert status == 2 and f"unknown flag {typed}; did you mean {meant}?" in err and f"twinreel {verb} --help" in err


def test_every_verb_is_tried_above():
    marks = test_an_unknown_flag_suggests_the_nearest.pytestmark
    assert {case[0] for case in marks[0].args[1]} == set(cli.VERBS)


@pytest.mark.parametrize("verb", list(cli.VERBS))
def test_every_verb_explains_itself(verb, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([*verb.split(), "--help"])
    out = capsys.readouterr().out
    assert stop.value.code == 0
    assert f"twinreel {verb}" in out and len(out) > 300


def test_start_loads_neither_jax_nor_tensorflow():
    code = (
        "import sys, twinreel, twinreel.__main__ as m; m.main(['--version']); m.main(['--help']);"
        "print(*sorted({'jax', 'tensorflow', 'flax', 'numpy', 'av'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == ""


def test_public_names_are_found_lazily_and_a_wrong_one_is_named():
    import twinreel

    assert callable(twinreel.load_config)
    assert {"load", "Encoder", "load_config"} <= set(dir(twinreel))
    with pytest.raises(AttributeError, match=r"'lod'.*load"):
        _ = twinreel.lod


@pytest.mark.parametrize("verb", ["pretrain --config demo", "finetune --config demo_classify --init x", "demo"])
def test_a_workdir_behind_a_url_is_refused(verb, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, _, err = run(*verb.split(), "--workdir", "gs://bucket/runs/a", capsys=capsys)
    assert status == 2 and "--workdir must be a folder in the file system, got the URL 'gs://bucket/runs/a'" in err
    assert not any(tmp_path.iterdir())
