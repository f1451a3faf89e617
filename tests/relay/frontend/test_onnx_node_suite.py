"""The node cases of ONNX's own backend test suite, through our importer and our pipeline.

By default the first case of each operator that passes. With CI in the environment all of them, and those of
`onnx_node_known_failures.txt` have to fail still, so that the list stays true.
"""

from __future__ import annotations

import os
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from compiled import Compiled
from onnx import numpy_helper

from tvm.relay.frontend.onnx import import_onnx

EVERYTHING = bool(os.environ.get("CI"))

KNOWN_FAILURES = Path(__file__).with_name("onnx_node_known_failures.txt")
CONSTANT_OPERANDS = "but for constant operands"

pytestmark = pytest.mark.skipif(
    not onnx.__version__.startswith("1.23."), reason="the known failures are those of onnx 1.23"
)


def known_failures() -> dict[str, bool]:
    """The cases that fail -> whether they pass once all inputs but the first are constants."""
    lines = KNOWN_FAILURES.read_text().splitlines()
    pairs = (line.partition(" ") for line in lines if line and not line.startswith("#"))
    return {name: remark == CONSTANT_OPERANDS for name, _, remark in pairs}


@pytest.fixture(scope="module")
def cases() -> dict[str, list[Any]]:
    """Operator -> its cases. Those whose operator is written out as others (`_expanded`) count as its own."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # computing the expected values divides by zero
        every = {case.name: case for case in collect_testcases(None)}
    groups = defaultdict(list)
    for name, case in every.items():
        whole = every[name.partition("_expanded")[0]]
        groups[whole.model.graph.node[0].op_type].append(case)
    return groups


def run(case: Any, constant_operands: bool = False) -> None:
    """Import, compile and run `case`; it raises where one of them does or where the outputs are not right."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    inputs, expected = ([_array(value) for value in values] for values in case.data_sets[0])
    if constant_operands:
        for value, array in list(zip(model.graph.input, inputs, strict=True))[1:]:
            model.graph.initializer.append(numpy_helper.from_array(array, value.name))
        del model.graph.input[1:], inputs[1:]
    # A size of 0 in a model means that it is not known.
    shapes = {
        value.name: array.shape
        for value, array in zip(model.graph.input, inputs, strict=True)
        if 0 in array.shape
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # the pipeline warns where it gives up
        outputs = Compiled(import_onnx(model.SerializeToString(), shapes))(*inputs)
    for actual, wanted in zip(outputs, expected, strict=True):
        assert (actual.dtype, actual.shape) == (wanted.dtype, wanted.shape)
        if wanted.dtype != bool:
            actual, wanted = actual.astype("float64"), wanted.astype("float64")
        np.testing.assert_allclose(actual, wanted, rtol=case.rtol, atol=max(case.atol, 1e-5))


def _array(value: Any) -> np.ndarray:
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)


FAILURES = known_failures()
SLOW = {"RoiAlign"}  # half a minute of upstream's lowering
OPERATORS = sorted({schema.name for schema in onnx.defs.get_all_schemas()})


@pytest.mark.parametrize("operator", OPERATORS)
def test_operator(operator, cases):
    chosen = [case for case in cases[operator] if FAILURES.get(case.name, True)]
    if not chosen:
        pytest.skip("the suite has no case that passes")
    if operator in SLOW and not EVERYTHING:
        pytest.skip("takes long: runs where CI is set")
    failed = {}
    for case in chosen if EVERYTHING else chosen[:1]:
        try:
            run(case, constant_operands=case.name in FAILURES)
        except Exception as error:
            failed[case.name] = error
    assert not failed


@pytest.mark.skipif(not EVERYTHING, reason="runs where CI is set")
def test_known_failures_still_fail(cases):
    passed = []
    for case in (case for group in cases.values() for case in group if case.name in FAILURES):
        for constant_operands in (False,) if FAILURES[case.name] else (False, True):
            try:
                run(case, constant_operands)
            except Exception:
                continue
            passed.append(case.name)
    assert not passed


def test_known_failures_are_cases(cases):
    assert not FAILURES.keys() - {case.name for group in cases.values() for case in group}


def test_nothing_that_upstream_passes_is_a_known_failure(shared_data):
    names = (shared_data / "onnx_node_upstream_pass.txt").read_text().split("\n")
    assert not FAILURES.keys() & set(names)
