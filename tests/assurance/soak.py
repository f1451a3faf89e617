"""Load: many modules at once, many opens, and a loop of load, run, close; memory, descriptors, outputs.

`python tests/assurance/soak.py ARTEFACT` prints the figures of docs/assurance.md; the suite calls the same
functions for less long. Each raises `AssertionError` where an output differs from the first.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import gc
import multiprocessing
import os
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import tvm_secret as secret
from tvm_secret.artefact import open_artefact
from tvm_secret.runtime import Execution, GraphModule

PAGE = os.sysconf("SC_PAGE_SIZE")
_fork = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Use:
    """Resident memory in bytes, and open descriptors, of this process."""

    memory: int
    descriptors: int

    @classmethod
    def now(cls) -> Use:
        gc.collect()
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * PAGE
        return cls(resident, len(os.listdir("/proc/self/fd")))


@dataclass(frozen=True)
class Work:
    """An artefact, inputs for it, and the output that it gives each time."""

    artefact: str | Path
    inputs: dict[str, np.ndarray]
    output: np.ndarray

    @classmethod
    def of(cls, artefact: str | Path) -> Work:
        """With random inputs; it is run in another process, so that this one has loaded none."""
        opened = open_artefact(artefact)
        rng = np.random.default_rng(0)
        inputs = {
            info.name: rng.standard_normal(info.shape).astype(info.dtype) for info in opened.interface.inputs
        }
        opened.close()
        reader, writer = _fork.Pipe()
        first = _fork.Process(target=lambda: writer.send(Execution(artefact, inputs)))
        first.start()
        output = reader.recv()
        first.join()
        return cls(artefact, inputs, output)

    def run(self, module: GraphModule) -> None:
        module.run(**self.inputs)
        np.testing.assert_array_equal(module.get_output(0), self.output)

    def once(self) -> None:
        with GraphModule(self.artefact) as module:
            self.run(module)

    def repeatedly(self, *, seconds: float = 0, times: int = 0) -> list[Use]:
        """Load, run and close for so long, or so many times; the use after each turn."""
        uses, stop = [], time.monotonic() + seconds
        while len(uses) < times or time.monotonic() < stop:
            self.once()
            uses.append(Use.now())
        return uses

    def at_once_in_threads(self, modules: int) -> None:
        """So many modules in as many threads, all loaded before the first is run."""
        keys, loaded = secret.context.current(), threading.Barrier(modules)

        def work() -> None:
            secret.context._current.set(keys)
            with GraphModule(self.artefact) as module:
                loaded.wait(600)
                for _ in range(3):
                    self.run(module)

        with concurrent.futures.ThreadPoolExecutor(modules) as pool:
            for future in [pool.submit(work) for _ in range(modules)]:
                future.result()

    def at_once_in_processes(self, processes: int) -> None:
        """`once` in so many processes at a time, forked from this one, which must not have loaded any yet."""
        secret.context.current().identity()  # the passphrase's work is done once for all
        started = [_fork.Process(target=self.once) for _ in range(processes)]
        for process in started:
            process.start()
        for process in started:
            process.join(600)
        assert [process.exitcode for process in started] == [0] * processes


def open_many(times: int) -> list[Use]:
    """Open a sealed file of 100 bytes so many times; the use after each hundredth of them."""
    uses = []
    with tempfile.TemporaryDirectory() as folder:
        sealed = Path(folder) / "x.sealed"
        sealed.write_bytes(secret.envelope.Session.to_self().seal(bytes(100), content_type="params"))
        for turn in range(1, times + 1):
            with secret.unseal(sealed, content_type="params") as plain:
                assert len(plain) == 100
            if turn % (times // 100) == 0:
                uses.append(Use.now())
    return uses


def growth(uses: list[Use]) -> Use:
    """From the median of the second fifth to that of the last: what comes first is loading and caches."""
    fifth = len(uses) // 5
    early, late = uses[fifth : 2 * fifth], uses[-fifth:]
    memory = np.median([use.memory for use in late]) - np.median([use.memory for use in early])
    return Use(int(memory), max(use.descriptors for use in late) - max(use.descriptors for use in early))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("artefact", help="one of fixed shapes; keys as for tvmc run")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--opens", type=int, default=10_000)
    parser.add_argument("--modules", type=int, default=64)
    arguments = parser.parse_args()
    work = Work.of(arguments.artefact)
    work.at_once_in_processes(arguments.modules)
    print(f"{arguments.modules} processes at once: same outputs", flush=True)
    work.at_once_in_threads(arguments.modules)
    print(f"{arguments.modules} threads at once: same outputs", flush=True)
    _show(f"{arguments.opens} opens", open_many(arguments.opens))
    uses = work.repeatedly(seconds=60 * arguments.minutes)
    _show(f"{len(uses)} times load, run, close", uses)


def _show(what: str, uses: list[Use]) -> None:
    grown = growth(uses)
    print(
        f"{what}: {uses[0].memory / 1e6:.1f} MB at first, {uses[-1].memory / 1e6:.1f} MB at last, "
        f"grown by {grown.memory / 1e6:.2f} MB and {grown.descriptors} descriptors",
        flush=True,
    )


if __name__ == "__main__":
    main()
