"""Models between two: their weights by hand, their figures against those of the written bundle, and what is refused."""

import json
import shutil

import numpy as np
import pytest
from small_encoder import drawn_encoder

from twinreel.base.errors import UserError
from twinreel.data.batches.records import Records
from twinreel.encode.embed.encoder import load
from twinreel.evaluate.embedding.embed import embed_split
from twinreel.evaluate.embedding.loaded import LoadedSplit
from twinreel.evaluate.interpolate import InterpolateOptions, main, measure_line
from twinreel.evaluate.protocols.retrieval import retrieval_report
from twinreel.zoo.bundle import read_params, write_bundle
from twinreel.zoo.interpolate import line_between
from twinreel.zoo.load import locate


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two bundles: a model, and another whose parameters were moved by steps as large as themselves."""
    folder = tmp_path_factory.mktemp("line")
    encoder = drawn_encoder()
    base = encoder.save(folder / "base")
    rng = np.random.default_rng(0)
    moved = {
        path: value + rng.normal(size=value.shape).astype(value.dtype) for path, value in read_params(base).items()
    }
    return base, write_bundle(folder / "tuned", spec=encoder.spec, params=moved)


@pytest.fixture(scope="module")
def old(tiny_data, tmp_path_factory):
    """The same clips under another name."""
    return shutil.copytree(tiny_data, tmp_path_factory.mktemp("canary") / "old")


def test_curve_bundle_and_page(models, tiny_data, old, tmp_path, capsys):
    base, tuned = map(str, models)
    out, bundle = tmp_path / "curve", tmp_path / "half"
    given = ["--data", str(tiny_data), "--canary", str(old), "--alphas", "0.5", "--out", str(out), "--json"]
    assert main([base, tuned, *given, "--alpha", "0.5", "--bundle", str(bundle)]) == 0
    results = json.loads(capsys.readouterr().out)
    assert results == json.loads((out / "interpolation.json").read_text())
    assert [point["alpha"] for point in results["points"]] == [0.0, 0.5, 1.0]
    assert {name: one["role"] for name, one in results["sets"].items()} == {"data": "new", "old": "canary"}

    params = read_params(bundle)
    for path, value in read_params(models[0]).items():
        other = read_params(models[1])[path]
        half = 0.5 * value.astype(np.float64) + 0.5 * other.astype(np.float64)
        np.testing.assert_array_equal(params[path], half.astype(np.float32))
    for point, model in zip(results["points"], (base, bundle, tuned), strict=True):
        assert point["sets"]["data"] == point["sets"]["old"]
        found = embed_split(load(model), loaded=LoadedSplit(Records(tiny_data), split="val"), progress=False)
        arrays = {"text": found.text, "video": found.video, "video_of_text": found.video_of_text}
        report = retrieval_report(**arrays, intervals=False)
        for direction in ("text_to_video", "video_to_text"):
            for key in ("R@1", "R@5", "MdR"):
                assert point["sets"]["data"][direction][key] == pytest.approx(report[direction][key])
    means = [np.mean([one["text_to_video"]["R@1"] for one in point["sets"].values()]) for point in results["points"]]
    assert results["chosen"] == [0.0, 0.5, 1.0][int(np.argmax(means))]
    page = (out / "index.html").read_text()
    assert f"alpha = 0) and {tuned} (alpha = 1)" in page and page.count("<svg") == 2
    assert load(bundle).spec.origin["interpolated"] == 0.5


def test_without_a_canary_one_set_is_measured_and_printed(models, tiny_data, tmp_path, capsys):
    base, tuned = map(str, models)
    assert main([base, tuned, "--data", str(tiny_data), "--alphas", "1", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "data text" in printed.replace("\n", " ") and f"report: {tmp_path / 'index.html'}" in printed


def test_faults_are_named(models, tiny_data, tmp_path):
    base, tuned = map(str, models)
    for argv, words in (
        ([], "nothing to do"),
        (["--alpha", "0.5"], "go together"),
        (["--data", str(tiny_data)], "nothing to do"),
        (["--data", str(tiny_data), "--out", str(tmp_path), "--alphas", "0,x"], "no list of numbers"),
        (["--data", str(tiny_data), "--out", str(tmp_path), "--alphas", "0,2"], "2, which is not between"),
    ):
        with pytest.raises(UserError, match=words):
            main([base, tuned, *argv])
    line = line_between(locate(base), tuned=locate(tuned))
    with pytest.raises(UserError, match="one name"):
        measure_line(line, data=tiny_data, canaries=[tiny_data])
    with pytest.raises(UserError, match="split 'vla'"):
        measure_line(line, data=tiny_data, options=InterpolateOptions(split="vla"))
    other = drawn_encoder(embed_dim=4).save(tmp_path / "other")
    with pytest.raises(UserError, match="differ in their embed_dim: 6 and 4"):
        line_between(locate(base), tuned=locate(other))
