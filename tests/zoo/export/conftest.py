"""A run of CLIP's shape, trained for two steps from public weights, and a copy of it as a bundle."""

import pytest
from public_models import source


@pytest.fixture(scope="session")
def clip_run(tiny_overrides, tmp_path_factory):
    """The workdir of a run that began with CLIP's weights: same towers, its own input."""
    from twinreel.base.config import load_config
    from twinreel.engine.keeping.init_from import InitFrom
    from twinreel.pretrain.pretrain import pretrain, read_params
    from twinreel.zoo.convert.convert import convert

    folder = tmp_path_factory.mktemp("clip_run")
    public = source("clip/exact", folder / "clip")
    spec = convert(public).spec
    changed = ["train.steps=2", "train.eval_every=2", "train.checkpoint_every=2", "data.num_frames=2"]
    kept = [item for item in tiny_overrides if not item.startswith("model.")]
    config = load_config("demo", overrides=[*kept, *changed])
    with config.unlocked():
        config.model.video = {"family": "frames", "image": dict(spec.towers["video"]["image"])}
        config.model.text = {key: value for key, value in spec.towers["text"].items() if key != "vocab_size"}
        config.model.projections = {"video": "none"}
        config.model.embed_dim = spec.embed_dim
        config.data.tokenizer = str(public)
        config.data.update(eval_video="center_crop(32)", train_video="random_crop(32)", context_length=16)
        config.data.update(pixel_mean=spec.input.pixel_mean, pixel_std=spec.input.pixel_std)
    pretrain(config, workdir=folder / "run", start=InitFrom(checkpoint=public, read=read_params))
    return folder / "run"
