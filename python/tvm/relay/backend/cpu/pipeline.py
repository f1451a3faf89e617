"""The pipeline: from a Relax module and its weights to an executable and packed weights."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from tvm.ir import IRModule
from tvm.relax.backend.cpu_generic import pipeline as upstream
from tvm.target import Target

import tvm
from tvm import relax

from .folding import Fold
from .lowering import PIPELINE, code_target
from .machine import Machine, machine_of, resolve
from .packing import Pack
from .scheduling import Schedule
from .weights import lift_constants
from .widening import Widen

__all__ = ["Compiled", "compile"]


@dataclass
class Compiled:
    """What `compile` makes of a model.

    `executable`: its function "main" takes the model's inputs and then one argument for each entry of
    `weights`, in that order. `features`: the CPU flags that the code needs, as Linux's /proc/cpuinfo names
    them.
    """

    executable: relax.VMExecutable
    weights: dict[str, np.ndarray]
    features: list[str]


def compile(
    module: IRModule,
    params: dict[str, np.ndarray],
    target: Target,
    *,
    exact: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Compiled:
    """Compile `module["main"]` for the CPU that `target` names.

    The function takes the model's inputs and then one argument for each entry of `params`, in that order;
    their memory must last as long as the result is used. `exact` keeps to algorithms whose rounding is that
    of a plain sum (no Winograd). `progress` is told the name of each stage.
    """
    report = progress or (lambda stage: None)
    target = resolve(target)
    machine = machine_of(target)
    with target:
        # Importers group bindings as they please, or not at all; fusion works within dataflow blocks.
        regroup = [relax.transform.ToNonDataflow(), relax.transform.ConvertToDataflow(1)]
        module = tvm.transform.Sequential(regroup)(_bind(module, params))
    pack = [Widen(), Pack(machine, exact), relax.transform.DeadCodeElimination()]
    # A slow model is better than none: where a pass fails, packing is left out, and then all of ours.
    for passes in (_optimise(machine, pack), _optimise(machine, []), upstream.legalize_passes(target)):
        try:
            executable, weights = _generated(module, passes, target, report)
        except Exception as error:
            failure = error
            warnings.warn(f"a CPU pass failed ({type(error).__name__}): the model will be slow", stacklevel=2)
        else:
            return Compiled(executable, weights, list(machine.features))
    raise failure


def _generated(
    module: IRModule, passes: list, target: Target, report: Callable[[str], None]
) -> tuple[relax.VMExecutable, dict[str, np.ndarray]]:
    """The executable of `module` after `passes`, which leave TIR functions to call, and its weights."""
    report("optimising")
    with target:
        module = tvm.transform.Sequential(upstream.library_dispatch_passes(target) + passes)(module)
        module, weights = lift_constants(module)
    report("generating code")
    executable = tvm.compile(
        module, code_target(target), relax_pipeline=_lower(target), tir_pipeline=PIPELINE
    )
    return executable, weights


def _optimise(machine: Machine, pack: list) -> list:
    """Fold, `pack`, fuse and schedule."""
    passes = relax.transform
    return [
        passes.CanonicalizeBindings(),
        Fold(),
        passes.DeadCodeElimination(),
        passes.DecomposeOpsForInference(),
        passes.CanonicalizeBindings(),
        Fold(),
        passes.DeadCodeElimination(),
        *pack,
        passes.LegalizeOps(),
        passes.AnnotateTIROpPattern(),
        passes.FoldConstant(),
        passes.FuseOps(),
        passes.FuseTIR(),
        passes.DeadCodeElimination(),
        Schedule(machine),
    ]


def _bind(module: IRModule, params: dict[str, np.ndarray]) -> IRModule:
    """Make the weights constants of "main"."""
    main = module["main"]
    variables = main.params[len(main.params) - len(params) :] if params else []
    values = {var: relax.const(_tensor(array)) for var, array in zip(variables, params.values(), strict=True)}
    return IRModule(
        {**dict(module.functions_items()), module.get_global_var("main"): main.bind_params(values)},
        attrs=module.attrs,
    )


def _tensor(array: np.ndarray) -> tvm.runtime.Tensor:
    """`array` as a tensor: where it lies, if TVM can use it there."""
    if array.flags.c_contiguous:
        with contextlib.suppress(RuntimeError, BufferError, TypeError):  # unaligned, or of a type of its own
            return tvm.runtime.from_dlpack(array)
    return tvm.runtime.tensor(array)


def _lower(target: Target) -> tvm.transform.Pass:
    return tvm.transform.Sequential(upstream.dataflow_lower_passes(target) + upstream.finalize_passes(target))
