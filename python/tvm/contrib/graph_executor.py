"""The familiar name of `tvm_secret.runtime`."""

from tvm_secret.runtime import Benchmark, Execution, GraphModule

__all__ = ["Benchmark", "Execution", "GraphModule"]
