"""The pass that gives each TIR function its kernel, or the fallback schedule, or leaves it to upstream."""

from __future__ import annotations

from collections.abc import Callable

from tvm.ir import IRModule

import tvm
from tvm import s_tir, tirx

from . import convolution, fallback, matmul, pooling, winograd
from .elementary import name_elementary
from .kernel import Fused, analyse
from .machine import Machine

__all__ = ["KERNELS", "Schedule"]

KERNELS: dict[str, Callable[[Fused, Machine], tirx.PrimFunc]] = {
    "convolution": convolution.kernel,
    "winograd": winograd.kernel,
    "pooling": pooling.kernel,
    "dense": matmul.dense_kernel,
    "batched": matmul.batched_kernel,
}


@tvm.transform.module_pass(opt_level=0, name="ScheduleForCPU")
class Schedule:
    """Schedule the TIR functions of a module for `machine`."""

    def __init__(self, machine: Machine):
        self.machine = machine

    def transform_module(self, module: IRModule, context: tvm.transform.PassContext) -> IRModule:
        """Return `module` with its TIR functions scheduled."""
        for name, func in list(module.functions_items()):
            if not isinstance(func, tirx.PrimFunc):
                continue
            func = name_elementary(func)
            if not func.attrs.get("tirx.is_scheduled", False):
                func = self._scheduled(func)
            module[name] = func
        return module

    def _scheduled(self, func: tirx.PrimFunc) -> tirx.PrimFunc:
        try:
            fused = analyse(func)
            if fused is not None:
                return KERNELS[fused.kernel](fused, self.machine).with_attr("tirx.is_scheduled", True)
            return fallback.schedule(func, self.machine).with_attr("tirx.is_scheduled", True)
        except (s_tir.ScheduleError, tvm.error.InternalError):
            return func
