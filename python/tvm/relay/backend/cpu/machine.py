"""The machine model: everything that the passes and kernels need to know about the CPU, in one place.

A `Machine` is derived from a target. Tile sizes, packing widths and loop orders come from its figures and
from nothing else, so that a new kind of CPU is a matter of this file alone.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tvm.target import Target
from tvm.target import codegen as llvm

from tvm_secret.errors import TargetError

__all__ = ["Machine", "machine_of", "native", "parse_target", "resolve"]

# LLVM's name of an instruction-set extension that its code generator may use -> the name by which Linux lists
# it in /proc/cpuinfo. Tuning flags and extensions that only intrinsics reach are left out.
_X86_FEATURES = {
    "sse3": "pni",
    "ssse3": "ssse3",
    "sse4.1": "sse4_1",
    "sse4.2": "sse4_2",
    "popcnt": "popcnt",
    "cx16": "cx16",
    "movbe": "movbe",
    "avx": "avx",
    "f16c": "f16c",
    "fma": "fma",
    "avx2": "avx2",
    "bmi": "bmi1",
    "bmi2": "bmi2",
    "lzcnt": "abm",
    "gfni": "gfni",
    "avxvnni": "avx_vnni",
    "avx512f": "avx512f",
    "avx512cd": "avx512cd",
    "avx512bw": "avx512bw",
    "avx512dq": "avx512dq",
    "avx512vl": "avx512vl",
    "avx512ifma": "avx512ifma",
    "avx512vbmi": "avx512vbmi",
    "avx512vbmi2": "avx512_vbmi2",
    "avx512vnni": "avx512_vnni",
    "avx512bitalg": "avx512_bitalg",
    "avx512vpopcntdq": "avx512_vpopcntdq",
    "avx512bf16": "avx512_bf16",
    "avx512fp16": "avx512_fp16",
}
_AARCH64_FEATURES = {
    "neon": "asimd",
    "dotprod": "asimddp",
    "fullfp16": "asimdhp",
    "lse": "atomics",
    "sve": "sve",
    "bf16": "bf16",
    "i8mm": "i8mm",
}


@dataclass(frozen=True)
class Machine:
    """What a kernel may count on.

    `lanes` float32 values fit a vector, of which there are `registers`; `l1`, `l2` and `l3` are the bytes of
    data cache that one core sees; `cores` share the work. `memory_operands`: an arithmetic instruction takes
    one operand straight from memory. `features` are the CPU flags that the code needs, by the names of
    Linux's /proc/cpuinfo.
    """

    lanes: int
    registers: int
    memory_operands: bool
    cores: int
    l1: int
    l2: int
    l3: int
    features: tuple[str, ...]

    @property
    def accumulators(self) -> int:
        """The fewest independent sums that keep the multiply-add units busy (two units, latency 4)."""
        return 8


def parse_target(text: str) -> Target:
    """Return the target that a command line's `--target` names, such as "llvm -mcpu=x86-64-v3".

    The options are upstream's: `-mcpu`, `-mattr`, `-mtriple`, `-num-cores` and `-opt-level`, with one or two
    dashes; JSON is taken as well. No `-mcpu`, or `-mcpu=native`, means the CPU of this machine.

    Raises:
        TargetError: the text, the CPU or an option is unknown.
    """
    if text.lstrip().startswith("{"):
        try:
            fields = json.loads(text)
        except ValueError:
            raise TargetError(f"the target is not valid JSON: {text}") from None
    else:
        kind, *options = shlex.split(text) or [""]
        fields = {"kind": kind}
        for option in options:
            name, separator, value = option.lstrip("-").partition("=")
            if not option.startswith("-") or not separator:
                raise TargetError(f"the target option '{option}' is not of the form -name=value")
            fields[name] = _option_value(name, value)
    if fields.get("kind") != "llvm":
        raise TargetError(f"the target '{fields.get('kind')}' is unknown: this build compiles for 'llvm'")
    if fields.get("mcpu") == "native":
        del fields["mcpu"]
    cpu = fields.get("mcpu")
    if cpu is not None and not llvm.llvm_is_valid_cpu(cpu, fields.get("mtriple", "")):
        raise TargetError(f"the target's CPU '{cpu}' is unknown to LLVM")
    try:
        return resolve(Target(fields))
    except (ValueError, TypeError) as error:
        raise TargetError(f"the target is not valid: {str(error).splitlines()[0]}") from None


def _option_value(name: str, value: str) -> Any:
    if name in ("num-cores", "opt-level"):
        if not value.isdecimal():
            raise TargetError(f"the target option '-{name}' takes a number, not '{value}'")
        return int(value)
    if name == "mattr":
        return value.split(",")
    if name in ("mcpu", "mtriple"):
        return value
    raise TargetError(f"the target option '-{name}' is unknown: use -mcpu, -mattr, -mtriple or -num-cores")


@cache
def native() -> Target:
    """The target of this machine's CPU, without the extensions that a hypervisor hides."""
    cpu = llvm.llvm_get_system_cpu()
    target = Target({"kind": "llvm", "mcpu": cpu})
    fields: dict[str, Any] = {"kind": "llvm", "mcpu": cpu, "num-cores": os.cpu_count() or 1}
    present = _flags_of_this_machine()
    if present:
        hidden = [name for name, flag in _named_features(target).items() if flag not in present]
        if hidden:
            fields["mattr"] = [f"-{name}" for name in hidden]
    return Target(fields)


def resolve(target: Target) -> Target:
    """Fill in this machine's CPU where `target` names neither a CPU nor another kind of machine."""
    foreign = str(target.attrs.get("mtriple", "")) not in ("", llvm.llvm_get_system_triple())
    if foreign or "mcpu" in target.attrs:
        return target
    return Target({**target.export(), **native().export()})


@cache
def _flags_of_this_machine() -> frozenset[str]:
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text().splitlines():
            if line.lower().startswith(("flags", "features")):
                return frozenset(line.partition(":")[2].split())
    return frozenset()


def _is_aarch64(target: Target) -> bool:
    triple = str(target.attrs.get("mtriple", "")) or llvm.llvm_get_system_triple()
    return triple.startswith(("aarch64", "arm64"))


def _named_features(target: Target) -> dict[str, str]:
    """LLVM's name -> Linux's name of each extension that code for `target` may use."""
    names = _AARCH64_FEATURES if _is_aarch64(target) else _X86_FEATURES
    enabled = {str(name) for name in llvm.llvm_get_cpu_features(target)}
    return {name: flag for name, flag in names.items() if name in enabled}


def machine_of(target: Target) -> Machine:
    """The model of `target`; a target that names no CPU is this machine's.

    Cache sizes are read from the system where the target is its own CPU, and are modest common values
    otherwise: a tile that fits a small cache runs well in a large one.
    """
    target = resolve(target)
    features = _named_features(target)
    if _is_aarch64(target):
        lanes, registers = 4, 32
    elif "avx512f" in features:
        lanes, registers = 16, 32
    elif "avx" in features:
        lanes, registers = 8, 16
    else:
        lanes, registers = 4, 16
    l1, l2, l3 = _caches() if str(target.attrs.get("mcpu")) == llvm.llvm_get_system_cpu() else _COMMON_CACHES
    return Machine(
        lanes=lanes,
        registers=registers,
        memory_operands=not _is_aarch64(target),
        cores=int(target.attrs.get("num-cores", os.cpu_count() or 1)),
        l1=l1,
        l2=l2,
        l3=l3,
        features=tuple(features.values()),
    )


_COMMON_CACHES = (32 << 10, 512 << 10, 8 << 20)


@cache
def _caches() -> tuple[int, int, int]:
    """Bytes of the data caches of this machine's first core, as Linux reports them."""
    sizes = list(_COMMON_CACHES)
    if platform.system() == "Linux":
        for index in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
            try:
                level = int((index / "level").read_text())
                kind = (index / "type").read_text().strip()
                text = (index / "size").read_text().strip()
            except (OSError, ValueError):
                continue
            if kind != "Instruction" and 1 <= level <= len(sizes) and text[:-1].isdecimal():
                sizes[level - 1] = int(text[:-1]) << {"K": 10, "M": 20}.get(text[-1], 0)
    return sizes[0], sizes[1], sizes[2]
