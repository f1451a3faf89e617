"""Open, import, seal: the one door between sealed bytes and the importers.

A format's file holds a plain function that turns model bytes into a module and its weights and knows no
cryptography, and the public `from_*` that hands that function to `sealed_import`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tvm.ir import IRModule

from tvm_secret.errors import MissingExtraError, ModelError

__all__ = ["Imported", "ModelError", "Shapes", "require", "sealed_import"]

Shapes = Mapping[str, "tuple[int | str, ...]"]
"""Input name -> shape; a string dimension is symbolic (a dynamic batch, say)."""


@dataclass
class Imported:
    """A model as the compiler takes it.

    `module["main"]` takes the model's inputs first and then one argument for each entry of `params`, in
    the order of that mapping; its attribute `num_input` counts the inputs. Input variables carry the
    model's own input names.
    """

    module: IRModule
    params: dict[str, np.ndarray] = field(default_factory=dict)
    output_names: list[str] = field(default_factory=list)


def require(package: str, extra: str) -> Any:
    """Import and return `package`, or raise `MissingExtraError` naming the extra that brings it."""
    import importlib

    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != package.partition(".")[0]:
            raise
        raise MissingExtraError(
            f"reading this model needs the package '{package}': pip install 'tvm-secret[{extra}]'"
        ) from None


def sealed_import(
    content_type: str,
    model: Any,
    shape: Any,
    convert: Callable[[bytes, Shapes | None], Imported],
) -> tuple[bytes, bytes]:
    """Open `model` and `shape`, run `convert` on the plain bytes, seal the module and the weights."""
    raise ModelError("not built yet")
