"""Coverage-guided fuzz targets for everything that reads bytes from outside.

A target is a module with `check(data)`, which raises where the property in its docstring does not hold, and
`seeds()`, inputs to start from. `python -m fuzz TARGET` runs one under atheris; tests/assurance replays the
committed corpora without it.
"""

WITHOUT_COMPILER = (
    "artefact",
    "authentic",
    "envelope",
    "header",
    "interface",
    "keyfiles",
    "npz",
    "recipients",
    "tensors",
)
WITH_COMPILER = ("mxnet_import", "mxnet_params", "mxnet_symbol", "mxnet_tar", "onnx_wire", "shapes")
TARGETS = WITHOUT_COMPILER + WITH_COMPILER
