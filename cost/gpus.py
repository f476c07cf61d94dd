"""What NVIDIA's data sheets say of GPUs in hosts of eight, and how to describe one to a compiler that has none."""

import dataclasses
import os

from ..base.errors import UserError
from .chips import Chip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gpu(Chip):
    """One GPU of a host of eight, which NVLink joins; hosts are joined by a network with one adapter for each GPU.

    Attributes:
      nvlink: bytes/s to the other GPUs of the host, each way.
      capability: CUDA compute capability, (major, minor).
      cores: streaming multiprocessors.
      l2_bytes: second-level cache.
      shared_bytes: shared memory of a streaming multiprocessor.
      clock_ghz: boost clock.
    """

    nvlink: float
    capability: tuple[int, int]
    cores: int
    l2_bytes: int
    shared_bytes: int
    clock_ghz: float

    @property
    def usable_bytes(self) -> int:
        """Bytes of the memory that jax's allocator takes: `XLA_PYTHON_CLIENT_MEM_FRACTION`, by default 0.75 of it.

        Raises:
          UserError: the variable is no share.
        """
        share = os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.75")
        try:
            found = float(share)
        except ValueError:
            found = 0.0
        if not 0 < found <= 1:
            raise UserError(
                f"XLA_PYTHON_CLIENT_MEM_FRACTION={share!r} must be a share above 0 and up to 1, such as 0.9"
            )
        return int(self.hbm_bytes * found)

    def target(self) -> str:
        """Return the description that XLA's GPU compiler takes in place of a device: a GpuTargetConfigProto as text.

        A block may use all of a multiprocessor's shared memory but 1 KiB, if it asks for it, and 48 KiB otherwise;
        limits of threads and registers are those of compute capabilities 8.0 to 10.0 (CUDA C++ Programming Guide,
        technical specifications per compute capability).
        """
        major, minor = self.capability
        return f"""
            gpu_device_info {{
              threads_per_block_limit: 1024
              threads_per_warp: 32
              threads_per_core_limit: 2048
              block_dim_limit_x: 2147483647
              block_dim_limit_y: 65535
              block_dim_limit_z: 65535
              registers_per_core_limit: 65536
              registers_per_block_limit: 65536
              fpus_per_core: {64 if self.capability < (9, 0) else 128}
              shared_memory_per_block: 49152
              shared_memory_per_block_optin: {self.shared_bytes - 1024}
              shared_memory_per_core: {self.shared_bytes}
              core_count: {self.cores}
              l2_cache_size: {self.l2_bytes}
              clock_rate_ghz: {self.clock_ghz}
              memory_bandwidth: {int(self.hbm_bandwidth)}
              device_memory_size: {int(self.hbm_bytes)}
              cuda_compute_capability {{ major: {major} minor: {minor} }}
            }}
            platform_name: "CUDA"
            dnn_version_info {{ major: 9 minor: 8 }}
            runtime_version {{ major: 12 minor: 9 }}
            device_description_str: "{self.kind}"
        """


# Sources: NVIDIA's data sheets of A100 80GB SXM, H100 SXM, H200 SXM and HGX B200 (NVLink's figure there counts both
# ways: 600, 900, 900 and 1,800 GB/s); the architecture white papers for multiprocessors and caches. Memory is what
# the driver reports. The network is that of a DGX: eight adapters of 200 Gbit/s (A100) or 400 Gbit/s.
GPUS: dict[str, Gpu] = {
    gpu.name: gpu
    for gpu in (
        Gpu(name="a100", kind="NVIDIA A100-SXM4-80GB", hbm_bytes=85.1e9, hbm_bandwidth=2039e9, peak_flops=312e12,
            host_chips=8, dcn_host=8 * 25e9, nvlink=300e9, capability=(8, 0), cores=108, l2_bytes=40 * 2**20,
            shared_bytes=164 * 2**10, clock_ghz=1.41),
        Gpu(name="h100", kind="NVIDIA H100 80GB HBM3", hbm_bytes=85.0e9, hbm_bandwidth=3350e9, peak_flops=989e12,
            host_chips=8, dcn_host=8 * 50e9, nvlink=450e9, capability=(9, 0), cores=132, l2_bytes=50 * 2**20,
            shared_bytes=228 * 2**10, clock_ghz=1.98),
        Gpu(name="h200", kind="NVIDIA H200", hbm_bytes=150.1e9, hbm_bandwidth=4800e9, peak_flops=989e12,
            host_chips=8, dcn_host=8 * 50e9, nvlink=450e9, capability=(9, 0), cores=132, l2_bytes=50 * 2**20,
            shared_bytes=228 * 2**10, clock_ghz=1.98),
        Gpu(name="b200", kind="NVIDIA B200", hbm_bytes=192.2e9, hbm_bandwidth=8000e9, peak_flops=2250e12,
            host_chips=8, dcn_host=8 * 50e9, nvlink=900e9, capability=(10, 0), cores=148, l2_bytes=126 * 2**20,
            shared_bytes=228 * 2**10, clock_ghz=1.97),
    )
}  # fmt: skip
