"""Write tiny VideoMAE, ViViT and TimeSformer folders with random weights, and what transformers gives for them.

Usage: python make_hf_video.py FOLDER, with transformers 5.24.0 and torch 2.13.0. Nothing in the tests runs it.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import (
    TimesformerConfig,
    TimesformerForVideoClassification,
    TimesformerModel,
    VideoMAEConfig,
    VideoMAEForPreTraining,
    VideoMAEForVideoClassification,
    VivitConfig,
    VivitForVideoClassification,
    VivitModel,
)

IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
HALF = ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5])
SIZES = {
    **{"image_size": 16, "num_frames": 4, "hidden_size": 24, "num_hidden_layers": 2},
    **{"num_attention_heads": 3, "intermediate_size": 40, "num_labels": 2},
}
LARGER = {"image_size": 24, "num_frames": 6}
DECODER = {"decoder_hidden_size": 12, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
DECODER |= {"decoder_intermediate_size": 20}


def pixels(frames, mean, std, *, offset=False):
    """As the processors do: scale, ViViT's offset, mean and deviation; `[B,T,3,H,W]`."""
    x = frames.astype(np.float64) / 127.5 - 1 if offset else frames / 255
    return torch.tensor((x - np.array(mean)) / np.array(std), dtype=torch.float32).permute(0, 1, 4, 2, 3)


def randomised(model):
    torch.manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * (0.05 if p.ndim < 2 else 0.12))
    return model.eval()


def write(folder, model, processor, frames, *, offset=False, pooled=None, **more):
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=2) + "\n")
    body, kept = getattr(model, model.base_model_prefix, model), []
    mean, std = processor["image_mean"], processor["image_std"]
    x = pixels(frames, mean, std, offset=offset)
    with torch.no_grad():
        hidden = body(x).last_hidden_state
        if hasattr(model, "classifier"):
            model.classifier.register_forward_pre_hook(lambda _, given: kept.append(given[0]))
            model(x)
            pooled = kept[0]
        else:
            pooled = hidden[:, 0]
        for key, other in more.items():
            model.config.num_frames, model.config.image_size = other.shape[1], other.shape[3]  # the layers read them
            more[key] = (other, body(pixels(other, mean, std)).last_hidden_state[:, 0].numpy())
    arrays = {"frames": frames, "hidden": hidden.numpy(), "pooled": pooled.numpy()}
    for key, (other, out) in more.items():
        arrays |= {f"{key}_frames": other, f"{key}_pooled": out}
    np.savez_compressed(folder / "io.npz", **arrays)


def main(out):
    rng = np.random.default_rng(1)
    frames = rng.integers(0, 256, (2, 4, 16, 16, 3), dtype=np.uint8)
    more = rng.integers(0, 256, (2, 6, 24, 24, 3), dtype=np.uint8)
    size = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}, "resample": 2}
    half, imagenet = ({**size, "image_mean": mean, "image_std": std} for mean, std in (HALF, IMAGENET))
    mae = VideoMAEConfig(**SIZES, patch_size=8, tubelet_size=2)
    model = randomised(VideoMAEForVideoClassification(mae))
    larger = VideoMAEForVideoClassification(VideoMAEConfig(**SIZES | LARGER, patch_size=8, tubelet_size=2))
    larger.load_state_dict(model.state_dict())
    write(out / "videomae/larger", larger.eval(), imagenet, more)
    write(out / "videomae/finetuned", model, imagenet, frames)
    mae = VideoMAEConfig(**SIZES, **DECODER, patch_size=8, tubelet_size=2, use_mean_pooling=False)
    write(out / "videomae/pretrained", randomised(VideoMAEForPreTraining(mae)), half, frames)
    vivit = VivitConfig(**SIZES, tubelet_size=[2, 8, 8])
    both = half | {"offset": True, "rescale_factor": 1 / 127.5, "size": {"shortest_edge": 18}}
    write(out / "vivit/classifier", randomised(VivitForVideoClassification(vivit)), both, frames, offset=True)
    write(out / "vivit/bare", randomised(VivitModel(vivit)), both, frames, offset=True)
    times = TimesformerConfig(**SIZES, patch_size=8)
    one = rng.integers(0, 256, (2, 1, 16, 16, 3), dtype=np.uint8)
    model = randomised(TimesformerForVideoClassification(times))
    write(out / "timesformer/classifier", model, imagenet, frames)
    write(out / "timesformer/bare", randomised(TimesformerModel(times)), imagenet, frames, more=more, one=one)


main(Path(sys.argv[1]))
