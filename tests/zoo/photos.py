"""The ImageNet photos that foolbox ships, with their classes."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest


def photos(count: int = 20, size: int = 224) -> tuple[np.ndarray, list[int]]:
    """The first `count` of the 20 photos.

    Returns
    -------
    images, classes
        RGB (count, `size`, `size`, 3) uint8, and the classes, 0 to 999. Skips where foolbox is absent.
    """
    image = pytest.importorskip("PIL.Image")
    foolbox = importlib.util.find_spec("foolbox")
    if foolbox is None:
        pytest.skip("needs the photos of the package foolbox")
    files = sorted(Path(foolbox.submodule_search_locations[0], "data").glob("imagenet_*.jpg"))[:count]
    pictures = [image.open(file).convert("RGB").resize((size, size), image.BILINEAR) for file in files]
    return np.stack([np.asarray(p) for p in pictures]), [int(file.stem.split("_")[2]) for file in files]
