"""A confidential Keras model: sealed by its owner, compiled and run by somebody who never sees it.

    python tutorials/secret/from_keras.py [FOLDER] [--photo FILE]

The model is EfficientNet-Lite0 with its published weights. FOLDER gets the picture of the result and a line
of seconds in keras_time.txt.
"""

from __future__ import annotations

import common
import models

import tvm_secret as secret
from tvm import relay
from tvm.contrib import graph_executor


def main() -> None:
    options = common.options(__doc__)
    (model,) = models.files("keras")

    with common.throwaway_keys(options.folder / "keys"):
        # The owner seals the archive that `model.save` wrote. It holds layers and weights, no code: the
        # importer refuses one with Lambda layers or custom objects.
        sealed_model = secret.seal(model.read_bytes(), content_type="model/keras")
        sealed_shape = secret.seal_json({"image": [1, 224, 224, 3]}, content_type="input-shapes")

        # The other party has sealed bytes in its hands from here on: `mod` and `params` are, and so are the
        # parts of `artefact`. Each call opens what it needs, in memory, for as long as it works.
        clock = common.Clock()
        mod, params = relay.frontend.from_keras(sealed_model, sealed_shape)
        clock.lap("import")
        artefact = relay.build(mod, target="llvm", params=params)
        clock.lap("build")
        image = common.normalised(common.pixels(options.photo))
        logits = graph_executor.Execution(artefact, {"image": image})
        clock.lap("run")

    # Only the prediction is in the clear.
    scores = common.probabilities(logits)
    common.print_top_five(options.photo, scores)
    common.draw_top_five(options.photo, scores, "A sealed Keras model", options.folder / "keras.png")
    common.append_times(options.folder, "keras", "sealed", clock.laps)


if __name__ == "__main__":
    main()
