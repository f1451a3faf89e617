"""The familiar Python interface of `tvmc`, over sealed files.

>>> import numpy as np
>>> from tvm.driver import tvmc
>>> model = tvmc.load("model.onnx.sealed")
>>> package = tvmc.compile(model, target="llvm", package_path="package.tar")
>>> result = tvmc.run(package, device="cpu", inputs=dict(np.load("in.npz")))
>>> result.get_output("output_0").shape
(1, 8)

Models, packages and what lies between hold sealed bytes or paths of sealed files, and nothing plain; only a
result's outputs and times are.
"""

from tvm_secret.errors import SecretError as TVMCException
from tvm_secret.runner import TVMCPackage, TVMCResult
from tvm_secret.runner import run_module as run

from .compiler import compile_model as compile
from .frontends import load_model as load
from .model import TVMCModel

__all__ = ["TVMCException", "TVMCModel", "TVMCPackage", "TVMCResult", "compile", "load", "run"]
