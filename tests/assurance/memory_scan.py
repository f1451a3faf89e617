"""Count the copies of a secret in this process's own memory, by way of /proc/self/mem.

What is looked for is kept masked, and memory is masked before it is compared, so that the search does not
find itself. A program too: run an artefact, and print how many copies of each secret there are on the way.
"""

from __future__ import annotations

import gc
import json
import mmap
import os
import sys

import numpy as np

MASK = 0xA5
_STEP = 1 << 24


def masked(secret: bytes) -> bytes:
    return (np.frombuffer(secret, np.uint8) ^ MASK).tobytes()


def count(secrets: dict[str, bytes]) -> dict[str, int]:
    """Copies of each of the masked `secrets` in memory that is writable, or no file's."""
    hits = dict.fromkeys(secrets, 0)
    overlap = max(map(len, secrets.values())) - 1
    with open("/proc/self/maps") as file:
        lines = file.read().splitlines()
    memory = os.open("/proc/self/mem", os.O_RDONLY)
    with mmap.mmap(-1, _STEP + overlap) as window:
        for line in lines:
            places, rights, _, _, inode, *name = line.split()
            mapped_file = inode != "0" and "w" not in rights
            if "r" not in rights or mapped_file or name[:1] in (["[vvar]"], ["[vsyscall]"]):
                continue
            position, end = (int(place, 16) for place in places.split("-"))
            while position < end:
                piece = _masked_piece(memory, window, position, min(_STEP + overlap, end - position))
                for kind, secret in secrets.items():
                    hits[kind] += piece.count(secret)
                position += _STEP
    os.close(memory)
    return hits


def _masked_piece(memory: int, window: mmap.mmap, position: int, size: int) -> bytes:
    """Memory, masked in the place that it was read to: an ordinary buffer would leave plain copies behind."""
    try:
        read = os.preadv(memory, [memoryview(window)[:size]], position)
    except OSError:  # a guard page, or unmapped meanwhile
        return b""
    view = np.frombuffer(window, np.uint8)[:read]
    np.bitwise_xor(view, MASK, out=view)
    return view.tobytes()


def main(artefact: str, inputs: str, secrets: dict[str, bytes]) -> dict[str, dict[str, int]]:
    from tvm_secret.runtime import Execution, GraphModule

    with np.load(inputs) as arrays:
        data = dict(arrays)
    counts = {"before": count(secrets)}
    module = GraphModule(artefact)
    counts["loaded"] = count(secrets)
    module.run(**data)
    counts["run"] = count(secrets)
    module.close()
    del module
    gc.collect()
    counts["closed"] = count(secrets)
    Execution(artefact, data)
    gc.collect()
    counts["after Execution"] = count(secrets)
    return counts


if __name__ == "__main__":
    wanted = {kind: bytes.fromhex(text) for kind, text in json.loads(sys.argv[3]).items()}
    print(json.dumps(main(sys.argv[1], sys.argv[2], wanted)))
