"""Compare twinreel's train step with PyTorch's: a CLIP ViT on 8 frames and its text tower, on this machine.

    pip install torch transformers            # anywhere; nothing is downloaded at run time
    python bench/compare_step.py --torch_python other/bin/python
    python bench/compare_step.py --device gpu --model ViT-L/14 --batch_size largest

Both sides do forward, symmetric InfoNCE, backward and AdamW on the same batch of uint8 clips and full-length texts:
torch with `transformers.CLIPModel` (random weights, its default attention; each frame an image, the mean over frames
before the projection), in float32 and under bfloat16 autocast, on a GPU also through `torch.compile`; twinreel with the
step that `pretrain` compiles, in float32 and bfloat16. Other processes measure the rate of bare `jax` matrix products
on the shapes of the towers' dense layers, forward and both products of the backward pass: the denominator of "share of
the matmul rate".

On a CPU all processes live side by side and take turns, one step each, so that a noise hits all alike; ratios are
medians over rounds of the ratio within a round, by wall time and by CPU time. The latter hardly sees what else the
machine does, but counts the time in which a library's threads wait in a loop. On a GPU each has the device to itself,
one after another, and `--batch_size largest` finds for each the largest power of two that fits.
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

SIDES = {
    "cpu": tuple(f"{kind}-{dtype}" for kind in ("torch", "twinreel", "matmul") for dtype in ("float32", "bfloat16")),
    "gpu": tuple(f"{kind}-bfloat16" for kind in ("torch", "torch.compile", "twinreel", "matmul")),
}
FRAMES, PIXELS, LENGTH, VOCAB = 8, 224, 77, 49_408
LARGEST = "largest"
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


def main() -> int:
    """Run the comparison, or one side of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=SIDES, default="cpu", help="where the steps run (default: cpu)")
    parser.add_argument("--model", choices=MODELS, default="ViT-B/32", help="default: ViT-B/32")
    parser.add_argument("--batch_size", default="4", help="clips of a batch, or 'largest' (default: 4)")
    parser.add_argument("--rounds", type=int, default=7, help="steps of each side (default: 7)")
    parser.add_argument("--torch_python", default=sys.executable, help="a Python that has torch (default: this one)")
    parser.add_argument("--sides", help=f"which sides take part (default: {SIDES['cpu']}, on a GPU {SIDES['gpu']})")
    parser.add_argument("--remat", default="none", help="twinreel's config.model.remat (default: none)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.batch_size != LARGEST and not args.batch_size.isdigit():
        parser.error(f"--batch_size={args.batch_size} must be a number of clips or {LARGEST!r}")
    if args.side:
        return _serve(args)
    known = sorted({side for sides in SIDES.values() for side in sides})
    sides = args.sides.split(",") if args.sides else list(SIDES[args.device])
    if wrong := sorted(set(sides) - set(known)):
        parser.error(f"--sides names {', '.join(wrong)}; there are {', '.join(known)}")
    result = (_in_turns if args.device == "cpu" and args.batch_size != LARGEST else _one_by_one)(args, sides=sides)
    print(json.dumps(result)) if args.json else _print(result)
    return 0


def _in_turns(args: argparse.Namespace, *, sides: list[str]) -> dict[str, Any]:
    """Start every side, let them take turns, and put their times beside each other."""
    workers, ready = {}, {}
    for side in sides:
        workers[side] = _start(args, side=side, batch_size=int(args.batch_size))
        ready[side] = json.loads(_line(workers[side], side=side))  # one at a time: compilation is not disturbed
    times: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
    for _ in range(args.rounds):
        for side, worker in workers.items():
            times[side].append(_timed(worker, side=side))
    for worker in workers.values():
        _end(worker)
    return _result(args, ready=ready, times=times)


def _one_by_one(args: argparse.Namespace, *, sides: list[str]) -> dict[str, Any]:
    """Give each side the device to itself; the bare products come last, at the largest batch of the others."""
    ready, times, fits = {}, {}, 0
    for side in sorted(sides, key=lambda side: side.startswith("matmul")):
        sizes = [int(args.batch_size)] if args.batch_size != LARGEST else [2**i for i in range(3, 14)]
        if side.startswith("matmul") and fits:
            sizes = [fits]
        for size in sizes:
            worker = _start(args, side=side, batch_size=size)
            line = worker.stdout.readline() if worker.stdout else ""
            if not line and worker.wait() == OUT_OF_MEMORY and side in ready:
                break
            ready[side] = json.loads(line or _line(worker, side=side))
            times[side] = [_timed(worker, side=side) for _ in range(args.rounds)]
            fits = max(fits, size)
            _end(worker)
    return _result(args, ready=ready, times=times)


def _start(args: argparse.Namespace, *, side: str, batch_size: int) -> subprocess.Popen:
    python = args.torch_python if side.startswith("torch") else sys.executable
    command = [python, __file__, f"--side={side}", f"--batch_size={batch_size}", f"--device={args.device}"]
    command += [f"--model={args.model}", f"--remat={args.remat}"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _timed(worker: subprocess.Popen, *, side: str) -> tuple[float, float]:
    """Let a side do one step; return its wall time and its CPU time in seconds."""
    assert worker.stdin is not None
    worker.stdin.write("step\n")
    worker.stdin.flush()
    wall, cpu = map(float, _line(worker, side=side).split())
    return wall, cpu


def _end(worker: subprocess.Popen) -> None:
    assert worker.stdin is not None
    worker.stdin.close()
    worker.wait()


def _result(
    args: argparse.Namespace, *, ready: dict[str, dict[str, Any]], times: dict[str, list[tuple[float, float]]]
) -> dict[str, Any]:
    wall, cpu = ({side: [pair[i] for pair in pairs] for side, pairs in times.items()} for i in range(2))
    return {
        "model": args.model,
        "device": args.device,
        "frames": FRAMES,
        "cores": len(os.sched_getaffinity(0)),
        "sides": {side: ready[side] | _figures(wall[side], facts=ready[side]) for side in times},
        "ratios": _ratios(wall, ready=ready),
        "cpu_ratios": _ratios(cpu, ready=ready) if args.device == "cpu" else {},
    }


def _line(worker: subprocess.Popen, *, side: str) -> str:
    line = worker.stdout.readline() if worker.stdout else ""
    if not line:
        raise SystemExit(f"the side {side} ended with status {worker.wait()}; its message stands above")
    return line


def _figures(times: list[float], *, facts: dict[str, Any]) -> dict[str, float]:
    median = statistics.median(times)
    figures = {"step_s": median, "step_min_s": min(times), "gflops_per_s": facts["flops"] / median / 1e9}
    return figures | {"clips_per_s": facts["batch_size"] / median}


def _ratios(times: dict[str, list[float]], *, ready: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Median over rounds of how many times faster in clips, and which share of the matmul rate in FLOPs."""

    def ratio(ours: str, theirs: str, *, unit: str) -> float:
        done, wanted = ready[ours][unit], ready[theirs][unit]
        return statistics.median(done / a * b / wanted for a, b in zip(times[ours], times[theirs], strict=True))

    found = {
        f"{ours} / {theirs}": ratio(ours, theirs, unit="batch_size")
        for ours in times
        for theirs in times
        if ours.startswith("twinreel") and theirs.startswith("torch")
    }
    for side in times:
        bare = f"matmul-{side.split('-')[1]}"
        if bare in times and not side.startswith("matmul"):
            found[f"{side} / {bare}"] = ratio(side, bare, unit="flops")
    return found


def _print(result: dict[str, Any]) -> None:
    cores = f", {result['cores']} cores" if result["device"] == "cpu" else ""
    print(f"{result['model']} on {result['frames']} frames, {result['device']}{cores}")
    head = ("clips", "step, median", "least", "GFLOP/step", "GFLOP/s", "parameters")
    print(f"{'side':24} {head[0]:>5} {head[1]:>12} {head[2]:>9} {head[3]:>11} {head[4]:>9} {head[5]:>13}")
    for side, row in result["sides"].items():
        print(
            f"{side:24} {row['batch_size']:5} {row['step_s']:10.3f} s {row['step_min_s']:7.3f} s "
            f"{row['flops'] / 1e9:11,.0f} {row['gflops_per_s']:9,.0f} {row.get('parameters', 0):13,}"
        )
    print("\ntimes as fast in clips/s (against torch), share of the FLOP rate (against matmul); medians over rounds:")
    print(f"{'':48} {'wall':>6}" + (f" {'CPU':>6}" if result["cpu_ratios"] else ""))
    for name, value in result["ratios"].items():
        cpu = f" {result['cpu_ratios'][name]:6.2f}" if result["cpu_ratios"] else ""
        print(f"{name:48} {value:6.2f}{cpu}")


def _serve(args: argparse.Namespace) -> int:
    """Be one side: say what it is made of, then time a step for every line that comes in."""
    kind, dtype = args.side.split("-")
    if not kind.startswith("torch"):
        os.environ["JAX_PLATFORMS"] = "cuda" if args.device == "gpu" else "cpu"
        os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.95")  # torch, too, may take nearly all of a GPU
    make = {"torch": _torch, "torch.compile": _torch, "twinreel": _twinreel, "matmul": _matmul}[kind]
    try:
        step, facts = make(dtype, model=MODELS[args.model], batch_size=int(args.batch_size), args=args)
        for _ in range(2):
            step()
    except Exception as error:
        if "out of memory" in str(error).lower() or "RESOURCE_EXHAUSTED" in str(error):
            return OUT_OF_MEMORY
        raise
    print(json.dumps(facts | {"batch_size": int(args.batch_size)}), flush=True)
    for _ in sys.stdin:
        begin = time.perf_counter()
        begin_cpu = time.process_time()
        step()
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


def _torch(
    dtype: str, *, model: Model, batch_size: int, args: argparse.Namespace
) -> tuple[Callable[[], Any], dict[str, Any]]:
    import torch  # pyright: ignore[reportMissingImports]
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
    config = transformers.CLIPConfig(
        vision_config=sizes["vision"] | {"image_size": PIXELS, "patch_size": model.patch},
        text_config=sizes["text"] | {"vocab_size": VOCAB, "max_position_embeddings": LENGTH, "eos_token_id": VOCAB - 1},
        projection_dim=model.embed,
    )
    device = "cuda" if args.device == "gpu" else "cpu"
    clip = transformers.CLIPModel(config).train().to(device)
    optimizer = torch.optim.AdamW(
        clip.parameters(),
        lr=ADAMW["lr"],
        betas=(ADAMW["b1"], ADAMW["b2"]),
        eps=ADAMW["eps"],
        weight_decay=0.2,
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

    return step, {
        "what": f"torch {torch.__version__}, transformers {transformers.__version__}",
        "parameters": sum(p.numel() for p in clip.parameters()),
        "flops": step_flops(model, batch_size=batch_size, places=model.places + 1),  # the class token
    }


def _twinreel(
    dtype: str, *, model: Model, batch_size: int, args: argparse.Namespace
) -> tuple[Callable[[], Any], dict[str, Any]]:
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
        model={"embed_dim": model.embed, "unroll": 0, "remat": args.remat, "video": video, "text": model.text | same},
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
        compiled = compile_step(batch, objective=objective, optimizer=optimizer, blueprint=blueprint)
        state = blueprint.init()

    def step() -> float:
        nonlocal state
        state, outputs = compiled(state, batch, go_on)
        return float(outputs["metrics"]["loss"])

    return step, {
        "what": f"twinreel, jax {jax.__version__}",
        "parameters": sum(value.size for value in state.params.values()),
        "flops": step_flops(model, batch_size=batch_size, places=model.places),
    }


def _matmul(
    dtype: str, *, model: Model, batch_size: int, args: argparse.Namespace
) -> tuple[Callable[[], Any], dict[str, Any]]:
    """Bare products on the dense layers' shapes: x W, dy W^T and x^T dy of each kind of layer, as `jnp` writes them.

    Operands are of the dtype, results of float32 (the faster of jax's two ways in bfloat16).
    """
    import jax
    import jax.numpy as jnp

    layers = set(dense_layers(model, batch_size=batch_size, places=model.places))
    with jax.numpy_dtype_promotion("standard"):
        draws = {
            shape: [
                jax.random.normal(jax.random.key(i), sides, jnp.float32).astype(dtype)
                for i, sides in enumerate((shape[:2], shape[1:], (shape[0], shape[2])))
            ]
            for shape in layers
        }

    def product(contract: tuple[int, int]):
        def run(a, b):
            return jax.lax.dot_general(
                a, b, (((contract[0],), (contract[1],)), ((), ())), preferred_element_type=jnp.float32
            )

        return jax.jit(run)

    forward, to_input, to_weight = product((1, 0)), product((1, 1)), product((0, 0))

    def step() -> None:
        for x, w, dy in draws.values():
            jax.block_until_ready((forward(x, w), to_input(dy, w), to_weight(x, dy)))

    return step, {"what": f"jax {jax.__version__}", "flops": float(sum(6 * a * b * c for a, b, c in layers))}


if __name__ == "__main__":
    sys.exit(main())
