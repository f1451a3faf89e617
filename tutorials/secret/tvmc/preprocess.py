"""Turn a photo into the network's input, as the format of a framework wants it.

    python tutorials/secret/tvmc/preprocess.py onnx|keras|torch|tensorflow|tflite|mxnet [--photo FILE]

Writes FORMAT_in.npz: channels first for ONNX, PyTorch and MXNet, last for the others, and plain pixels for
the quantised TFLite model.
"""

from __future__ import annotations

import numpy as np
from session import common, parse

from tvm_secret.files import atomic_writer


def main() -> None:
    chosen = parse(__doc__)
    image = chosen.form.prepare(common.pixels(chosen.photo))
    with atomic_writer(chosen.inputs) as file:
        np.savez(file, **{chosen.form.input: image})
    print(f"{chosen.photo.name} as {chosen.form.input!r}, {image.dtype} {list(image.shape)}: {chosen.inputs}")


if __name__ == "__main__":
    main()
