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

import tvm
from tvm_secret import envelope, extras, tensors
from tvm_secret.errors import ModelError, SecretError
from tvm_secret.policy import inherited
from tvm_secret.suites import DEFAULT_SUITE

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
    return extras.require(package, extra, "reading this model")


def sealed_import(
    content_type: str,
    model: Any,
    shape: Any,
    convert: Callable[[bytes, Shapes | None], Imported],
) -> tuple[bytes, bytes]:
    """Open `model` and `shape`, run `convert` on the plain bytes, seal the module and the weights.

    Both results are sealed to this process's own identity, for `relay.build` to open, and carry one bundle
    id, so that the weights of one model are not compiled into another. The suite is that of `model`.

    Args:
        content_type: what `model` has to hold.
        model: sealed bytes, or the path of a sealed file.
        shape: sealed JSON `{input: [dimension, ...]}`, its path, or None.
        convert: the format's importer.

    Raises:
        SecretError: whatever opening raises; `ModelError` for whatever the importer cannot read.
    """
    shapes = None if shape is None else _shapes(envelope.unseal_json(shape, content_type="input-shapes"))
    secret, header = envelope.open_value(model, content_type=content_type)
    with secret:
        plain = bytes(secret)
    try:
        imported = convert(plain, shapes)
    except SecretError:
        raise
    except Exception as error:
        # A framework's message may quote what it read, weights included; its first line and kind do not.
        raise ModelError(f"{content_type} cannot be read: {_first_line(error)}") from None
    del plain
    main = imported.module["main"].with_attr("output_names", list(imported.output_names))
    imported.module["main"] = main
    module = str(tvm.ir.save_json(imported.module)).encode()
    session = envelope.Session.to_self(
        bundle=True,
        policy=inherited(header.policy if header else {}),
        suite=header.suite.name if header else DEFAULT_SUITE,
    )
    size, pieces = tensors.pieces(imported.params)
    return (
        session.seal(module, content_type="ir-module"),
        session.seal_pieces(pieces, size, content_type="params"),
    )


def _shapes(value: Any) -> Shapes:
    """Check the opened `input-shapes`: names to lists of positive sizes or names of symbolic dimensions."""
    well_formed = isinstance(value, dict) and all(
        isinstance(dimensions, list)
        and all(
            (isinstance(size, int) and not isinstance(size, bool) and size >= 0)
            or (isinstance(size, str) and size)
            for size in dimensions
        )
        for dimensions in value.values()
    )
    if not well_formed:
        raise ModelError('input shapes are JSON such as {"data": [1, 3, 224, 224]}, sealed with seal_json')
    return {name: tuple(dimensions) for name, dimensions in value.items()}


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:200]}" if text else type(error).__name__
