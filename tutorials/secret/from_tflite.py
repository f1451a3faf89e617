"""A confidential TFLite model: sealed by its owner, compiled and run by somebody who never sees it.

    python tutorials/secret/from_tflite.py [FOLDER] [--photo FILE]

The model is EfficientNet-Lite0 as published, quantised to 8 bits: pixels go in as they are, and what comes
out is equal to the last bit to what TFLite's own interpreter computes. FOLDER gets the picture of the
result and a line of seconds in tflite_time.txt.
"""

from __future__ import annotations

import common
import models

import tvm_secret as secret
from tvm import relay
from tvm.contrib import graph_executor


def main() -> None:
    options = common.options(__doc__)
    (model,) = models.files("tflite")

    with common.throwaway_keys(options.folder / "keys"):
        # The owner seals the model. A TFLite file says the shape of its input itself.
        sealed_model = secret.seal(model.read_bytes(), content_type="model/tflite")

        # The other party has sealed bytes in its hands from here on: `mod` and `params` are, and so are the
        # parts of `artefact`. Each call opens what it needs, in memory, for as long as it works.
        clock = common.Clock()
        mod, params = relay.frontend.from_tflite(sealed_model)
        clock.lap("import")
        artefact = relay.build(mod, target="llvm", params=params)
        clock.lap("build")
        image = common.pixels(options.photo)
        output = graph_executor.Execution(artefact, {"images": image})
        clock.lap("run")

    # Only the prediction is in the clear.
    scores = common.probabilities(output)
    common.print_top_five(options.photo, scores)
    common.draw_top_five(options.photo, scores, "A sealed TFLite model", options.folder / "tflite.png")
    common.append_times(options.folder, "tflite", "sealed", clock.laps)


if __name__ == "__main__":
    main()
