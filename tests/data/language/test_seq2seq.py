"""Translation by local folders: tokens are those of CTranslate2 called directly; what a folder may lack."""

import json
import shutil
from pathlib import Path

import pytest
import sentencepiece

from twinreel import __main__ as cli
from twinreel.base.errors import UserError
from twinreel.data.language.seq2seq import Seq2SeqOptions
from twinreel.data.language.translate import TranslateOptions, translate
from twinreel.data.language.translate_command import main
from twinreel.data.manifest import read_manifest

GOLDEN = Path(__file__).parents[2] / "golden" / "translators"
TEXTS = ["a dog runs", "the red ball", "go on", "a small red dog sees the ball"]
FORMS = {  # folder, --from, --to, tokens before a text, and before its translation
    "marian": ("", "deu", [">>deu<<"], []),
    "nllb": ("eng_Latn", "deu_Latn", ["eng_Latn"], ["deu_Latn"]),
    "m2m": ("en", "de", ["__en__"], ["__de__"]),
}


@pytest.fixture
def manifest(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text(json.dumps({"clip_id": "a", "path": "a.mp4", "captions": TEXTS}) + "\n")
    return path


def folder_of(form, tmp_path):
    """M2M-100 is built as NLLB is; its languages have other names."""
    folder = Path(shutil.copytree(GOLDEN / ("nllb" if form == "m2m" else form), tmp_path / form))
    if form == "m2m":
        names = json.loads((folder / "shared_vocabulary.json").read_text())
        changed = {"eng_Latn": "__en__", "deu_Latn": "__de__", "fra_Latn": "__fr__"}
        kept = [changed.get(name, f"x{i}" if name[-5:-4] == "_" else name) for i, name in enumerate(names)]
        (folder / "shared_vocabulary.json").write_text(json.dumps(kept))
    return folder


def run(manifest, folder, *, beams=1, **options):
    by = Seq2SeqOptions(folder=folder, beams=beams, device="cpu", threads=1)
    given = TranslateOptions(**{"parallel": 1, "max_bad_fraction": 1.0, **options})
    return translate(manifest, out=manifest.parent / "t.jsonl", by=by, options=given)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("beams", [1, 3])
def test_translations_are_those_of_the_library_called_directly(manifest, tmp_path, form, beams):
    ctranslate2 = pytest.importorskip("ctranslate2", reason="pip install 'twinreel[translate]'")
    folder, (of, to, first, prefix) = folder_of(form, tmp_path), FORMS[form]
    report = run(manifest, folder, beams=beams, of=of, to=to, batch=3)
    files = ("source.spm", "target.spm") if form == "marian" else ("sentencepiece.bpe.model",) * 2
    source, target = (sentencepiece.SentencePieceProcessor(model_file=str(folder / name)) for name in files)
    model, wanted = ctranslate2.Translator(str(folder), device="cpu", intra_threads=1), []
    for text in TEXTS:
        tokens = [*first, *source.encode(text, out_type=str), "</s>"]
        given = {"target_prefix": [prefix]} if prefix else {}
        how = {"beam_size": beams, "max_decoding_length": 512, "return_end_token": True}
        found = model.translate_batch([tokens], **given, **how)[0].hypotheses[0]
        assert found[: len(prefix)] == prefix
        own = target.decode(found[len(prefix) : -1]).strip() if found[-1] == "</s>" else ""
        wanted.append(own or text)  # one that does not end, or is empty, stays as it is
    [clip] = read_manifest(manifest.parent / "t.jsonl")
    assert list(clip.captions) == wanted and clip.meta["language"] == to
    assert report["failed"] == sum(a == b for a, b in zip(wanted, TEXTS, strict=True)) < len(TEXTS)
    assert report["model"] == folder.name and len(report["sha256"]) == 64


def test_a_second_run_takes_what_was_translated_and_other_beams_do_not(manifest, tmp_path, capsys):
    pytest.importorskip("ctranslate2", reason="pip install 'twinreel[translate]'")
    folder = folder_of("marian", tmp_path)
    done = len(TEXTS) - run(manifest, folder, to="deu")["failed"]
    argv = ["translate", str(manifest), "--out", str(tmp_path / "t.jsonl"), "--to", "deu", "--model", str(folder)]
    argv += ["--device", "cpu", "--max_bad_fraction", "1", "--json"]
    reused = {}
    for beams in ("1", "2"):
        assert cli.main([*argv, "--beams", beams]) == 0
        reused[beams] = json.loads(capsys.readouterr().out)["reused"]
    assert reused == {"1": done, "2": 0} and done > 0


def test_texts_that_are_too_long_stay_and_are_counted(tmp_path):
    pytest.importorskip("ctranslate2", reason="pip install 'twinreel[translate]'")
    path = tmp_path / "m.jsonl"
    path.write_text(json.dumps({"clip_id": "a", "path": "a.mp4", "captions": ["a dog " * 400]}) + "\n")
    assert run(path, folder_of("marian", tmp_path), to="deu")["failed"] == 1
    with pytest.raises(UserError, match=r"1 texts have no translation.*more than 512 tokens is not translated"):
        run(path, folder_of("nllb", tmp_path), of="eng_Latn", to="deu_Latn", max_bad_fraction=0.0)


@pytest.mark.parametrize(
    ("form", "remove", "options", "match"),
    [
        ("marian", "model.bin", {"to": "deu"}, r"lacks model\.bin; `ct2-transformers-converter"),
        ("marian", "target.spm", {"to": "deu"}, r"lacks target\.spm \(Marian\) or sentencepiece"),
        ("marian", "shared_vocabulary.json", {"to": "deu"}, "has no vocabulary"),
        ("nllb", "sentencepiece.bpe.model", {"to": "deu_Latn"}, r"lacks source\.spm, target\.spm \(Marian\) or"),
        ("nllb", "", {"to": "deu_Latin", "of": "eng_Latn"}, "language of this NLLB model .*did you mean 'deu_Latn'"),
        ("nllb", "", {"to": "deu_Latn"}, "NLLB must be told the language of the texts; set --from, as --from eng_Latn"),
        ("m2m", "", {"to": "de", "of": "english"}, r"language of this M2M-100 model \(--from\)"),
        ("marian", "", {"to": "German"}, r"language of this Marian model \(--to\)"),
    ],
)
def test_a_folder_or_a_language_that_does_not_fit_is_named(manifest, tmp_path, form, remove, options, match):
    folder = folder_of(form, tmp_path)
    if remove:
        (folder / remove).unlink()
    with pytest.raises(UserError, match=match):
        run(manifest, folder, **options)


def test_damaged_files_and_flags_that_exclude_each_other(manifest, tmp_path):
    folder = folder_of("marian", tmp_path)
    (folder / "source.spm").write_bytes(b"not one")
    with pytest.raises(UserError, match=r"source\.spm is no SentencePiece model"):
        run(manifest, folder, to="deu")
    with pytest.raises(UserError, match="is no folder"):
        run(manifest, tmp_path / "nowhere", to="deu")
    with pytest.raises(UserError, match="--beams must be at least 1, got 0"):
        Seq2SeqOptions(folder=folder, beams=0)
    with pytest.raises(UserError, match=r"'cud'.*did you mean 'cuda'"):
        Seq2SeqOptions(folder=folder, device="cud")
    argv = ["translate", str(manifest), "--out", str(tmp_path / "t.jsonl"), "--to", "de", "--model", str(folder)]
    with pytest.raises(UserError, match="--model and --endpoint both translate"):
        main([*argv[1:], "--endpoint", "http://127.0.0.1:1/v1"])
