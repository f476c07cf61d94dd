"""PyTorch's side of `twinreel bench compare_input`: a DataLoader that decodes the videos of a manifest.

The file imports nothing of twinreel: another Python, which has torch and not twinreel, runs it by its path. It prints
one line of JSON: `what` was measured, and `clips_per_s`.
"""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

DECODERS = ("auto", "decord", "pyav")


@dataclasses.dataclass(frozen=True, kw_only=True)
class InputOptions:
    """What a side is asked to measure.

    Attributes:
      manifest: a JSONL file whose lines have `path`, relative to it.
      prepared: folder that `twinreel prepare` made of it.
      num_frames: frames T of a clip.
      crop: pixels of the square.
      short_side: pixels of the shorter side before the crop.
      batch_size: clips of a batch.
      workers: processes of the loader, threads of twinreel.
      seconds: length of the measurement.
      decoder: of the loader, one of DECODERS; "auto" = decord where it is installed, else PyAV.
    """

    manifest: str
    prepared: str = ""
    num_frames: int = 8
    crop: int = 224
    short_side: int = 256
    batch_size: int = 32
    workers: int = 2
    seconds: float = 20.0
    decoder: str = "auto"

    def flags(self) -> list[str]:
        """Return the command-line flags that `parse` reads."""
        return [f"--{name}={value}" for name, value in dataclasses.asdict(self).items()]

    @classmethod
    def parse(cls, argv: Sequence[str]) -> "InputOptions":
        """Read the flags of `flags`."""
        parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
        for field in dataclasses.fields(cls):
            required = field.default is dataclasses.MISSING
            default = None if required else field.default
            parser.add_argument(f"--{field.name}", type=field.type, required=required, default=default)
        return cls(**vars(parser.parse_args(argv)))


def main() -> int:
    """Run torch's side."""
    here = Path(__file__).resolve().parent
    sys.path[:] = [path for path in sys.path if Path(path).resolve() != here]  # `import data` must not find ours
    print(json.dumps(torch_rate(InputOptions.parse(sys.argv[1:]))))
    return 0


def torch_rate(options: InputOptions) -> dict[str, Any]:
    """Measure the DataLoader: random clips, decoded, resized and cropped by its workers."""
    import torch  # pyright: ignore[reportMissingImports]

    paths, decode, name = _files(Path(options.manifest)), *_decoder(options.decoder)

    class Clips(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 1 << 40

        def __getitem__(self, index: int) -> torch.Tensor:
            order = torch.Generator().manual_seed(index)
            path = paths[int(torch.randint(len(paths), (), generator=order))]
            frames = torch.from_numpy(decode(path, options.num_frames)).permute(0, 3, 1, 2)
            height, width = frames.shape[2:]
            scale = options.short_side / min(height, width)
            if scale != 1:
                size = [max(options.short_side, round(side * scale)) for side in (height, width)]
                frames = torch.nn.functional.interpolate(frames, size=size, mode="bilinear", antialias=True)
            y, x = (int(torch.randint(side - options.crop + 1, (), generator=order)) for side in frames.shape[2:])
            return frames[:, :, y : y + options.crop, x : x + options.crop].contiguous()

    loader = torch.utils.data.DataLoader(
        Clips(), batch_size=options.batch_size, sampler=range(1 << 40), num_workers=options.workers
    )
    found = rate(iter(loader), count=len, seconds=options.seconds)
    return {"what": f"torch DataLoader, {name}", "clips_per_s": found}


def _decoder(wanted: str) -> tuple[Callable[[str, int], Any], str]:
    """Return a function (path, T) -> uint8 [T,H,W,3], and the name of the library that decodes."""
    if wanted in ("auto", "decord"):
        try:
            import decord  # pyright: ignore[reportMissingImports]
        except ImportError:
            if wanted == "decord":
                raise
        else:

            def by_decord(path: str, count: int):
                reader = decord.VideoReader(path, num_threads=1)
                places = [(2 * i + 1) * len(reader) // (2 * count) for i in range(count)]
                return reader.get_batch(places).asnumpy()

            return by_decord, f"decord {decord.__version__}"
    import av
    import numpy as np

    def by_pyav(path: str, count: int):
        with av.open(path) as container:
            stream = container.streams.video[0]
            stream.thread_type = "NONE"
            frames = list(container.decode(stream))
        places = [(2 * i + 1) * len(frames) // (2 * count) for i in range(count)]
        return np.stack([frames[place].to_ndarray(format="rgb24") for place in places])

    return by_pyav, f"PyAV {av.__version__}"


def _files(manifest: Path) -> list[str]:
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [str(manifest.parent / row["path"]) for row in rows]


def rate(batches: Iterator[Any], *, count: Callable[[Any], int], seconds: float) -> float:
    """Return clips per second over `seconds`, after four batches of warm-up; `count` returns the clips of a batch."""
    for _ in range(4):
        next(batches)
    clips, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        clips += count(next(batches))
    return clips / (time.perf_counter() - begin)


if __name__ == "__main__":
    sys.exit(main())
