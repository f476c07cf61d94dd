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
    ("typed", "meant"),
    [
        ("bench stp", "bench step"),
        ("bench chekpoint", "bench checkpoint"),
        ("benhc", "bench"),
        ("compare_stp", "bench"),
    ],
)
def test_verbs_of_two_words_are_found_by_either_word(typed, meant, capsys):
    status, _, err = run(*typed.split(), "--json", capsys=capsys)
    assert status == 2 and f"did you mean '{meant}" in err and "Traceback" not in err


@pytest.mark.parametrize("argv", [["bench"], ["bench", "--help"], ["bench", "-h"], ["help", "bench"]])
def test_a_group_of_verbs_lists_them(argv, capsys):
    status, out, _ = run(*argv, capsys=capsys)
    lines = {verb: line for verb, (_, line) in cli.VERBS.items() if verb.startswith("bench ")}
    assert status == 0 and len(lines) == 18
    assert all(f"  {verb} " in out and line in out for verb, line in lines.items()) and "  pretrain " not in out


def test_a_flag_in_the_place_of_a_verb(capsys):
    status, _, err = run("bench", "--steps", "3", capsys=capsys)
    assert status == 2 and "`twinreel bench` needs a verb before --steps" in err


def test_an_interruption_promises_to_resume_only_where_that_is_so(monkeypatch, capsys):
    def interrupted(name, package):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.importlib, "import_module", interrupted)
    assert run("prepare", capsys=capsys) == (130, "", "interrupted; run the same command again to resume\n")
    assert run("bench", "step", capsys=capsys) == (130, "", "interrupted\n")


@pytest.mark.parametrize(
    ("verb", "typed", "meant"),
    [
        ("demo", "--sed", "--seed"),
        ("prepare", "--shortside", "--short_side"),
        ("inspect", "--tokenzier", "--tokenizer"),
        ("transcribe", "--recoginser", "--recogniser"),
        ("translate", "--filds", "--fields"),
        ("describe", "--qestion", "--question"),
        ("pretrain", "--workdri", "--workdir"),
        ("evaluate", "--spilt", "--split"),
        ("caption", "--bems", "--beams"),
        ("report", "--thumbnail", "--thumbnails"),
        ("probe", "--mehtod", "--method"),
        ("finetune", "--inti", "--init"),
        ("sweep", "--pace", "--space"),
        ("predict", "--topk", "--top_k"),
        ("select", "--budgte", "--budget"),
        ("summarise", "--shrae", "--share"),
        ("explain", "--methdo", "--method"),
        ("convert", "--famliy", "--family"),
        ("merge", "--uot", "--out"),
        ("interpolate", "--canari", "--canary"),
        ("features", "--modle", "--model"),
        ("export", "--fromat", "--format"),
        ("encode", "--vidoe", "--video"),
        ("inspect", "--verfy", "--verify"),
        ("index", "--thumbnials", "--no_thumbnails"),
        ("search", "--liek", "--like"),
        ("serve", "--prot", "--port"),
        ("monitor", "--agianst", "--against"),
        ("watch", "--alret", "--alert"),
        ("forget", "--fases", "--faces"),
        ("launch", "--bakend", "--backend"),
        ("plan", "--toplogy", "--topology"),
        ("generate train", "--wrokdir", "--workdir"),
        ("generate sample", "--txet", "--text"),
        ("generate edit", "--strenght", "--strength"),
        ("generate score", "--jugde", "--judge"),
        ("bench step", "--step", "--steps"),
        ("bench checkpoint", "--conifg", "--config"),
        ("bench compile", "--deptsh", "--depths"),
        ("bench loss", "--bacth", "--batch"),
        ("bench retrieval", "--qeuries", "--queries"),
        ("bench index", "--rwos", "--rows"),
        ("bench search", "--qeuries", "--queries"),
        ("bench serve", "--cleints", "--clients"),
        ("bench remote", "--besied", "--beside"),
        ("bench finetune", "--batchse", "--batches"),
        ("bench gpu_check", "--secnods", "--seconds"),
        ("bench prepare", "--cilps", "--clips"),
        ("bench data", "--dta", "--data"),
        ("bench frames", "--clisp", "--clips"),
        ("bench compare_step", "--modle", "--model"),
        ("bench compare_towers", "--case", "--cases"),
        ("bench compare_generate", "--case", "--cases"),
        ("bench compare_input", "--wokers", "--workers"),
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


@pytest.mark.parametrize(
    ("verb", "wanted"),
    [
        ("pretrain --config demo", "a folder, or an s3:// or gs:// URL, got"),
        ("finetune --config demo_classify --init x", "a folder, or an s3:// or gs:// URL, got"),
        ("demo", "a folder in the file system, got the URL"),
    ],
)
def test_a_workdir_behind_a_url_without_conditional_writes_is_refused(verb, wanted, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, _, err = run(*verb.split(), "--workdir", "https://example.org/runs/a", capsys=capsys)
    assert status == 2 and f"--workdir must be {wanted} 'https://example.org/runs/a'" in err
    assert not any(tmp_path.iterdir())
