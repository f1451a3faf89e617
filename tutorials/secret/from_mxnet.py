"""A confidential MXNet model: sealed by its owner, compiled and run by somebody who never sees it.

    python tutorials/secret/from_mxnet.py [FOLDER] [--photo FILE]

The model is EfficientNet-Lite0 with its published weights, a symbol and its parameters. The owner's side
needs MXNet 1.9.1, which is installed in an environment of its own; sealing, compiling and running do not.
FOLDER gets the picture of the result and a line of seconds in mxnet_time.txt.
"""

from __future__ import annotations

import common
import models

import tvm_secret as secret
from tvm import relay
from tvm.contrib import graph_executor


def main() -> None:
    options = common.options(__doc__)
    weights, symbol = models.files("mxnet")

    with common.throwaway_keys(options.folder / "keys"):
        # The owner seals the two files into one, and the shape of the input.
        sealed_model = options.folder / "mxnet.sealed"
        secret.seal_file([symbol, weights], sealed_model, content_type="model/mxnet")
        sealed_shape = secret.seal_json({"data": [1, 3, 224, 224]}, content_type="input-shapes")

        # The other party has sealed bytes in its hands from here on: `mod` and `params` are, and so are the
        # parts of `artefact`. Each call opens what it needs, in memory, for as long as it works.
        clock = common.Clock()
        mod, params = relay.frontend.from_mxnet(sealed_model, sealed_shape)
        clock.lap("import")
        artefact = relay.build(mod, target="llvm", params=params)
        clock.lap("build")
        image = common.planes(common.pixels(options.photo))
        logits = graph_executor.Execution(artefact, {"data": image})
        clock.lap("run")

    # Only the prediction is in the clear.
    scores = common.probabilities(logits)
    common.print_top_five(options.photo, scores)
    common.draw_top_five(options.photo, scores, "A sealed MXNet model", options.folder / "mxnet.png")
    common.append_times(options.folder, "mxnet", "sealed", clock.laps)


if __name__ == "__main__":
    main()
