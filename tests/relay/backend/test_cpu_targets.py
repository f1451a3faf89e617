"""Targets: what they are parsed to, and that code for each kind of CPU is what it should be."""

import re

import numpy as np
import pytest
from cpu_support import assert_close, build, run

from tvm import relax
from tvm.relay.backend.cpu.machine import machine_of, native, parse_target
from tvm_secret.errors import TargetError


def _network(emit, data, w1, w2):
    y = emit(relax.op.nn.relu(emit(relax.op.nn.conv2d(data, w1, padding=1))))
    y = emit(relax.op.sigmoid(emit(relax.op.nn.conv2d(y, w2, groups=32, padding=1))))
    return relax.op.nn.max_pool2d(y, [2, 2], [2, 2])


def _case():
    rng = np.random.default_rng(6)
    x = rng.standard_normal((1, 32, 12, 12), dtype="float32")
    weights = {
        "w1": rng.standard_normal((32, 32, 3, 3), dtype="float32"),
        "w2": rng.standard_normal((32, 1, 3, 3), dtype="float32"),
    }
    return x, weights


@pytest.mark.parametrize(
    ("text", "lanes", "registers", "feature"),
    [
        ("llvm -mcpu=x86-64-v2", 4, 16, "sse4_2"),
        ("llvm -mcpu=x86-64-v3", 8, 16, "avx2"),
        ("llvm --mcpu=x86-64-v4", 16, 32, "avx512f"),
        ("llvm -mtriple=aarch64-linux-gnu -mcpu=cortex-a72", 4, 32, "asimd"),
        ('{"kind": "llvm", "mcpu": "x86-64-v3", "num-cores": 3}', 8, 16, "fma"),
    ],
)
def test_machine_follows_the_target(text, lanes, registers, feature):
    machine = machine_of(parse_target(text))
    assert (machine.lanes, machine.registers) == (lanes, registers)
    assert feature in machine.features


def test_plain_llvm_is_this_machine():
    assert parse_target("llvm").attrs["mcpu"] == native().attrs["mcpu"]
    assert parse_target("llvm -mcpu=native").attrs["mcpu"] == native().attrs["mcpu"]


@pytest.mark.parametrize(
    "text", ["cuda", "", "llvm -mcpu=nonsense", "llvm mcpu", "llvm -speed=9", "{", "llvm -num-cores=x"]
)
def test_bad_targets_are_refused_on_one_line(text):
    with pytest.raises(TargetError) as caught:
        parse_target(text)
    assert "\n" not in str(caught.value)


def test_code_for_older_cpus_agrees_with_native_code():
    x, weights = _case()
    expected = run(build({"data": x.shape}, weights, _network, exact=True), x)
    for cpu in ("x86-64-v2", "x86-64-v3"):
        compiled = build({"data": x.shape}, weights, _network, f"llvm -mcpu={cpu}", exact=True)
        assert_close(run(compiled, x), expected)


@pytest.mark.parametrize(
    ("target", "multiply_add"),
    [
        ("llvm -mtriple=aarch64-linux-gnu -mcpu=cortex-a72", r"fmla\s+v\d+\.4s"),
        ("llvm -mcpu=x86-64-v3", r"vfmadd\w+ps.*%ymm"),
        ("llvm -mcpu=x86-64-v4", r"vfmadd\w+ps.*%zmm"),
    ],
)
def test_accumulators_stay_in_registers(target, multiply_add):
    """In the innermost loop of a convolution no accumulator is stored: the loop has no store at all."""
    x, weights = _case()
    compiled = build({"data": x.shape}, weights, _network, target, exact=True)
    kernels = next(part for part in compiled.executable.mod.imports if part.kind == "llvm")
    blocks = re.split(r"\n(?=\.?LBB|\.LBB)", kernels.inspect_source("asm"))
    loops = [b for b in blocks if len(re.findall(multiply_add, b)) >= 8 and _is_loop(b)]
    assert loops
    store = r"\bst[rp]\s+q\d" if "aarch64" in target else r"vmov[au]ps\s+%[yz]mm\d+, -?\w*\(%r"
    assert any(not re.search(store, b) for b in loops)


def _is_loop(block: str) -> bool:
    label = block.strip().split(":")[0]
    return re.search(rf"(j\w+|b\.\w+|cbn?z\s+\w+,|tbn?z.*,)\s+{re.escape(label)}\b", block) is not None
