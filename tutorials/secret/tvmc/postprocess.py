"""Print and draw what the network sees on the photo.

    python tutorials/secret/tvmc/postprocess.py onnx|keras|torch|tensorflow|tflite|mxnet [--photo FILE]

Reads FORMAT_out.npz, which `tvmc run` wrote, and writes FORMAT.png: the photo beside its likeliest classes.
"""

from __future__ import annotations

import numpy as np
from session import common, parse


def main() -> None:
    chosen = parse(__doc__)
    with np.load(chosen.outputs, allow_pickle=False) as outputs:
        scores = common.probabilities(outputs["output_0"])
    common.print_top_five(chosen.photo, scores)
    common.draw_top_five(chosen.photo, scores, f"{chosen.name}, through tvmc", chosen.picture)


if __name__ == "__main__":
    main()
