"""PyTorch's side of `twinreel bench compare_step`, and what both sides share: sizes, the batch, FLOPs, the protocol.

The file imports nothing of twinreel: another Python, which has torch and not twinreel, runs it by its path. A side is a
process of its own. It prints its facts as one line of JSON, then does one step for each line of standard input and
prints the seconds that the step took.
"""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

FRAMES, PIXELS, LENGTH, VOCAB = 8, 224, 77, 49_408
OUT_OF_MEMORY = 17  # the exit status of a side whose batch does not fit


@dataclasses.dataclass(frozen=True)
class Model:
    """The sizes of a CLIP model (Radford et al. 2021, table 19)."""

    patch: int
    embed: int
    video: dict[str, int]
    text: dict[str, int]

    @property
    def patches(self) -> int:
        """Return the number of patches of a frame."""
        return (PIXELS // self.patch) ** 2


_BASE = {"video": {"width": 768, "depth": 12, "heads": 12}, "text": {"width": 512, "depth": 12, "heads": 8}}
_LARGE = {"video": {"width": 1024, "depth": 24, "heads": 16}, "text": {"width": 768, "depth": 12, "heads": 12}}
MODELS = {
    "ViT-B/32": Model(patch=32, embed=512, **_BASE),
    "ViT-B/16": Model(patch=16, embed=512, **_BASE),
    "ViT-L/14": Model(patch=14, embed=768, **_LARGE),
}
ADAMW: dict[str, Any] = {"lr": 1e-4, "b1": 0.9, "b2": 0.98, "eps": 1e-6, "weight_decay": 0.2}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SideOptions:
    """What a side is asked to measure.

    Attributes:
      side: library and dtype, such as "torch-float32", "torch.compile-bfloat16", "twinreel-bfloat16".
      batch_size: clips of a batch.
      device: "cpu" or "gpu".
      model: a name of MODELS.
      remat: twinreel's `config.model.remat`.
      unroll: twinreel's `config.model.unroll`.
    """

    side: str
    batch_size: int
    device: str = "cpu"
    model: str = "ViT-B/32"
    remat: str = "none"
    unroll: int = 0

    @property
    def library(self) -> str:
        """Return the part of `side` before the dtype."""
        return self.side.split("-")[0]

    @property
    def dtype(self) -> str:
        """Return "float32" or "bfloat16"."""
        return self.side.split("-")[1]

    @property
    def sizes(self) -> Model:
        """Return the sizes of the model."""
        return MODELS[self.model]

    def flags(self) -> list[str]:
        """Return the command-line flags that `parse` reads."""
        return [f"--{name}={value}" for name, value in dataclasses.asdict(self).items()]

    @classmethod
    def parse(cls, argv: Sequence[str]) -> "SideOptions":
        """Read the flags of `flags`."""
        parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
        for field in dataclasses.fields(cls):
            required = field.default is dataclasses.MISSING
            default = None if required else field.default
            parser.add_argument(f"--{field.name}", type=field.type, required=required, default=default)
        return cls(**vars(parser.parse_args(argv)))


@dataclasses.dataclass(frozen=True)
class Side:
    """A side, ready to run.

    Attributes:
      step: does one step and waits for its result.
      facts: what is measured, and the `flops` of one step.
      memory: returns, after a step, bytes of the device: `resident_bytes`, which do not depend on the batch,
        `peak_bytes` of a step and `limit_bytes`; {} where the device does not report them.
    """

    step: Callable[[], Any]
    facts: dict[str, Any]
    memory: Callable[[], dict[str, int]] = dict


def serve(options: SideOptions, *, make: Callable[[SideOptions], Side]) -> int:
    """Run one side: print its facts, then time a step for every line of standard input.

    Args:
      options: what to measure.
      make: builds the side.

    Returns:
      The exit status; OUT_OF_MEMORY if the batch does not fit.
    """
    try:
        side = make(options)
        for _ in range(2):
            side.step()
    except Exception as error:
        if "out of memory" in str(error).lower() or "RESOURCE_EXHAUSTED" in str(error):
            return OUT_OF_MEMORY
        raise
    print(json.dumps(side.facts | side.memory() | {"batch_size": options.batch_size}), flush=True)
    for _ in sys.stdin:
        begin, begin_cpu = time.perf_counter(), time.process_time()
        side.step()
        print(time.perf_counter() - begin, time.process_time() - begin_cpu, flush=True)
    return 0


def dense_layers(model: Model, *, batch_size: int, tokens: int) -> list[tuple[int, int, int]]:
    """Return (rows, width in, width out) of every dense layer of both towers; `tokens` of a frame."""
    found = []
    for tower, rows in ((model.video, batch_size * FRAMES * tokens), (model.text, batch_size * LENGTH)):
        width = tower["width"]
        for width_in, width_out in ((width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)):
            found += [(rows, width_in, width_out)] * tower["depth"]
    return found


def step_flops(model: Model, *, batch_size: int, tokens: int) -> float:
    """Count the FLOPs of all matrix products of a step: dense layers and attention x 3, patches x 2 (no gradient)."""
    dense = sum(2 * rows * a * b for rows, a, b in dense_layers(model, batch_size=batch_size, tokens=tokens))
    attention = 0
    for tower, texts, length in ((model.video, batch_size * FRAMES, tokens), (model.text, batch_size, LENGTH)):
        attention += tower["depth"] * texts * 4 * length**2 * tower["width"]
    patches = 2 * batch_size * FRAMES * model.patches * 3 * model.patch**2 * model.video["width"]
    return 3 * (dense + attention) + 2 * patches


def make_batch(batch_size: int) -> tuple[Any, Any]:
    """Return the batch that all sides train on: uint8 [B,T,H,W,3] and int32 [B,L]."""
    import numpy as np

    draw = np.random.default_rng(0)
    video = draw.integers(0, 256, (batch_size, FRAMES, PIXELS, PIXELS, 3), dtype=np.uint8)
    text = draw.integers(1, VOCAB - 1, (batch_size, LENGTH)).astype(np.int32)
    text[:, -1] = VOCAB - 1  # the end token, whose position CLIP pools
    return video, text


def torch_side(options: SideOptions) -> Side:
    """Build `transformers.CLIPModel`, AdamW and their step; every frame is an image, the mean is taken over frames."""
    import torch  # pyright: ignore[reportMissingImports]
    import transformers  # pyright: ignore[reportMissingImports]

    model, batch_size, device = options.sizes, options.batch_size, "cuda" if options.device == "gpu" else "cpu"
    clip = transformers.CLIPModel(_clip_config(model)).train().to(device)
    optimizer = torch.optim.AdamW(
        clip.parameters(),
        lr=ADAMW["lr"],
        betas=(ADAMW["b1"], ADAMW["b2"]),
        eps=ADAMW["eps"],
        weight_decay=ADAMW["weight_decay"],
        fused=True,
    )
    video, text = (torch.from_numpy(array).to(device) for array in make_batch(batch_size))
    text, mask = text.long(), torch.ones(text.shape, dtype=torch.long, device=device)
    targets = torch.arange(batch_size, device=device)

    def loss_of() -> Any:
        with torch.autocast(device, torch.bfloat16, enabled=options.dtype == "bfloat16"):
            pixels = (video.flatten(0, 1).permute(0, 3, 1, 2).float() * (2 / 255) - 1).contiguous()
            frames = clip.vision_model(pixel_values=pixels).pooler_output.unflatten(0, (batch_size, FRAMES))
            x = clip.visual_projection(frames.mean(1)).float()
            y = clip.text_projection(clip.text_model(input_ids=text, attention_mask=mask).pooler_output).float()
        x, y = (torch.nn.functional.normalize(rows, dim=-1) for rows in (x, y))
        logits = clip.logit_scale.exp() * x @ y.T
        cross_entropy = torch.nn.functional.cross_entropy
        return 0.5 * (cross_entropy(logits, targets) + cross_entropy(logits.T, targets))

    forward = torch.compile(loss_of) if options.library == "torch.compile" else loss_of

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = forward()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    def memory() -> dict[str, int]:
        if device == "cpu":
            return {}
        torch.cuda.reset_peak_memory_stats()
        step()
        optimizer.zero_grad(set_to_none=True)
        resident, peak = torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated()
        return {"resident_bytes": resident, "peak_bytes": peak, "limit_bytes": torch.cuda.mem_get_info()[1]}

    facts = {
        "what": f"torch {torch.__version__}, transformers {transformers.__version__}",
        "parameters": sum(p.numel() for p in clip.parameters()),
        "flops": step_flops(model, batch_size=batch_size, tokens=model.patches + 1),  # the class token
    }
    return Side(step=step, facts=facts, memory=memory)


def _clip_config(model: Model) -> Any:
    import transformers  # pyright: ignore[reportMissingImports]

    sizes = {
        name: {
            "hidden_size": tower["width"],
            "intermediate_size": 4 * tower["width"],
            "num_hidden_layers": tower["depth"],
            "num_attention_heads": tower["heads"],
        }
        for name, tower in (("vision", model.video), ("text", model.text))
    }
    return transformers.CLIPConfig(
        vision_config=sizes["vision"] | {"image_size": PIXELS, "patch_size": model.patch},
        text_config=sizes["text"] | {"vocab_size": VOCAB, "max_position_embeddings": LENGTH, "eos_token_id": VOCAB - 1},
        projection_dim=model.embed,
    )


def main() -> int:
    """Run torch's side."""
    here = Path(__file__).resolve().parent
    sys.path[:] = [
        path for path in sys.path if Path(path).resolve() != here
    ]  # the files beside this one are no modules of their own
    return serve(SideOptions.parse(sys.argv[1:]), make=torch_side)


if __name__ == "__main__":
    sys.exit(main())
