"""Rewrapping a large sealed file, in place and to a new file, beside a plain copy of it, interleaved.

python benchmarks/rewrap.py [--size 2G] [--rounds 5] [--folder DIR]
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import environment, make_keys, save

from tvm_secret import envelope

_CHILD = """
import sys, time, resource
import tvm_secret as secret
from pathlib import Path
from tvm_secret import context
context.current().identity()
start = time.perf_counter()
secret.rewrap(sys.argv[1], sys.argv[2], [sys.argv[3]])
print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="2G", help="of the plaintext, such as 200M (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", default=None, help="where to write (default: the temporary folder)")
    arguments = parser.parse_args()
    size = int(arguments.size[:-1]) << {"M": 20, "G": 30}[arguments.size[-1]]
    folder = Path(tempfile.mkdtemp(dir=arguments.folder))
    try:
        figures = measure(folder, size, arguments.rounds)
    finally:
        shutil.rmtree(folder)
    figures |= environment("tvm-secret", "cryptography")
    print(f"{arguments.size} on {figures['cpu']}, {figures['cores']} cores")
    for name in ("in place", "to a new file", "copy"):
        print(f"  {name:<14} {figures[name]['median_s']:.3f} s")
    print(f"  peak memory of rewrapping: {figures['peak_bytes'] / 1e6:.0f} MB")
    print(save("rewrap", figures))


def measure(folder: Path, size: int, rounds: int) -> dict:
    _, public = make_keys(folder)
    sealed = folder / "large"
    piece = os.urandom(1 << 20)
    with open(sealed, "wb+") as file:
        session = envelope.Session([public], suite="cobblestone-256")
        session.seal_stream((piece for _ in range(size >> 20)), size, file, content_type="params")
    times: dict[str, list[float]] = {"in place": [], "to a new file": [], "copy": []}
    peak = 0
    for _ in range(rounds):
        for name in times:
            target = sealed if name == "in place" else folder / name
            if name != "copy":
                command = [sys.executable, "-c", _CHILD, sealed, target, public]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                seconds, memory = map(float, done.stdout.split())
                peak = max(peak, int(memory))
            else:
                start = time.perf_counter()
                shutil.copyfile(sealed, target)
                seconds = time.perf_counter() - start
            times[name].append(seconds)
    return {
        "bytes": size,
        "peak_bytes": peak,
        **{name: {"median_s": statistics.median(values), "all_s": values} for name, values in times.items()},
    }


if __name__ == "__main__":
    main()
