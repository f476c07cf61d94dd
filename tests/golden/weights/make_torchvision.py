"""Write r2plus1d/: a tiny R(2+1)D with random weights and what it gives (torchvision 0.29.1, torch 2.13.0).

Run once, elsewhere: `python make_torchvision.py .`. The tests read the files only. torchvision fixes the widths of its
models, so the network is put together from its blocks, under its names.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models.video.resnet import BasicBlock, Conv2Plus1D

WIDTHS, DEPTHS = (8, 8, 12, 16), (2, 1, 2, 1)
MEAN, STD = np.float32([0.43216, 0.394666, 0.37645]), np.float32([0.22803, 0.22145, 0.216989])


class Tiny(nn.Module):
    """torchvision's VideoResNet with other widths and depths."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            *(nn.Conv3d(3, 5, (1, 7, 7), stride=(1, 2, 2), padding=(0, 3, 3), bias=False), nn.BatchNorm3d(5)),
            nn.ReLU(),
            *(nn.Conv3d(5, 8, (3, 1, 1), padding=(1, 0, 0), bias=False), nn.BatchNorm3d(8)),
            nn.ReLU(),
        )
        width_in = 8
        for stage, (width, depth) in enumerate(zip(WIDTHS, DEPTHS, strict=True)):
            blocks = []
            for number in range(depth):
                stride = 2 if stage and not number else 1
                shortcut = None
                if stride > 1 or width_in != width:
                    strides = Conv2Plus1D.get_downsample_stride(stride)
                    shortcut = nn.Sequential(nn.Conv3d(width_in, width, 1, strides, bias=False), nn.BatchNorm3d(width))
                blocks.append(BasicBlock(width_in, width, Conv2Plus1D, stride, shortcut))
                width_in = width
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(width_in, 3)

    def forward(self, x):
        """Return the last feature maps."""
        return self.layer4(self.layer3(self.layer2(self.layer1(self.stem(x)))))


def randomised(model):
    """Give every parameter and every statistic a value that matters."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.2)
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 2)
    return model.eval()


def main(folder):
    """Write the model and io.npz."""
    torch.manual_seed(0)
    model = randomised(Tiny())
    (folder / "r2plus1d").mkdir(exist_ok=True)
    save_file(model.state_dict(), folder / "r2plus1d" / "model.safetensors")
    rng, found = np.random.default_rng(1), {}
    for name, (times, height, width) in {"video": (8, 32, 32), "odd": (5, 24, 30), "image": (1, 32, 32)}.items():
        found[name] = rng.integers(0, 256, (2, times, height, width, 3), dtype=np.uint8)
        pixels = torch.tensor(((found[name] / 255).astype(np.float32) - MEAN) / STD).permute(0, 4, 1, 2, 3)
        with torch.no_grad():
            found[f"{name}_maps"] = model(pixels).permute(0, 2, 3, 4, 1).numpy()
    np.savez(folder / "r2plus1d" / "io.npz", **found)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
