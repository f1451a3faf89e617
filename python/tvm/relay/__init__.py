"""The Relay workflow on today's TVM, sealed: importers in `relay.frontend`, the compiler in `relay.build`."""

from . import frontend
from .build_module import build

__all__ = ["build", "frontend"]
