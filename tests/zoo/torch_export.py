"""PyTorch modules as the bytes of each format that PyTorch writes."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence

import torch


def torchscript_bytes(model: torch.nn.Module, inputs: Sequence[torch.Tensor], script: bool = False) -> bytes:
    """A TorchScript archive, traced or scripted."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.jit.script(model) if script else torch.jit.trace(model, tuple(inputs))
        torch.jit.save(module, file)
    return file.getvalue()


def pt2_bytes(model: torch.nn.Module, inputs: Sequence[torch.Tensor], dynamic_batch: bool = False) -> bytes:
    """A PT2 archive; all inputs share the dynamic batch."""
    batch = torch.export.Dim("batch", min=1, max=1024)
    dynamic = tuple({0: batch} for _ in inputs) if dynamic_batch else None
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(model, tuple(inputs), dynamic_shapes=dynamic), file)
    return file.getvalue()


def onnx_bytes(
    model: torch.nn.Module,
    inputs: Sequence[torch.Tensor],
    input_names: Sequence[str],
    output_names: Sequence[str],
    dynamic_axes: Mapping[str, Mapping[int, str]] | None = None,
) -> bytes:
    """An ONNX model, by the exporter that writes to memory."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            tuple(inputs),
            file,
            input_names=list(input_names),
            output_names=list(output_names),
            dynamic_axes=dynamic_axes,
            dynamo=False,
        )
    return file.getvalue()
