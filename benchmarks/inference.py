"""Latency, compile time and peak memory beside ONNX Runtime, OpenVINO, PyTorch and TFLite's interpreter.

    python benchmarks/inference.py [--threads 1 2] [--networks resnet18 ...] [--rounds 8]

Each network is exported to ONNX and every engine runs that file in float32; TFLite models run in TFLite's
interpreter beside us. We run the sealed artefact, as `tvmc run` does. Each engine has a process of its own,
which loads the model and then waits, and they are interleaved: in each round every engine has its turn in a
new order, so that a slow moment of the machine meets all of them. (In one process they would disturb each
other: an engine's idle threads spin for a while, and take the cores from the next.) The table holds medians,
and ratios of medians and of minima. Peak memory is that of these processes, and of our compiler. Writes
results/inference.json and results/inference.png.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from common import RESULTS, environment, make_keys, measured_apart, peak_memory, save

Run = Callable[[], Any]
PACKAGES = ("tvm-secret", "apache-tvm", "onnxruntime", "openvino", "torch", "tensorflow", "numpy")
OTHERS = ("onnxruntime", "openvino", "torch", "tflite")
BURST = 0.3  # seconds
PAUSE = 0.1  # seconds, after which no engine's threads spin any more


def main() -> None:
    """Measure each network, print a table, write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, os.cpu_count() or 1}))
    parser.add_argument("--networks", nargs="+", help="of networks.py (default: all)")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--compile", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    if options.compile:
        print(json.dumps(compile_sealed(options.compile)))
        return
    if options.serve:
        serve(options.serve[0], Path(options.serve[1]), options.threads[0])
        return
    from networks import NETWORKS, TFLITE_MODELS

    known = [*NETWORKS, *TFLITE_MODELS]
    unknown = set(options.networks or ()).difference(known)
    if unknown:
        parser.error(f"there is no network {', '.join(sorted(unknown))}; there are: {', '.join(known)}")
    figures: dict[str, Any] = {**environment(*PACKAGES), "runs": []}
    print(json.dumps(figures))
    print(f"{'network':26}{'threads':>8}{'ours ms':>9}" + "".join(f"{name:>12}" for name in OTHERS), end="")
    print(f"{'/ort':>6}{'min':>6}{'/ov':>6}{'/tflite':>8}{'compile s':>10}{'MB':>6}{'ort MB':>7}{'error':>8}")
    with tempfile.TemporaryDirectory() as keys:
        make_keys(Path(keys))
        for name in options.networks or known:
            try:
                for run in measure(name, options.threads, options.rounds):
                    figures["runs"].append(run)
                    print(row(run), flush=True)
            except RuntimeError as error:
                print(f"{name:26}  failed: {error}")
                continue
            # After each, so that a run can be cut short.
            figures["runs"].sort(key=lambda run: run["threads"])
            figures["geometric_means"] = summary(figures["runs"])
            save("inference", figures)
    print(json.dumps(figures["geometric_means"], indent=1))
    plot(figures["runs"])


def measure(name: str, counts: list[int], rounds: int) -> Iterator[dict[str, Any]]:
    """The row of the network `name` for each number of threads, all engines interleaved."""
    import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        others = prepare(name, Path(folder))
        compiled = [measured_apart(__file__, "--compile", folder) for _ in range(3)]
        for threads in counts:
            times: dict[str, list[float]] = {}
            with ExitStack() as stack:
                engines = {
                    engine: stack.enter_context(engine_process(engine, Path(folder), threads))
                    for engine in ("ours", *others)
                }
                for _ in range(rounds):
                    for engine in random.sample(list(engines), len(engines)):
                        times.setdefault(engine, []).extend(engines[engine]("burst"))
                        time.sleep(PAUSE)
                peak = {engine: ask("memory") / 1e6 for engine, ask in engines.items()}
            expected = np.load(Path(folder) / "expected.npy").astype("float64")
            difference = np.abs(np.load(Path(folder) / "ours.npy").astype("float64") - expected)
            yield {
                "network": name,
                "threads": threads,
                "median_ms": {engine: float(np.median(t)) for engine, t in times.items()},
                "min_ms": {engine: float(min(t)) for engine, t in times.items()},
                "compile_s": statistics.median(once["seconds"] for once in compiled),
                "peak_mb": {"compile": max(once["peak"] for once in compiled) / 1e6, **peak},
                "error": float(difference.max() / np.abs(expected).max()),
            }


@contextmanager
def engine_process(engine: str, folder: Path, threads: int) -> Iterator[Callable[[str], Any]]:
    """A process that has loaded the model into `engine`, as a function: send a word, get the answer.

    It raises `RuntimeError` with the last line of what it complained about.
    """
    limits = {"TVM_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, __file__, "--serve", engine, str(folder), "--threads", str(threads)]
    with (
        open(folder / "complaints", "w+") as complaints,
        subprocess.Popen(
            command,
            env={**os.environ, **limits},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
        ) as process,
    ):

        def ask(word: str) -> Any:
            try:
                print(word, file=process.stdin, flush=True)
                return json.loads(process.stdout.readline())
            except (BrokenPipeError, ValueError):
                complaints.seek(0)
                raise RuntimeError((complaints.read().strip().splitlines() or ["no message"])[-1]) from None

        try:
            ask("load")
            yield ask
        finally:
            process.kill()


def serve(engine: str, folder: Path, threads: int) -> None:
    """Answer the words of `engine_process`, a line each: "load", then any number of "burst" and "memory"."""
    import numpy as np

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what engines print
    run = ENGINES[engine](folder, np.load(folder / "input.npy"), threads)
    for word in map(str.strip, sys.stdin):
        if word == "burst":
            run()
            answer = burst(run)
        elif word == "memory":
            answer = peak_memory()
        else:
            np.save(folder / f"{engine}.npy", run())
            answer = None
        print(json.dumps(answer), file=answers, flush=True)


def burst(run: Run) -> list[float]:
    """The milliseconds of each run in `BURST` seconds."""
    times = []
    until = time.perf_counter() + BURST
    while time.perf_counter() < until:
        begin = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - begin))
    return times


def row(run: dict[str, Any]) -> str:
    """One line of the table."""
    ms, low, peak = run["median_ms"], run["min_ms"], run["peak_mb"]

    def cell(value: float | None, width: int, form: str) -> str:
        return f"{'-' if value is None else format(value, form):>{width}}"

    def ratio(times: dict[str, float], other: str) -> float | None:
        return times["ours"] / times[other] if other in times else None

    cells = [cell(ms.get(name), 12, ".2f") for name in OTHERS]
    cells += [cell(ratio(ms, "onnxruntime"), 6, ".2f"), cell(ratio(low, "onnxruntime"), 6, ".2f")]
    cells += [cell(ratio(ms, "openvino"), 6, ".2f"), cell(ratio(ms, "tflite"), 8, ".2f")]
    cells += [cell(run["compile_s"], 10, ".1f"), cell(peak.get("ours"), 6, ".0f")]
    cells += [cell(peak.get("onnxruntime"), 7, ".0f"), cell(run["error"], 8, ".0e")]
    return f"{run['network']:26}{run['threads']:8}{ms['ours']:9.2f}" + "".join(cells)


def summary(runs: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Geometric means of our time over the others', by number of threads."""
    means: dict[str, dict[str, float]] = {}
    for threads in sorted({run["threads"] for run in runs}):
        for other in OTHERS:
            chosen = [run for run in runs if run["threads"] == threads and other in run["median_ms"]]
            for key in ("median_ms", "min_ms") if chosen else ():
                logs = [math.log(run[key]["ours"] / run[key][other]) for run in chosen]
                entry = means.setdefault(f"{threads} threads", {})
                entry[f"{key.removesuffix('_ms')} over {other}"] = round(math.exp(sum(logs) / len(logs)), 3)
    return means


def prepare(name: str, folder: Path) -> tuple[str, ...]:
    """Write the network `name` of networks.py, an input and its result to `folder`; returns its peers."""
    import numpy as np
    import torch
    from networks import NETWORKS, TFLITE_MODELS, exported

    from tvm_secret import envelope

    if name in TFLITE_MODELS:
        kind, model, others = "tflite", TFLITE_MODELS[name](), ("tflite",)
        run, detail = _interpreter(model, 1)
        numbers = np.random.default_rng(0).random(detail["shape"], dtype="float32")
        array = numbers if detail["dtype"] == np.float32 else (255 * numbers).astype(detail["dtype"])
        expected = run(array)
    else:
        module, example = NETWORKS[name]()
        with torch.no_grad():
            expected = module(example).numpy()
        kind, model, array = "onnx", exported(module, example), example.numpy()
        others = ("onnxruntime", "openvino", "torch")
        (folder / "name").write_text(name)
    (folder / f"model.{kind}").write_bytes(model)
    sealed = envelope.seal(model, content_type=f"model/{kind}", suite="cobblestone-256")
    (folder / "model.sealed").write_bytes(sealed)
    np.save(folder / "input.npy", array)
    np.save(folder / "expected.npy", expected)
    return others


def compile_sealed(folder: Path) -> dict[str, float]:
    """Compile the sealed model in `folder`: the seconds of `relay.build`, and the peak memory in bytes."""
    from tvm import relay
    from tvm_secret import artefact

    tflite = (folder / "model.tflite").exists()
    importer = relay.frontend.from_tflite if tflite else relay.frontend.from_onnx
    module, params = importer(folder / "model.sealed")
    build = relay.build  # which imports the compiler, before the clock starts
    start = time.perf_counter()
    parts = build(module, target="llvm", params=params, suite="cobblestone-256")
    seconds = time.perf_counter() - start
    artefact.save(parts, folder / "artefact.tar")
    return {"seconds": seconds, "peak": peak_memory()}


def _ours(folder: Path, array: Any, threads: int) -> Run:
    from tvm_secret.runtime import GraphModule

    module = GraphModule(folder / "artefact.tar")
    module.set_input(module.inputs[0].name, array)

    def run() -> Any:
        module.run()
        return module.get_output(0)

    return run


def _onnxruntime(folder: Path, array: Any, threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    path = str(folder / "model.onnx")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: array}
    return lambda: session.run(None, feed)[0]


def _openvino(folder: Path, array: Any, threads: int) -> Run:
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    model = core.read_model(str(folder / "model.onnx"))
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    return lambda: request.infer([array])[0]


def _torch(folder: Path, array: Any, threads: int) -> Run:
    import torch
    from networks import NETWORKS

    torch.set_num_threads(threads)
    module, _ = NETWORKS[(folder / "name").read_text()]()
    example = torch.from_numpy(array)

    def run() -> Any:
        with torch.inference_mode():
            return module(example).numpy()

    return run


def _tflite(folder: Path, array: Any, threads: int) -> Run:
    run, _ = _interpreter((folder / "model.tflite").read_bytes(), threads)
    return lambda: run(array)


def _interpreter(model: bytes, threads: int) -> tuple[Callable[[Any], Any], dict[str, Any]]:
    """TFLite's interpreter as a function, and its input's details."""
    import tensorflow

    interpreter = tensorflow.lite.Interpreter(model_content=model, num_threads=threads)
    interpreter.allocate_tensors()
    (source,), result = interpreter.get_input_details(), interpreter.get_output_details()[0]

    def run(array: Any) -> Any:
        interpreter.set_tensor(source["index"], array)
        interpreter.invoke()
        return interpreter.get_tensor(result["index"])

    return run, source


ENGINES: dict[str, Callable[[Path, Any, int], Run]] = {
    "ours": _ours,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "torch": _torch,
    "tflite": _tflite,
}


def plot(runs: list[dict[str, Any]]) -> Path:
    """Draw our latency relative to the others', one group of bars a network."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    counts = sorted({run["threads"] for run in runs})
    figure, axes = pyplot.subplots(len(counts), 1, figsize=(11, 3.4 * len(counts)), squeeze=False)
    for axis, threads in zip(axes[:, 0], counts, strict=True):
        chosen = [run for run in runs if run["threads"] == threads]
        for offset, other in zip((-0.27, 0, 0.27, 0), OTHERS, strict=True):  # TFLite has a place of its own
            bars = [
                (place + offset, run["median_ms"][other] / run["median_ms"]["ours"])
                for place, run in enumerate(chosen)
                if other in run["median_ms"]
            ]
            if bars:
                axis.bar(*zip(*bars, strict=True), 0.25, label=other)
        axis.axhline(1, color="black", linewidth=0.8)
        axis.set_xticks(range(len(chosen)), [run["network"] for run in chosen], rotation=25, ha="right")
        axis.set_ylabel("their latency / ours")
        axis.set_title(f"{threads} thread{'s' if threads > 1 else ''}: higher is better for us")
        axis.legend()
    figure.tight_layout()
    path = RESULTS / "inference.png"
    figure.savefig(path, dpi=110)
    return path


if __name__ == "__main__":
    main()
