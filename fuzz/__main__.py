"""`python -m fuzz TARGET [libFuzzer options]`: fuzz one target, beginning with its seeds and its corpus.

What libFuzzer finds new goes to build/fuzz/TARGET. Needs atheris (pip install atheris).
"""

from __future__ import annotations

import functools
import importlib
import sys
from pathlib import Path

import atheris

from fuzz import TARGETS, WITH_COMPILER

INSTRUMENTED = ["tvm_secret", "tvm", "tarfile", "zipfile"]
# Imported before instrumentation begins: they are not under test, and instrumenting them would take minutes.
DEPENDENCIES = ("tvm.topi", "tvm.relax.frontend.onnx", "onnx")
FOLDER = Path(__file__).parent


def main(arguments: list[str]) -> None:
    if not arguments or arguments[0] not in TARGETS:
        sys.exit(f"usage: python -m fuzz TARGET [libFuzzer options]; targets: {', '.join(TARGETS)}")
    name, *options = arguments
    for module in DEPENDENCIES if name in WITH_COMPILER else ():
        importlib.import_module(module)
    for module in ("tarfile", "zipfile"):  # imported by now
        sys.modules.pop(module, None)
    with atheris.instrument_imports(include=INSTRUMENTED):
        target = importlib.import_module(f"fuzz.{name}")
        harness = importlib.import_module("fuzz.harness")
    working = FOLDER.parent / "build" / "fuzz" / name
    working.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (working / f"seed{number}").write_bytes(seed)
    corpora = [str(working), str(FOLDER / "corpus" / name)]
    atheris.Setup([sys.argv[0], *options, *corpora], functools.partial(harness.run, target))
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
