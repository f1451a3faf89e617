"""Which rule converts which operator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Convert = Callable[..., Any]
"""`convert(converter, node, *inputs)` gives the node's outputs: one value, or several in a list."""


@dataclass(frozen=True)
class Rule:
    """How an operator is converted.

    Inputs of a `structural` rule come as they are: it handles control flow, variables or lists of tensors.
    Any other operator is pure, and TensorFlow computes it at import where its inputs are known.
    """

    convert: Convert
    structural: bool


RULES: dict[str, Rule] = {}

SYMBOLIC_RULES: dict[str, Callable[..., Any]] = {}
"""Operators on integers that symbolic sizes are part of: NumPy arrays of dtype object in and out.

A rule gives None where the result is no integer of that kind; then the operator runs with the model.
"""


def rule(*operators: str, structural: bool = False) -> Callable[[Convert], Convert]:
    """Register the decorated function for `operators`."""

    def register(convert: Convert) -> Convert:
        for operator in operators:
            RULES[operator] = Rule(convert, structural)
        return convert

    return register


def symbolic(*operators: str) -> Callable[[Convert], Convert]:
    """Register the decorated function for `operators` on symbolic integers: `rule(node, *arrays)`."""

    def register(compute: Convert) -> Convert:
        for operator in operators:
            SYMBOLIC_RULES[operator] = compute
        return compute

    return register
