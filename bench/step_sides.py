"""The sides of `compare_step.py`: the same train step in torch and in twinreel, and bare matrix products.

A side lives in a process of its own, which the comparison starts: it says on standard output what it is made of, then
does one step for each line that comes in and answers with the time that it took.
"""

import argparse
import collections
import dataclasses
import json
import math
import os
import sys
import time
from collections.abc import Callable
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
    def places(self) -> int:
        """Return the patches of a frame."""
        return (PIXELS // self.patch) ** 2


_BASE = {"video": {"width": 768, "depth": 12, "heads": 12}, "text": {"width": 512, "depth": 12, "heads": 8}}
_LARGE = {"video": {"width": 1024, "depth": 24, "heads": 16}, "text": {"width": 768, "depth": 12, "heads": 12}}
MODELS = {
    "ViT-B/32": Model(patch=32, embed=512, **_BASE),
    "ViT-B/16": Model(patch=16, embed=512, **_BASE),
    "ViT-L/14": Model(patch=14, embed=768, **_LARGE),
}
ADAMW = {"lr": 1e-4, "b1": 0.9, "b2": 0.98, "eps": 1e-6, "weight_decay": 0.2}


@dataclasses.dataclass(frozen=True)
class Side:
    """A side, ready to run.

    Attributes:
      step: does one step and waits for its result.
      facts: what it is made of; `flops` of one step.
      memory: gives, after a step, bytes of the device: `resident_bytes` that do not depend on the batch, `peak_bytes`
        of a step and the `limit_bytes`; {} where the device is not asked.
    """

    step: Callable[[], Any]
    facts: dict[str, Any]
    memory: Callable[[], dict[str, int]] = dict


def serve(args: argparse.Namespace) -> int:
    """Be one side: say what it is made of, then time a step for every line that comes in."""
    kind, dtype = args.side.split("-")
    if not kind.startswith("torch"):
        os.environ["JAX_PLATFORMS"] = "cuda" if args.device == "gpu" else "cpu"
        os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.95")  # torch, too, may take nearly all of a GPU
    make = {"torch": _torch, "torch.compile": _torch, "twinreel": _twinreel, "matmul": _matmul}[kind]
    try:
        side = make(dtype, model=MODELS[args.model], batch_size=int(args.batch_size), args=args)
        for _ in range(2):
            side.step()
    except Exception as error:
        if "out of memory" in str(error).lower() or "RESOURCE_EXHAUSTED" in str(error):
            return OUT_OF_MEMORY
        raise
    print(json.dumps(side.facts | side.memory() | {"batch_size": int(args.batch_size)}), flush=True)
    for _ in sys.stdin:
        begin, begin_cpu = time.perf_counter(), time.process_time()
        side.step()
        print(time.perf_counter() - begin, time.process_time() - begin_cpu, flush=True)
    return 0


def dense_layers(model: Model, *, batch_size: int, places: int) -> list[tuple[int, int, int]]:
    """Return (rows, width in, width out) of every dense layer of both towers; `places` are the tokens of a frame."""
    found = []
    for tower, rows in ((model.video, batch_size * FRAMES * places), (model.text, batch_size * LENGTH)):
        width = tower["width"]
        for width_in, width_out in ((width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)):
            found += [(rows, width_in, width_out)] * tower["depth"]
    return found


def step_flops(model: Model, *, batch_size: int, places: int) -> float:
    """Count the FLOPs of all matrix products of a step: dense layers and attention x 3, patches x 2 (no gradient)."""
    dense = sum(2 * rows * a * b for rows, a, b in dense_layers(model, batch_size=batch_size, places=places))
    attention = 0
    for tower, texts, length in ((model.video, batch_size * FRAMES, places), (model.text, batch_size, LENGTH)):
        attention += tower["depth"] * texts * 4 * length**2 * tower["width"]
    patches = 2 * batch_size * FRAMES * model.places * 3 * model.patch**2 * model.video["width"]
    return 3 * (dense + attention) + 2 * patches


def _batch(batch_size: int) -> tuple[Any, Any]:
    """The batch that both sides train on: uint8 [B,T,H,W,3] and int32 [B,L]."""
    import numpy as np

    draw = np.random.default_rng(0)
    video = draw.integers(0, 256, (batch_size, FRAMES, PIXELS, PIXELS, 3), dtype=np.uint8)
    text = draw.integers(1, VOCAB - 1, (batch_size, LENGTH)).astype(np.int32)
    text[:, -1] = VOCAB - 1  # the end, where CLIP reads the sentence
    return video, text


def _torch(dtype: str, *, model: Model, batch_size: int, args: argparse.Namespace) -> Side:
    import torch  # pyright: ignore[reportMissingImports]
    import transformers  # pyright: ignore[reportMissingImports]

    device = "cuda" if args.device == "gpu" else "cpu"
    clip = transformers.CLIPModel(_clip_config(model)).train().to(device)
    optimizer = torch.optim.AdamW(
        clip.parameters(),
        lr=ADAMW["lr"],
        betas=(ADAMW["b1"], ADAMW["b2"]),
        eps=ADAMW["eps"],
        weight_decay=ADAMW["weight_decay"],
        fused=True,
    )
    video, text = (torch.from_numpy(array).to(device) for array in _batch(batch_size))
    text, seen = text.long(), torch.ones(text.shape, dtype=torch.long, device=device)
    own = torch.arange(batch_size, device=device)

    def loss_of() -> Any:
        with torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16"):
            pixels = (video.flatten(0, 1).permute(0, 3, 1, 2).float() * (2 / 255) - 1).contiguous()
            frames = clip.vision_model(pixel_values=pixels).pooler_output.unflatten(0, (batch_size, FRAMES))
            x = clip.visual_projection(frames.mean(1)).float()
            y = clip.text_projection(clip.text_model(input_ids=text, attention_mask=seen).pooler_output).float()
        x, y = (torch.nn.functional.normalize(rows, dim=-1) for rows in (x, y))
        logits = clip.logit_scale.exp() * x @ y.T
        cross_entropy = torch.nn.functional.cross_entropy
        return 0.5 * (cross_entropy(logits, own) + cross_entropy(logits.T, own))

    forward = torch.compile(loss_of) if args.side.startswith("torch.compile") else loss_of

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
        "flops": step_flops(model, batch_size=batch_size, places=model.places + 1),  # the class token
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


def _twinreel(dtype: str, *, model: Model, batch_size: int, args: argparse.Namespace) -> Side:
    import jax
    import numpy as np

    from twinreel.engine.optimizer.optimizer import make_optimizer  # pyright: ignore[reportMissingImports]
    from twinreel.engine.sharding.mesh import make_mesh, put_batch  # pyright: ignore[reportMissingImports]
    from twinreel.engine.step.state import Blueprint  # pyright: ignore[reportMissingImports]
    from twinreel.engine.step.step import compile_step, stop_flags  # pyright: ignore[reportMissingImports]
    from twinreel.pretrain.objective import Contrastive  # pyright: ignore[reportMissingImports]

    same = {"dtype": dtype, "activation": "quick_gelu"}
    video = model.video | same | {"image_size": PIXELS, "patch": model.patch, "temporal_depth": 0}
    objective = Contrastive(
        model={
            "embed_dim": model.embed,
            "unroll": args.unroll,
            "remat": args.remat,
            "video": video,
            "text": model.text | same,
        },
        loss={},
        num_frames=FRAMES,
        context_length=LENGTH,
        vocab_size=VOCAB,
    )
    optimizer = make_optimizer(name="adamw", schedule="constant", steps=1000, **ADAMW)
    mesh = make_mesh()
    pixels, text = _batch(batch_size)
    rows = {"video": pixels, "text": text, "text_mask": np.ones(text.shape, bool)}
    with jax.set_mesh(mesh):
        blueprint = Blueprint(objective=objective, optimizer=optimizer, mesh=mesh, seed=0)
        batch, go_on = put_batch(rows, mesh=mesh), stop_flags(mesh)[False]
        compiled = compile_step(batch, blueprint=blueprint)
        state = blueprint.init()

    def step() -> float:
        nonlocal state
        state, outputs = compiled(state, batch, go_on)
        return float(outputs["metrics"]["loss"])

    def memory() -> dict[str, int]:
        limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
        needs = compiled.memory_analysis()
        if limit is None or needs is None:
            return {}
        resident = needs.argument_size_in_bytes
        return {"resident_bytes": resident, "peak_bytes": resident + needs.temp_size_in_bytes, "limit_bytes": limit}

    facts = {
        "what": f"twinreel, jax {jax.__version__}",
        "parameters": sum(value.size for value in state.params.values()),
        "flops": step_flops(model, batch_size=batch_size, places=model.places),
    }
    return Side(step=step, facts=facts, memory=memory)


def _matmul(dtype: str, *, model: Model, batch_size: int, args: argparse.Namespace) -> Side:
    """Bare products on the dense layers' shapes: x W, dy W^T and x^T dy of each kind of layer, as `jnp` writes them.

    Each kind as often as the towers' depths are to each other. Operands are of the dtype, results of the faster of
    jax's two ways: the dtype on a GPU, float32 on a CPU.
    """
    import jax
    import jax.numpy as jnp

    layers = collections.Counter(dense_layers(model, batch_size=batch_size, places=model.places))
    least = min(layers.values())
    times = {layer: number // least for layer, number in layers.items()}
    with jax.numpy_dtype_promotion("standard"):
        draws = {
            shape: [
                jax.random.normal(jax.random.key(i), sides, jnp.float32).astype(dtype)
                for i, sides in enumerate((shape[:2], shape[1:], (shape[0], shape[2])))
            ]
            for shape in layers
        }

    def product(contract: tuple[int, int]):
        kind = dtype if args.device == "gpu" else jnp.float32

        def run(a, b):
            return jax.lax.dot_general(a, b, (((contract[0],), (contract[1],)), ((), ())), preferred_element_type=kind)

        return jax.jit(run)

    forward, to_input, to_weight = product((1, 0)), product((1, 1)), product((0, 0))

    def step() -> None:
        last = None
        for shape, (x, w, dy) in draws.items():
            for _ in range(times[shape]):
                last = forward(x, w), to_input(dy, w), to_weight(x, dy)
            if args.device == "cpu":  # a GPU takes them in order, and would wait for the next ones
                jax.block_until_ready(last)
        jax.block_until_ready(last)

    facts = {
        "what": f"jax {jax.__version__}",
        "flops": float(sum(6 * math.prod(shape) * n for shape, n in times.items())),
    }
    return Side(step=step, facts=facts)
