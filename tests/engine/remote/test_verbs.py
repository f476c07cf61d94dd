"""The verbs with URLs: a run in a bucket is trained, read, evaluated, fine-tuned and begun from."""

import json
import shutil

import fsspec
import numpy as np
import pytest

from twinreel.__main__ import main


@pytest.mark.slow
def test_verbs_take_urls(bucket, tiny_overrides, tiny_data, tmp_path, capsys):
    import twinreel
    from twinreel.zoo.load import locate

    url, flags = f"{bucket}/runs/a", [f"--config.{override}" for override in tiny_overrides]
    pretrain = ["pretrain", "--config", "demo", "--config.evaluations={}", "--config.train.best_metric=", *flags]
    assert main([*pretrain, "--workdir", url]) == 0
    assert f"checkpoint in {url}/checkpoints" in capsys.readouterr().err
    names = {name.rpartition("/")[2] for name in fsspec.filesystem("s3").ls(url)}
    assert {"config.json", "identity.json", "tokenizer.meta.json", "metrics.jsonl", "run.json"} <= names
    shutil.rmtree(tmp_path / "stages")
    assert main([*pretrain, "--workdir", url, "--config.train.steps=7"]) == 0  # on another machine

    encoder = twinreel.load(url)
    texts = np.asarray(encoder.encode_text(["a red square"])[0])
    bundle = encoder.save(tmp_path / "bundle")
    fsspec.filesystem("s3").put(str(bundle), f"{bucket}/bundle", recursive=True)
    again = np.asarray(twinreel.load(f"{bucket}/bundle").encode_text(["a red square"])[0])
    np.testing.assert_allclose(again, texts, atol=1e-6)

    report = tmp_path / "report"
    assert main(["evaluate", f"{url}/checkpoints/7", "--data", str(tiny_data), "--out", str(report)]) == 0
    assert json.loads((report / "retrieval.json").read_text())["protocol"]["step"] == 7
    second = [*pretrain, "--workdir", f"{bucket}/runs/b", "--init", url, "--config.train.steps=2"]
    assert main(second) == 0
    assert locate(f"{bucket}/runs/b").meta["init"]["checkpoint"].startswith("s3:")
