"""A symbol, whatever its nodes and attributes, is imported with fixed weights or `ModelError` is raised."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator

import numpy as np

from fuzz.mxnet_params import params
from tvm.relay.frontend.mxnet import import_mxnet
from tvm_secret.errors import ModelError

WEIGHTS = params(w=np.ones((2, 1, 3, 3)), b=np.ones(2))


def symbol(*operators: tuple[str, dict[str, str], list[list[int]]]) -> dict:
    """A graph of the input x, the parameters w and b (nodes 0, 1, 2), and these operators."""
    nodes = [{"op": "null", "name": "x", "attrs": {"__shape__": "(1, 1, 5, 5)"}, "inputs": []}]
    nodes += [{"op": "null", "name": name, "inputs": []} for name in "wb"]
    for number, (kind, attributes, inputs) in enumerate(operators):
        nodes.append({"op": kind, "name": f"n{number}", "attrs": attributes, "inputs": inputs})
    return {"nodes": nodes, "arg_nodes": [0, 1, 2], "heads": [[len(nodes) - 1, 0, 0]]}


SYMBOL = symbol(
    ("Convolution", {"kernel": "(3, 3)", "num_filter": "2"}, [[0, 0, 0], [1, 0, 0], [2, 0, 0]]),
    ("Activation", {"act_type": "relu"}, [[3, 0, 0]]),
)


def seeds() -> Iterator[bytes]:
    yield json.dumps(SYMBOL).encode()
    for kind, attributes in {
        "Pooling": {"kernel": "(2, 2)", "stride": "(2, 2)", "pool_type": "max"},
        "Reshape": {"shape": "(0, -1)"},
        "transpose": {"axes": "(0, 2, 3, 1)"},
        "slice": {"begin": "(0, 0)", "end": "(1, None)"},
        "SliceChannel": {"num_outputs": "5", "axis": "2"},
        "Pad": {"pad_width": "(0,0,0,0,1,1,1,1)", "mode": "constant"},
        "tile": {"reps": "(2, 2)"},
        "repeat": {"repeats": "3"},
        "UpSampling": {"scale": "2", "sample_type": "nearest"},
        "one_hot": {"depth": "7"},
        "topk": {"k": "2", "ret_typ": "both"},
    }.items():
        yield json.dumps(symbol((kind, attributes, [[0, 0, 0]]))).encode()


def check(data: bytes) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in (("symbol.json", data), ("params", WEIGHTS)):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    try:
        imported = import_mxnet(file.getvalue())
    except ModelError:
        return
    assert "main" in {variable.name_hint for variable in imported.module.get_global_vars()}
