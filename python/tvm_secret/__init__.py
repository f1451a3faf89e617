"""Confidential models: seal them, open them in memory only, run them.

This package is all that an owner or a device needs; it imports neither `tvm` nor a framework. The compiler's
side is the overlay in `tvm.relay`, `tvm.contrib.graph_executor` and `tvm.driver.tvmc`.
"""

from .context import use
from .envelope import inspect, rewrap, seal, seal_file, seal_json, unseal, unseal_json, verify
from .errors import SecretError

__all__ = [
    "SecretError",
    "inspect",
    "rewrap",
    "seal",
    "seal_file",
    "seal_json",
    "unseal",
    "unseal_json",
    "use",
    "verify",
]
