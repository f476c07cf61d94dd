"""Run a twinreel bundle on MTEB's mock tasks, offline; write the scores, and the embeddings of one task's clips.

`python run_mteb.py BUNDLE OUT`, in a Python with twinreel and mteb. OUT receives `scores.json`, `clips/0.mp4` ... and
`embeddings.npz`: what the adapter and what `Encoder` give for the same files and strings.
"""

import json
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"

import mteb
import numpy as np
from mteb import mocks

import twinreel

SILENT = (
    mocks.MockVideoRetrievalT2V,
    mocks.MockVideoRetrievalV2T,
    mocks.MockVideoZeroshotClassificationTask,
    mocks.MockVideoClassification,
    mocks.MockVideoClusteringTask,
    mocks.MockVideoPairClassificationTask,
)
WITH_SOUND = (mocks.MockVideoAudioRetrievalT2VA, mocks.MockVideoAudioZeroshotClassificationTask)


def main(bundle, out):
    """Run the tasks that the model has towers for."""
    model = twinreel.mteb.Model(bundle)
    tasks = SILENT + (WITH_SOUND if "audio" in model.encoder.spec.towers else ())
    scores = {}
    for task in tasks:
        found = mteb.evaluate(model, task(), cache=None, show_progress_bar=False)
        scores[task.__name__] = {one.task_name: one.get_score() for one in found.task_results}
    (out / "scores.json").write_text(json.dumps(scores))
    np.savez(out / "embeddings.npz", **both_ways(model, out / "clips"))


def both_ways(model, folder):
    """Embed the clips and the texts of a task by the adapter and by the encoder, from files."""
    task = mocks.MockVideoRetrievalT2V()
    task.load_data()
    [subset] = task.dataset.values()
    corpus, queries = subset["test"]["corpus"], subset["test"]["queries"]
    folder.mkdir()
    raw = mocks.mock_tasks.create_mock_samples.create_mock_video_bytes(mocks.MockVideoRetrievalT2V().np_rng)
    paths = [folder / f"{number}.mp4" for number in range(len(raw))]
    for path, data in zip(paths, raw, strict=True):
        path.write_bytes(data)
    from torch.utils.data import DataLoader

    about = {"task_metadata": task.metadata, "hf_split": "test", "hf_subset": "default", "show_progress_bar": False}
    return {
        "video": model.encode(DataLoader(corpus, batch_size=2), **about),
        "video_of_files": model.encoder.encode_video(paths, workers=1),
        "text": model.encode(DataLoader(queries, batch_size=2), **about),
        "text_of_strings": model.encoder.encode_text(queries["text"]),
    }


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
