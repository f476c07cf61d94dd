"""Imports tensorflow for input pipelines: on the CPU only (the accelerator is JAX's) and without its start-up log."""

import contextlib
import ctypes
import functools
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # no part of this uses it, and it prints a note

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
