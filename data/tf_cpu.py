"""Imports tensorflow for input pipelines: on the CPU only (the accelerator is JAX's), without Keras or a log."""

import contextlib
import ctypes
import functools
import importlib.util
import os
import sys
from collections.abc import Iterator

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # no part of this uses it, and it prints a note


@contextlib.contextmanager
def _without_keras() -> Iterator[None]:
    """Keep `import tensorflow` from importing Keras, with Matplotlib and SciPy: a third of its time.

    A variable asks tensorflow for `tf_keras` in place of Keras 3; where that is not installed, it imports neither.
    `tf.keras` still works, as it is loaded on first use.
    """
    name = "TF_USE_LEGACY_KERAS"
    if name in os.environ or importlib.util.find_spec("tf_keras"):
        yield
        return
    os.environ[name] = "1"
    try:
        yield
    finally:
        del os.environ[name]


with _without_keras():
    import tensorflow as tf

with contextlib.suppress(RuntimeError):  # raised where tensorflow was used before: its devices are settled already
    tf.config.set_visible_devices([], "GPU")
    tf.config.set_visible_devices([], "TPU")

__all__ = ["keep_freed_memory", "tf"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's <malloc.h>
_KEPT = 2**30  # bytes


@functools.cache
def keep_freed_memory() -> None:
    """Have glibc keep freed blocks of up to 1 GiB for the next batch, instead of handing their pages back.

    A batch of 40 MB in fresh pages costs 10,000 page faults: without this they take 30 % of the pipeline's time. It
    holds for the whole process, whose memory then stays near its peak. Other C libraries are left alone.
    """
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_THRESHOLD, _KEPT)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT)
