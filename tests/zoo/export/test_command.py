"""The verb `export`: refusals, whole folders, the dry run of a push."""

import json
import sys

import pytest
from exported_models import trained_clip
from public_models import source

from twinreel.base.errors import UserError
from twinreel.zoo.export import public, push
from twinreel.zoo.export.command import main


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return str(trained_clip(tmp_path_factory.mktemp("export") / "bundle"))


@pytest.fixture(autouse=True)
def parameters_only(monkeypatch):
    monkeypatch.setattr(public, "largest_difference", lambda first, second: [])


def test_dry_run_lists_what_would_be_uploaded(bundle, tmp_path, monkeypatch, capsys):
    def refuse(*_, **__):
        raise AssertionError("a dry run uploads nothing")

    monkeypatch.setattr(push, "push", refuse)
    argv = [bundle, "--format", "hf", "--out", str(tmp_path / "out"), "--push", "lab/tiny-clip", "--dry_run"]
    assert main(argv) == 0
    shown = capsys.readouterr().out
    assert "would be uploaded to lab/tiny-clip" in shown
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert files == ["README.md", "config.json", "merges.txt", "model.safetensors", "preprocessor_config.json",
                     "tokenizer.json", "tokenizer_config.json", "vocab.json"]  # fmt: skip
    assert all(name in shown for name in files)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "# tiny-clip" in card and 'from_pretrained("lab/tiny-clip")' in card
    assert main([*argv, "--overwrite", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["would_push_to"] == "lab/tiny-clip" and sorted(values["files"]) == files
    assert values["files"]["model.safetensors"] == (tmp_path / "out" / "model.safetensors").stat().st_size


def test_a_push_without_a_network(bundle, tmp_path, monkeypatch):
    import huggingface_hub

    calls = []

    class Hub:
        def create_repo(self, name, **options):
            calls.append((name, options))
            raise ConnectionError("no route to huggingface.co\nmore")

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    argv = [bundle, "--format", "hf", "--out", str(tmp_path / "out"), "--push", "lab/clip", "--private"]
    with pytest.raises(UserError, match=r"not uploaded \(ConnectionError: no route to huggingface\.co\).*is whole in"):
        main(argv)
    assert calls == [("lab/clip", {"private": True, "exist_ok": True})] and (tmp_path / "out" / "README.md").is_file()


def test_a_push(bundle, tmp_path, monkeypatch, capsys):
    import huggingface_hub

    class Hub:
        def create_repo(self, name, **options):
            pass

        def upload_folder(self, *, repo_id, folder_path, commit_message):
            assert repo_id == "lab/clip" and (folder_path / "model.safetensors").is_file()
            return type("Commit", (), {"commit_url": "https://hub/commit/1"})

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    assert main([bundle, "--format", "hf", "--out", str(tmp_path / "out"), "--push", "lab/clip"]) == 0
    assert "uploaded: https://hub/commit/1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--format", "hff"], r"--format 'hff'.*did you mean 'hf'"),
        (["--format", "hf", "--tokenizer", "mine"], r"--tokenizer.*'mine'"),
        (["--format", "stablehlo", "--platforms", "cpu,gpu"], r"--platforms: 'gpu' is cuda \(NVIDIA\) or rocm"),
        (["--format", "stablehlo", "--platforms", "cuba"], r"--platforms 'cuba'.*did you mean 'cuda'"),
        (["--format", "stablehlo", "--platforms", ","], "--platforms is empty"),
        (["--format", "hf", "--push", "tiny"], r"'tiny' is no name of the Hugging Face Hub; write ORGANISATION/NAME"),
        (["--format", "hf", "--dry_run"], r"belong to --push ORGANISATION/NAME"),
        (["--format", "hf", "--results", "absent.json"], r"absent\.json cannot be read.*twinreel evaluate"),
    ],
)
def test_bad_flags(flags, message, bundle, tmp_path):
    with pytest.raises(UserError, match=message):
        main([bundle, "--out", str(tmp_path / "out"), *flags])
    assert not list(tmp_path.iterdir())


def test_onnx_needs_its_libraries(bundle, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    with pytest.raises(UserError, match=r"needs jax2onnx, which is not installed: pip install"):
        main([bundle, "--format", "onnx", "--out", str(tmp_path / "out")])


def test_a_folder_that_holds_something(bundle, tmp_path, capsys):
    out = tmp_path / "out"
    argv = [bundle, "--format", "hf", "--out", str(out)]
    out.mkdir()
    assert main(argv) == 0  # an empty one is taken
    with pytest.raises(UserError, match="is not empty; give another folder, or --overwrite"):
        main(argv)
    (out / "mine.txt").write_text("notes of the user")
    with pytest.raises(UserError, match=r"holds mine\.txt \(1 such\), which the export there did not write"):
        main([*argv, "--overwrite"])
    (out / "mine.txt").unlink()
    (out / "config.json").unlink()
    assert main([*argv, "--overwrite"]) == 0 and (out / "config.json").is_file()
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("work of years")
    with pytest.raises(UserError, match="holds other files than those of an export"):
        main([bundle, "--format", "hf", "--out", str(precious), "--overwrite"])
    with pytest.raises(UserError, match="is a file; give a folder"):
        main([bundle, "--format", "hf", "--out", str(precious / "thesis.txt")])
    assert (precious / "thesis.txt").read_text() == "work of years"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "precious"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interruption_leaves_the_old_folder_and_no_other(error, bundle, tmp_path, monkeypatch):
    argv = [bundle, "--format", "hf", "--out", str(tmp_path / "out")]
    assert main(argv) == 0
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}

    def stop(*_, **__):
        raise error

    monkeypatch.setattr(public, "write_tokenizer", stop)
    with pytest.raises(error):
        main([*argv, "--overwrite"])
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_model_that_does_not_fit_leaves_nothing(tmp_path):
    folder = source("viclip", tmp_path / "viclip")
    with pytest.raises(UserError, match=r"format 'hf' has no model with config\.model\.video\.family='joint'"):
        main([str(folder), "--format", "hf", "--out", str(tmp_path / "out")])
    with pytest.raises(UserError, match=r"no checkpoint at"):
        main([str(tmp_path / "nothing"), "--format", "hf", "--out", str(tmp_path / "out")])
    assert [path.name for path in tmp_path.iterdir()] == ["viclip"]
