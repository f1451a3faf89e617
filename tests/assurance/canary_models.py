"""Write a small model in every format to the folder given, with what must not reach a disk planted in it.

A program of its own, since building the models writes them down, as does what the frameworks do meanwhile.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "relay"))
import test_tvmc_formats as formats

NAME = "canary_7f3a91"
WEIGHT = np.float32(0.7390851)
"""Every weight, so that neighbours are these four bytes repeated, in whatever order a compiler packs them."""

INPUTS = {"torchscript": "x", "pt2": "x", "SavedModel": f"serving_default_{NAME}"}
"""Where the input has another name, since the framework chooses it."""


def main(folder: Path) -> None:
    formats.INPUT = NAME
    formats.KERNEL = np.full(formats.KERNEL.shape, WEIGHT)
    cases = {}
    for case, (make, _, layout) in formats.CASES.items():
        (folder / case).mkdir()
        image = formats.IMAGE if layout == "NHWC" else formats.IMAGE.transpose(0, 3, 1, 2)
        name = INPUTS.get(case, NAME)
        np.savez(folder / case / "in.npz", **{name: image})
        shape = ",".join(map(str, image.shape))
        cases[case] = {
            "files": [str(file) for file in make(folder / case)],
            "shapes": ["--input-shapes", f"{name}:[{shape}]"] if case in formats.NEED_SHAPES else [],
        }
    (folder / "cases.json").write_text(json.dumps(cases))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
