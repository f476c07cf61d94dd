"""XLA_FLAGS of a process with a number of fake CPU devices."""

import os


def xla_flags(devices):
    """The flags of this process (conftest.py) with another number of devices.

    >>> os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8 --xla_cpu_use_fusion_emitters=false"
    >>> xla_flags(2)
    '--xla_cpu_use_fusion_emitters=false --xla_force_host_platform_device_count=2'
    """
    count = "--xla_force_host_platform_device_count"
    others = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if not flag.startswith(count)]
    return " ".join([*others, f"{count}={devices}"])
