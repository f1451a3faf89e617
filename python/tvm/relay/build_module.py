"""`relay.build`: open a sealed module and its weights, compile them for a CPU, seal the artefact.

Nothing touches the disk: object code leaves LLVM through an anonymous memory file, and no linker runs.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tvm.ir import IRModule
from tvm_ffi.serialization import from_json_graph_str

import tvm
from tvm import relax
from tvm_secret import envelope, retired, tensors
from tvm_secret.artefact import Interface, TensorInfo, seal_artefact
from tvm_secret.errors import AuthenticationError, ModelError, SecretError
from tvm_secret.files import atomic_writer
from tvm_secret.policy import inherited
from tvm_secret.recipients import Recipient
from tvm_secret.suites import DEFAULT_SUITE

from .backend.cpu import pipeline
from .backend.cpu.machine import parse_target

__all__ = ["DUMP_FORMATS", "build"]

DUMP_FORMATS = ("relax", "ll", "asm")
"""The module as imported, LLVM's intermediate code, and assembly."""


def build(
    ir_mod: bytes | str | Path,
    target: str | Mapping[str, Any] | tvm.target.Target = "llvm",
    target_host: Any = None,
    executor: Any = None,
    runtime: Any = None,
    workspace_memory_pools: Any = None,
    constant_memory_pools: Any = None,
    params: bytes | str | Path | None = None,
    mod_name: str = "default",
    *,
    exact: bool = False,
    recipients: Iterable[str | Path | Recipient] | None = None,
    suite: str = DEFAULT_SUITE,
    policy: Mapping[str, str] | None = None,
    progress: Callable[[str], None] | None = None,
    dump_code: Sequence[str] = (),
    allow_plaintext_dump: str | Path | None = None,
) -> list[bytes]:
    """Compile a sealed module with its sealed weights to a sealed artefact.

    Args:
        ir_mod, params: what an importer returned (bytes, or paths of sealed files).
        target: an LLVM target: "llvm" for this machine's CPU, "llvm -mcpu=x86-64-v3", or a mapping.
        target_host, executor, runtime, workspace_memory_pools, constant_memory_pools: what they chose no
            longer exists; refused unless None.
        mod_name: accepted for upstream's sake; an artefact holds one module.
        exact: keep to transformations that do not change rounding beyond the order of sums (no Winograd).
        recipients: who may open the artefact; default, the context's.
        suite: the cipher of the artefact's payloads.
        policy: conditions for opening it, beside those inherited from the model.
        progress: called with the name of each stage as it starts.
        dump_code: of `DUMP_FORMATS`, what to write in clear to the file `allow_plaintext_dump`, which is for
            its owner alone to read; refused where no file is named.

    Returns:
        The three sealed members, in the order of `tvm_secret.artefact.MEMBERS`.

    Raises:
        SecretError: the parts do not open or do not belong together, or the target is unknown.

    Examples:
        >>> from tvm import relay
        >>> mod, params = relay.frontend.from_onnx("model.onnx.sealed")
        >>> artefact = relay.build(mod, target="llvm", params=params)
        >>> [part[1:5] for part in artefact]
        [b'TVMS', b'TVMS', b'TVMS']
    """
    gone = {
        "target_host": target_host,
        "executor": executor,
        "runtime": runtime,
        "workspace_memory_pools": workspace_memory_pools,
        "constant_memory_pools": constant_memory_pools,
    }
    for name, value in gone.items():
        if value is not None:
            raise SecretError(f"relay.build: {name} chose between parts of Relay that no longer exist")
    _check_dump(dump_code, allow_plaintext_dump)
    report = progress or (lambda stage: None)

    report("opening")
    chosen = _target(target)
    with _opened(ir_mod, params) as (module, weights, inherited_policy):
        main = module["main"]
        inputs = [_tensor_info(p.name, p.ty) for p in main.params[: int(main.attrs["num_input"])]]
        outputs = _outputs(main)
        compiled = pipeline.compile(module, weights, chosen, exact=exact, progress=report)
        if allow_plaintext_dump is not None:
            _dump(module, compiled.executable, dump_code, allow_plaintext_dump)
        interface = Interface(
            inputs=inputs,
            outputs=outputs,
            objects=[],
            target=_describe(chosen),
            features=compiled.features,
            versions={"tvm": tvm.__version__, "python": platform.python_version(), "numpy": np.__version__},
        )
        objects = _objects(compiled.executable)
        report("sealing")
        return seal_artefact(
            objects,
            interface,
            compiled.weights,
            recipients=recipients,
            suite=suite,
            policy={**inherited_policy, **(policy or {})},
        )


def _target(target: str | Mapping[str, Any] | tvm.target.Target) -> tvm.target.Target:
    if isinstance(target, tvm.target.Target):
        return target
    return parse_target(target if isinstance(target, str) else json.dumps(dict(target)))


def _describe(target: tvm.target.Target) -> str:
    """The target in upstream's command-line form, as people write it."""
    shown = {
        name: value for name, value in dict(target.attrs).items() if name in ("mcpu", "mtriple", "mattr")
    }
    return " ".join([target.kind.name, *(f"-{name}={value}" for name, value in shown.items())])


@contextlib.contextmanager
def _opened(ir_mod: Any, params: Any) -> Iterator[tuple[IRModule, dict[str, np.ndarray], dict[str, str]]]:
    """The plain module, its weights where they were decrypted, and the policy that they hand down."""
    if params is None:
        raise ModelError("relay.build: params is missing; the importers return it beside the module")
    secret, header = envelope.open_value(ir_mod, content_type="ir-module")
    with secret:
        text = bytes(secret).decode()
    secret, params_header = envelope.open_value(params, content_type="params")
    with secret:
        if header is None or params_header is None or not _same_bundle(header, params_header):
            raise AuthenticationError("the module and the params come from different imports")
        # `tvm.ir.load_json` would first bring the text up to this version, in which `sealed_import` wrote it.
        yield from_json_graph_str(text), tensors.load(secret.view), inherited(header.policy)


def _same_bundle(*headers: envelope.Header) -> bool:
    bundles = {header.core.get("bundle") for header in headers}
    return len(bundles) == 1 and None not in bundles


def _outputs(main: relax.Function) -> list[TensorInfo]:
    kind = main.ret_ty
    kinds = list(kind.fields) if isinstance(kind, relax.TupleType) else [kind]
    names = list(main.attrs.get("output_names", ()))
    if len(names) != len(kinds):
        names = [f"output_{index}" for index in range(len(kinds))]
    return [_tensor_info(str(name), kind) for name, kind in zip(names, kinds, strict=True)]


def _tensor_info(name: str, kind: Any) -> TensorInfo:
    shape = [int(size) if isinstance(size, tvm.tirx.IntImm) else str(size) for size in kind.shape or ()]
    return TensorInfo(str(name), shape, str(kind.dtype))


def _check_dump(formats: Sequence[str], path: str | Path | None) -> None:
    retired.check(retired.COMPILE, dump_code=formats if formats and path is None else None)
    for name in formats:
        if name not in DUMP_FORMATS:
            raise SecretError(f"unknown format {name!r} of a dump; there are {', '.join(DUMP_FORMATS)}")


def _dump(module: IRModule, executable: Any, formats: Sequence[str], path: str | Path) -> None:
    warnings.warn(f"{path} holds the model's code in clear", stacklevel=3)
    with atomic_writer(path, mode=0o600) as file:
        for name in formats:
            if name == "relax":
                texts = [module.script()]
            else:
                texts = [part.inspect_source(name) for part in _kernels(executable)]
            for text in texts:
                file.write(f"; {name}\n{text}\n".encode())


def _kernels(executable: Any) -> list[Any]:
    return [part for part in executable.mod.imports if part.kind == "llvm"]


def _objects(executable: Any) -> list[bytes]:
    """The kernels' and the bytecode's object files."""
    kernels = _kernels(executable)
    triple = kernels[0].get_function("_get_target_string")() if kernels else "llvm"
    pack = tvm.get_global_func("runtime.ModulePackImportsToLLVM")
    bytecode = pack(executable.mod, False, triple, "")
    return [_emit(part) for part in (*kernels, bytecode)]


def _emit(module: Any) -> bytes:
    """LLVM writes to paths only; this one leads to anonymous memory."""
    descriptor = os.memfd_create("object", os.MFD_CLOEXEC)
    try:
        module.write_to_file(f"/proc/self/fd/{descriptor}", "o")
        size = os.fstat(descriptor).st_size
        return os.pread(descriptor, size, 0)
    finally:
        os.close(descriptor)
