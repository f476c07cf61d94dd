"""Bundles of models in the shape of public ones that twinreel made itself, for tests of export."""

import numpy as np
from public_models import GOLDEN

from twinreel.data.options import InputSpec
from twinreel.data.text.families import read_folder
from twinreel.engine.keeping.transfer import shapes
from twinreel.zoo.build import abstract
from twinreel.zoo.bundle import write_bundle
from twinreel.zoo.spec import ModelSpec

IMAGE = {"image_size": 16, "patch": 8, "patch_bias": False, "width": 16, "depth": 1, "heads": 2, "class_token": True}
IMAGE |= {"pre_norm": True, "pool": "cls", "mlp_ratio": 2.0}
TEXT = {"vocab_size": 520, "width": 12, "depth": 1, "heads": 2, "causal": True, "pool": "eos"}


def clip_spec(*, image=None, video=None, text=None, **fields):
    """A dual tower of CLIP's shape as `pretrain` makes it: projections beside the towers, a tokenizer of its own."""
    given = InputSpec(
        num_frames=2,
        context_length=12,
        eval_video="resize_short_bicubic(16)|center_crop(16)",
        pixel_mean=(0.4, 0.5, 0.6),
        pixel_std=(0.2, 0.3, 0.25),
    )
    towers = {
        "video": {"family": "frames", "image": {**IMAGE, **(image or {})}, **(video or {})},
        "text": {"family": "transformer", **TEXT, **(text or {})},
    }
    tokenizer = read_folder(GOLDEN / "clip" / "exact").to_meta()
    values = {"towers": towers, "input": given, "embed_dim": 8, "tokenizer": tokenizer}
    return ModelSpec(**(values | {"origin": {"made_by": "pretrain"}} | fields))


def random_params(spec):
    """Parameters none of which is where it starts."""
    rng = np.random.default_rng(3)
    like = shapes(abstract(spec))
    return {path: rng.normal(0.2, 0.3, x.shape).astype(np.float32) for path, x in like.items()}


def trained_clip(folder, **changes):
    """Write a bundle of `clip_spec`; return its folder."""
    spec = clip_spec(**changes)
    return write_bundle(folder, spec=spec, params=random_params(spec))
