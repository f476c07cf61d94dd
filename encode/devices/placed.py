"""A model on the devices of a mesh: what all that apply a loaded model to rows have in common."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh

from ...base.errors import UserError
from ...data.options import InputSpec
from ...engine.sharding.mesh import make_mesh
from ...zoo.spec import ModelSpec
from .rows import Rows, apply_to_rows, placed_on, rounded_up


class PlacedModel:
    """A model with its spec, on the devices that compute.

    Rows are split over the devices of the mesh. In a run of several processes all of them must make the same calls.

    Attributes:
      spec: what the model is; `spec.input` says how its input is made.
      mesh: the devices that compute.
      source: where the model was loaded from, for protocols; "" of one in memory.
      meta: of the checkpoint that it comes from; {} of a bundle.
    """

    def __init__(
        self,
        *,
        spec: ModelSpec,
        model: nnx.Module,
        mesh: Mesh | None = None,
        source: str = "",
        meta: Mapping[str, Any] | None = None,
    ):
        """Put a model on the devices.

        Args:
          spec: what it is; has the head or the tower that the class is made for.
          model: parameters that lie on `mesh` already stay where they are.
          mesh: None = all devices, each with all parameters.
          source: where it comes from.
          meta: of its checkpoint.

        Raises:
          UserError: a model that the class is not made for.
        """
        self.spec, self.source, self.meta = spec, source, dict(meta or {})
        self.mesh = mesh or make_mesh()
        self.model = model
        self._read_spec()

    def _read_spec(self) -> None:
        """Set what follows from `spec`, `source` and `meta`, at the end of construction; for subclasses."""

    @property
    def input(self) -> InputSpec:
        """How the model's input is made."""
        return self.spec.input

    @property
    def model(self) -> Any:
        """The module; set it to compute with other parameters of the same shape (nothing is compiled again)."""
        return nnx.merge(self._graph, self._state)

    @model.setter
    def model(self, model: nnx.Module) -> None:
        self._graph, state = nnx.split(model)
        self._state = placed_on(self.mesh, state)

    def crop_faces(self, detector: str | Path) -> None:
        """Cut faces out of files that are decoded from now on, as `twinreel prepare --crop_faces` does.

        Args:
          detector: ONNX file of OpenCV's face detector YuNet.

        Raises:
          UserError: the model was trained on whole frames, there is no such file, or it is no face detector.
        """
        from ...data.media.faces import FaceDetector  # OpenCV is loaded by those who look for faces

        given = self.spec.input
        if "crop_faces" not in given.decode:
            raise UserError(
                f"crop_faces={str(detector)!r}: the model {self.source} was trained on whole frames; leave it out, or "
                "train on records of `twinreel prepare --crop_faces`"
            )
        FaceDetector(detector)
        decode = {**given.decode, "crop_faces": str(detector)}
        self.spec = self.spec.replace(input=dataclasses.replace(given, decode=decode))

    def apply_local(
        self,
        rows: Rows,
        *,
        function: Callable[[Any, dict[str, jax.Array]], dict[str, jax.Array]],
        shared: Rows | None = None,
    ) -> Rows:
        """Call a function of the model and of rows of which each process gives its own; see `rows.apply_to_rows`."""
        return apply_to_rows(self._graph, self._state, rows, function=function, mesh=self.mesh, shared=shared)

    def global_batch(self, batch_size: int, *, total: int) -> int:
        """Return the rows of a global batch: `batch_size`, or `total` if less; rounded up to share them evenly.

        Raises:
          UserError: `batch_size` is less than 1.
        """
        if batch_size < 1:
            raise UserError(f"batch_size={batch_size} must be at least 1")
        return rounded_up(min(batch_size, max(total, 1)), mesh=self.mesh)
