"""Packages that only some keys and formats need."""

from __future__ import annotations

import importlib
from types import ModuleType

from .errors import MissingExtraError

__all__ = ["require"]


def require(package: str, extra: str, purpose: str) -> ModuleType:
    """Import and return `package`, or raise `MissingExtraError` naming the extra that brings it."""
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != package.partition(".")[0]:
            raise
        raise MissingExtraError(
            f"{purpose} needs the package '{package}': pip install 'tvm-secret[{extra}]'"
        ) from None
