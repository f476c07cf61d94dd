"""Write resnet/: tiny ResNets with random weights and what they give.

transformers 5.24.0 (`hf`, `basic`) and timm 1.0.31 (`timm`), with torch 2.13.0. Run once, elsewhere:
`python make_resnet.py .`. The tests read the files only.
"""

import json
import sys
from pathlib import Path

import numpy as np
import timm
import torch
from make_torchvision import randomised
from safetensors.torch import save_file
from timm.models.resnet import Bottleneck, ResNet
from transformers import ResNetConfig, ResNetForImageClassification, ResNetModel

MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


def pixels(frames):
    """Return what the model sees of uint8 [B,H,W,3]."""
    return torch.tensor(((frames / 255).astype(np.float32) - MEAN) / STD).permute(0, 3, 1, 2)


def write(folder, model, maps):
    """Write io.npz: frames, last feature maps [B,H,W,D] and their means."""
    rng, found = np.random.default_rng(1), {}
    for name, (height, width) in {"pixels": (40, 40), "wide": (24, 50)}.items():
        found[name] = rng.integers(0, 256, (2, height, width, 3), dtype=np.uint8)
        with torch.no_grad():
            found[f"{name}_maps"] = maps(pixels(found[name])).permute(0, 2, 3, 1).numpy()
    np.savez(folder / "io.npz", **found)


def main(folder):
    """Write the models."""
    torch.manual_seed(0)
    sizes = {"embedding_size": 8, "hidden_sizes": [16, 16, 24], "depths": [2, 1, 2], "num_labels": 3}
    forms = {
        "hf": (ResNetForImageClassification, {"layer_type": "bottleneck", "downsample_in_bottleneck": True}),
        "basic": (ResNetModel, {"layer_type": "basic", "downsample_in_first_stage": True}),
    }
    for name, (kind, form) in forms.items():
        model = randomised(kind(ResNetConfig(**sizes, **form)))
        inner = model.resnet if name == "hf" else model
        model.save_pretrained(folder / "resnet" / name)
        write(folder / "resnet" / name, model, lambda x, inner=inner: inner(x).last_hidden_state)
    shown = {"size": {"shortest_edge": 40}, "crop_pct": 0.8, "resample": 3}
    (folder / "resnet" / "basic" / "preprocessor_config.json").write_text(json.dumps(shown))
    model = randomised(ResNet(Bottleneck, [1, 2, 1, 1], channels=(4, 6, 8, 8), num_classes=3))
    (folder / "resnet" / "timm").mkdir(exist_ok=True)
    save_file(model.state_dict(), folder / "resnet" / "timm" / "model.safetensors")
    about = {"architecture": "resnet50", "pretrained_cfg": {"input_size": [3, 40, 40], "crop_pct": 0.95}}
    about["pretrained_cfg"] |= {"interpolation": "bicubic", "mean": MEAN.tolist(), "std": STD.tolist()}
    (folder / "resnet" / "timm" / "config.json").write_text(json.dumps(about))
    write(folder / "resnet" / "timm", model, model.forward_features)
    print(timm.__version__)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
