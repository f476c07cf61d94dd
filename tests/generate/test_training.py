"""Both stages on the one loop: what they leave, resuming, and faults before anything is computed."""

import json

import jax
import numpy as np
import pytest
from flax import nnx
from tower_loops import drawn

from twinreel.base.config import load_config
from twinreel.base.errors import UserError
from twinreel.encode.embed.encoder import load
from twinreel.engine.keeping.checkpoint import read_meta, read_params
from twinreel.engine.loop import run
from twinreel.engine.step.state import split_model, trained_paths
from twinreel.generate.flow.solve import SolverOptions
from twinreel.generate.sample.judge import load_judge
from twinreel.generate.sample.painter import Painter
from twinreel.generate.train.begin import begin
from twinreel.generate.train.flow import FlowObjective
from twinreel.generate.train.stages import AUTOENCODER, fill_generator, stages, train_generator


def config_of(folder, *overrides, argument=""):
    return load_config(f"{folder / 'tiny.py'}{argument}", overrides=[f"data.dir={folder / 'data'}", *overrides])


def metrics(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_a_run_leaves_a_whole_generator(painter_run):
    meta, params = read_meta(painter_run), read_params(painter_run)
    assert meta["objective"] == "rectified flow" and meta["generator"]["condition"]["kind"] == "text"
    stage = read_params(painter_run / AUTOENCODER)
    inside = {path: value for path, value in params.items() if path.startswith("autoencoder/")}
    assert inside.keys() == stage.keys() and len(inside) > 8  # frozen: the second stage did not move it
    for path, value in inside.items():
        np.testing.assert_array_equal(value, stage[path])
    assert params["latent_std"].shape == (2,) and np.all(params["latent_std"] > 0)
    names = [line for line in metrics(painter_run) if "val/velocity_error" in line]
    assert [line["step"] for line in names] == [2, 4]
    assert any("val/psnr" in line for line in metrics(painter_run / AUTOENCODER))


def test_bad_configs(colour_data, tmp_path):
    for overrides, words in (
        (["first_stage=(3,)"], r"config.first_stage is \(3,\); wanted a list of overrides"),
        (["first_stage=('flow.width=4',)"], "'flow.width=4' changes none of the sections data, optimizer, train"),
        (["first_stage=('train.steps=many',)"], "config.first_stage: config.train.steps"),
    ):
        with pytest.raises(UserError, match=words):
            stages(config_of(colour_data, *overrides))


class Killed(BaseException):
    """Stands for a kill: nothing handles it."""


@pytest.mark.slow
def test_a_run_that_dies_in_either_stage_resumes_bit_for_bit(painter_run, colour_data, tmp_path, monkeypatch):
    between, deaths = run.Run.between_steps, [("autoencoder", 1), ("run", 3)]

    def dies(self, state, *, outputs, step):
        between(self, state, outputs=outputs, step=step)
        self._checkpoints.wait()
        if deaths and (self._checkpoints.folder.parent.name, step) == deaths[0]:
            deaths.pop(0)
            raise Killed

    monkeypatch.setattr(run.Run, "between_steps", dies)
    for _ in range(2):
        with pytest.raises(Killed):
            train_generator(config_of(colour_data), workdir=tmp_path / "run")
    assert not deaths
    result, _ = train_generator(config_of(colour_data), workdir=tmp_path / "run")
    assert result.step == 4
    whole, resumed = read_params(painter_run), read_params(tmp_path / "run")
    assert whole.keys() == resumed.keys()
    for name, value in whole.items():
        np.testing.assert_array_equal(value, resumed[name], err_msg=name)


def test_another_config_does_not_continue_a_stage(painter_run, colour_data):
    with pytest.raises(UserError, match=r"flow\.width: 8 -> 4"):
        train_generator(config_of(colour_data, "flow.width=4"), workdir=painter_run)


def test_faults_of_the_first_stage_name_its_field(colour_data, tmp_path):
    config = config_of(colour_data, "first_stage=('optimizer.warmup_steps=9', 'train.steps=2')")
    with pytest.raises(UserError, match=r"the autoencoder's stage, config.first_stage: config.optimizer.warmup_steps"):
        train_generator(config, workdir=tmp_path / "run")
    assert not (tmp_path / "run" / AUTOENCODER / "config.json").exists()


def test_faults_of_data_and_condition(colour_data, painter_run, tmp_path):
    mixture = config_of(colour_data)
    with mixture.unlocked():
        mixture.data.mixture = {"one": {"dir": "x"}}
    with pytest.raises(UserError, match=r"config.data.mixture: a generator trains on one prepared folder"):
        begin(mixture, workdir=tmp_path)
    with pytest.raises(UserError, match=r"config.data.dir is empty; give the prepared data set with --data DIR"):
        begin(config_of(colour_data, "data.dir=''"), workdir=tmp_path)
    with pytest.raises(UserError, match="must give one square view"):
        begin(config_of(colour_data, "data.eval_video=three_crop(16)"), workdir=tmp_path)
    with pytest.raises(UserError, match="this config has no section 'autoencoder'"):
        begin(load_config("demo"), workdir=tmp_path)
    with pytest.raises(UserError, match=r"is a video generator, which has no joint space"):  # a generator is no tower
        begin(config_of(colour_data, argument=f":{painter_run}"), workdir=tmp_path)


def test_a_generator_of_the_embeddings_of_a_tower(painter_run, colour_data, tower, tmp_path, monkeypatch):
    """Its tower is filled in and frozen, clips can be asked for like a clip, and the tower is no judge of them."""
    begun = begin(config_of(colour_data, argument=f":{tower / 'seed0'}"), workdir=tmp_path)
    assert begun.data.input.num_frames == 4 and begun.spec.size == 16 and begun.clips == 0.5
    objective = FlowObjective(begun.spec, options=begun.loss, clips=begun.clips)
    model = drawn(lambda: objective.init(nnx.Rngs(0)))
    fill_generator(model, begun=begun, stage=painter_run / AUTOENCODER)
    found, own = split_model(model), split_model(load(tower / "seed0").model)
    for path, value in own.items():
        np.testing.assert_array_equal(found[f"condition/tower/{path}"], value)
    trained = trained_paths(
        objective.trainable, {path: value for path, value in found.items() if "latent_" not in path}
    )
    assert {"condition/side", "condition/nothing"} < set(trained)
    assert {path.split("/")[0] for path in trained} == {"condition", "flow"} and not [
        p for p in trained if "/tower/" in p
    ]
    painter = Painter(spec=begun.spec, model=model, source="it")
    video = np.random.default_rng(0).integers(0, 256, (2, 4, 16, 16, 3)).astype(np.uint8)
    assert painter.paint_like(video, solver=SolverOptions(steps=1, method="euler")).shape == video.shape
    with pytest.raises(UserError, match="would judge its own work"):
        load_judge(tower / "seed0", painter=painter)
    assert load_judge(tower / "seed1", painter=painter).embed_dim == 6
    with pytest.raises(UserError, match="gone"):
        begin(config_of(colour_data, argument=":gone"), workdir=tmp_path)
    monkeypatch.setattr("twinreel.generate.train.begin.newest_meta", lambda _: {"generator": begun.spec.to_dict()})
    resumed = begin(config_of(colour_data, argument=":gone"), workdir=tmp_path)  # the tower is in its checkpoints
    assert resumed.tower is None and resumed.spec.condition == begun.spec.condition
    monkeypatch.undo()
    with pytest.raises(UserError, match=r"config.data.context_length=4, but the tower .* takes 8"):
        begin(config_of(colour_data, "data.context_length=4", argument=f":{tower / 'seed0'}"), workdir=tmp_path)


def test_several_processes_read_the_first_stage_from_the_store(monkeypatch, tmp_path):
    """Their stages have no checkpoint, or the older one from which they resumed."""
    read = []
    monkeypatch.setattr("twinreel.generate.train.stages.read_params", lambda path: read.append(path) or {})
    monkeypatch.setattr("twinreel.engine.remote.place.url_of", lambda path: f"s3://runs/{path.name}")
    for count in (1, 2):
        monkeypatch.setattr(jax, "process_count", lambda count=count: count)
        with pytest.raises(AttributeError):  # there is no run
            fill_generator(None, begun=None, stage=tmp_path / "autoencoder")
    assert read == [tmp_path / "autoencoder", "s3://runs/autoencoder"]
