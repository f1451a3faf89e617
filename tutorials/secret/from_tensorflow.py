"""A confidential TensorFlow model: sealed by its owner, compiled and run by somebody who never sees it.

    python tutorials/secret/from_tensorflow.py [FOLDER] [--photo FILE]

The model is EfficientNet-Lite0 with its published weights, a SavedModel. FOLDER gets the picture of the
result and a line of seconds in tensorflow_time.txt.
"""

from __future__ import annotations

import common
import models

import tvm_secret as secret
from tvm import relay
from tvm.contrib import graph_executor


def main() -> None:
    options = common.options(__doc__)
    (saved_model,) = models.files("tensorflow")

    with common.throwaway_keys(options.folder / "keys"):
        # The owner seals the folder of the SavedModel into one file, and the shape of its input.
        sealed_model = options.folder / "tensorflow.sealed"
        secret.seal_file(saved_model, sealed_model, content_type="model/tensorflow")
        sealed_shape = secret.seal_json({"image": [1, 224, 224, 3]}, content_type="input-shapes")

        # The other party has sealed bytes in its hands from here on: `mod` and `params` are, and so are the
        # parts of `artefact`. Each call opens what it needs, in memory, for as long as it works.
        clock = common.Clock()
        mod, params = relay.frontend.from_tensorflow(sealed_model, shape=sealed_shape)
        clock.lap("import")
        artefact = relay.build(mod, target="llvm", params=params)
        clock.lap("build")
        # `image` in the model's signature is the tensor `serving_default_image:0` of its graph, and the `:0`
        # may be left out.
        image = common.normalised(common.pixels(options.photo))
        logits = graph_executor.Execution(artefact, {"serving_default_image:0": image})
        clock.lap("run")

    # Only the prediction is in the clear.
    scores = common.probabilities(logits)
    common.print_top_five(options.photo, scores)
    common.draw_top_five(options.photo, scores, "A sealed SavedModel", options.folder / "tensorflow.png")
    common.append_times(options.folder, "tensorflow", "sealed", clock.laps)


if __name__ == "__main__":
    main()
