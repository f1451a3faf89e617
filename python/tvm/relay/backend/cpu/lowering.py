"""From scheduled TIR to machine code: our own TIR pipeline, and the target as LLVM is given it.

Upstream's pipeline is kept but for two things. A `local` buffer, which is a kernel's register tile, stays on
the stack: LowerTVMBuiltin would take it from the heap, and LLVM cannot keep heap memory in registers. And
functions do not check their arguments: they are called from the bytecode compiled with them alone, whose own
checks of the model's inputs stay. That is three quarters of the code, and most of the time that LLVM takes;
the pass option `tirx.disable_assert=0` brings the checks back.
"""

from __future__ import annotations

from tvm.ir import IRModule
from tvm.s_tir.pipeline import default_s_tir_pipeline
from tvm.target import Target
from tvm.tirx.compilation_pipeline import register_tir_pipeline

import tvm
from tvm import tirx

from .elementary import ExpandElementary
from .statements import rewrite_leaves

__all__ = ["PIPELINE", "code_target"]

PIPELINE = "tvm_secret.cpu"

_LARGEST_STACK_BUFFER = 16 << 10


def code_target(target: Target) -> Target:
    """`target` with the code generator's options.

    Sums may be reordered and fused into multiply-adds, but NaN and Inf keep their meaning. LLVM's own loop
    unrolling is off: kernels are unrolled as far as the registers go, and any more of it spills.
    """
    options = {
        "fast-math-reassoc": True,
        "fast-math-contract": True,
        "fast-math-nsz": True,
        "cl-opt": ["-unroll-threshold-aggressive:uint=0", "-unroll-threshold-default:uint=0"],
    }
    return Target({**target.export(), **options})


def _keep_on_stack(stmt: tirx.Stmt) -> tirx.Stmt:
    if isinstance(stmt, tirx.AllocBuffer) and stmt.buffer.scope() == "local" and _is_small(stmt.buffer):
        annotations = {**stmt.annotations, "disable_lower_builtin": tirx.IntImm("int32", 1)}
        return tirx.AllocBuffer(stmt.buffer, annotations)
    return stmt


def _is_small(buffer: tirx.Buffer) -> bool:
    size = 1
    for extent in buffer.shape:
        if not isinstance(extent, tirx.IntImm):
            return False
        size *= int(extent)
    return size * tvm.DataType(str(buffer.dtype)).itemsize <= _LARGEST_STACK_BUFFER


@tvm.transform.module_pass(opt_level=0, name="KeepLocalBuffersOnStack")
class _KeepLocalBuffersOnStack:
    def transform_module(self, module: IRModule, context: tvm.transform.PassContext) -> IRModule:
        for name, func in list(module.functions_items()):
            if isinstance(func, tirx.PrimFunc):
                module[name] = func.with_body(rewrite_leaves(func.body, _keep_on_stack))
        return module


def _pipeline():
    lower, finalize_host, finalize_device = default_s_tir_pipeline()

    def finalize():
        passes = [ExpandElementary(), _KeepLocalBuffersOnStack(), finalize_host()]
        if tvm.transform.PassContext.current().config.get("tirx.disable_assert", True):
            passes.append(tirx.transform.SkipAssert())
        return tvm.transform.Sequential(passes)

    return lower, finalize, finalize_device


register_tir_pipeline(PIPELINE, _pipeline)
