"""Sealing and opening beside age, Tink and OpenSSL: GB/s by size, and peak memory.

    python benchmarks/crypto.py [--sizes 1 16 256] [--large] [--rounds 5] [--folder DIR]

Each tool turns a file into a sealed file, and a sealed file into plaintext in memory, each time in a process
of its own, and the tools take turns in a new order each round; keys are at hand before the clock starts.
Wrapping the session key is part of the work of all but Tink and OpenSSL, which hold a symmetric key. We alone
wait until a sealed file has reached the disk, before it gets its name. GB/s are of medians, 1 GB being 1e9
bytes. Writes results/crypto.json and crypto.png.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
from common import environment, measured_apart, peak_memory, save

STEP = 1 << 20

Seal = Callable[[Path, Path], Any]
Open = Callable[[Path], Any]


def main() -> None:
    """Measure every tool at every size, print a table, write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 16, 256], help="in MB of 2^20 bytes")
    parser.add_argument("--large", action="store_true", help="4 GB too")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", help="where to write (default: the temporary folder)")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        tool, action, folder = options.measure
        print(json.dumps(measure(tool, action, Path(folder))))
        return
    sizes = [size << 20 for size in options.sizes] + ([4 << 30] if options.large else [])
    figures = environment("tvm-secret", "cryptography", "pycryptodome", "pyrage", "tink")
    print(json.dumps(figures))
    figures["runs"] = []
    for size in sizes:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            figures["runs"] += compare(Path(folder), size, options.rounds)
    path = save("crypto", figures)
    plot(figures["runs"], path.with_suffix(".png"))
    print(path)


def compare(folder: Path, size: int, rounds: int) -> list[dict[str, Any]]:
    """All tools at one size: a row each."""
    make_keys(folder)
    with open(folder / "plain", "wb") as file:
        for _ in range(size // STEP):
            file.write(os.urandom(STEP))
    results: dict[str, dict[str, list]] = {
        tool: {action: [] for action in ("seal", "open")} for tool in TOOLS
    }
    for _ in range(rounds):
        for tool in random.sample(list(TOOLS), len(TOOLS)):
            for action in ("seal", "open"):
                results[tool][action].append(measured_apart(__file__, "--measure", tool, action, folder))
    rows = []
    for tool, actions in results.items():
        row: dict[str, Any] = {"tool": tool, "bytes": size}
        for action, measured in actions.items():
            seconds = [one["seconds"] for one in measured]
            row[f"{action}_s"] = seconds
            row[f"{action}_gb_per_s"] = size / statistics.median(seconds) / 1e9
            row[f"{action}_peak_bytes"] = max(one["peak_bytes"] for one in measured)
        rows.append(row)
        shown = "   ".join(
            f"{action} {row[f'{action}_gb_per_s']:6.2f} GB/s {row[f'{action}_peak_bytes'] >> 20:6} MB"
            for action in actions
        )
        print(f"{size >> 20:6} MB  {tool:18} {shown}", flush=True)
    return rows


def measure(tool: str, action: str, folder: Path) -> dict[str, float]:
    """Seal `folder`'s plain file, or open what was sealed: seconds, and the process's peak memory."""
    seal, open_ = TOOLS[tool](folder)
    seal(folder / "key", folder / f"{tool}.warm")
    open_(folder / f"{tool}.warm")
    sealed = folder / f"{tool}.sealed"
    start = time.perf_counter()
    result = seal(folder / "plain", sealed) if action == "seal" else open_(sealed)
    seconds = time.perf_counter() - start
    figures = {"seconds": seconds, "peak_bytes": peak_memory()}
    if action == "open" and len(result) != (folder / "plain").stat().st_size:
        raise RuntimeError(f"{tool} opened {len(result)} bytes")
    return figures


def make_keys(folder: Path) -> None:
    """A key for each tool."""
    import pyrage
    from tink import json_proto_keyset_format, new_keyset_handle, secret_key_access, streaming_aead

    common.make_keys(folder)
    (folder / "key").write_bytes(os.urandom(32))
    (folder / "age.txt").write_text(str(pyrage.x25519.Identity.generate()))
    streaming_aead.register()
    templates = streaming_aead.streaming_aead_key_templates
    handle = new_keyset_handle(templates.AES256_GCM_HKDF_1MB)
    keyset = json_proto_keyset_format.serialize(handle, secret_key_access.TOKEN)
    (folder / "tink.json").write_text(keyset)


def _ours(suite: str) -> Callable[[Path], tuple[Seal, Open]]:
    def prepare(folder: Path) -> tuple[Seal, Open]:
        from tvm_secret import context, envelope

        context.current().identity()  # unlocked, and loaded

        def seal(source: Path, target: Path) -> None:
            envelope.seal_file(source, target, content_type="params", suite=suite)

        return seal, lambda sealed: envelope.unseal(sealed, content_type="params")

    return prepare


def _age(folder: Path) -> tuple[Seal, Open]:
    import pyrage

    identity = pyrage.x25519.Identity.from_str((folder / "age.txt").read_text())

    def seal(source: Path, target: Path) -> None:
        pyrage.encrypt_file(str(source), str(target), [identity.to_public()])

    return seal, lambda sealed: pyrage.decrypt(sealed.read_bytes(), [identity])


def _tink(folder: Path) -> tuple[Seal, Open]:
    from tink import json_proto_keyset_format, secret_key_access, streaming_aead

    streaming_aead.register()
    keyset = json_proto_keyset_format.parse((folder / "tink.json").read_text(), secret_key_access.TOKEN)
    primitive = keyset.primitive(streaming_aead.StreamingAead)

    def seal(source: Path, target: Path) -> None:
        with open(source, "rb") as plain, primitive.new_encrypting_stream(open(target, "wb"), b"") as sealed:
            while piece := plain.read(STEP):
                sealed.write(piece)

    def open_(sealed: Path) -> bytearray:
        plain = bytearray()
        with primitive.new_decrypting_stream(open(sealed, "rb"), b"") as stream:
            while piece := stream.read(STEP):
                plain += piece
        return plain

    return seal, open_


def _openssl(folder: Path) -> tuple[Seal, Open]:
    """AES-256-GCM in `cryptography`, which hands it to OpenSSL: nonce, ciphertext, tag."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    key = algorithms.AES256((folder / "key").read_bytes())

    def seal(source: Path, target: Path) -> None:
        nonce = os.urandom(12)
        cipher = Cipher(key, modes.GCM(nonce)).encryptor()
        with open(source, "rb") as plain, open(target, "wb") as sealed:
            sealed.write(nonce)
            while piece := plain.read(STEP):
                sealed.write(cipher.update(piece))
            cipher.finalize()
            sealed.write(cipher.tag)

    def open_(path: Path) -> bytearray:
        size = path.stat().st_size - 28
        with open(path, "rb") as sealed:
            nonce, done = sealed.read(12), 0
            plain = bytearray(size + 15)  # of which update_into wants a block to spare
            sealed.seek(-16, os.SEEK_END)
            cipher = Cipher(key, modes.GCM(nonce, sealed.read(16))).decryptor()
            sealed.seek(12)
            with memoryview(plain) as view:
                while done < size:
                    done += cipher.update_into(sealed.read(min(STEP, size - done)), view[done:])
            cipher.finalize()
        del plain[size:]
        return plain

    return seal, open_


TOOLS: dict[str, Callable[[Path], tuple[Seal, Open]]] = {
    "ours aes-eax": _ours("aes-eax"),
    "ours cobblestone": _ours("cobblestone-256"),
    "age (pyrage)": _age,
    "tink": _tink,
    "openssl aes-gcm": _openssl,
}
"""Name -> what prepares keys and returns how to seal and how to open."""


def plot(runs: list[dict[str, Any]], path: Path) -> None:
    """Draw speed and memory over the size, a line for each tool."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, figsize=(11, 7), sharex=True)
    for column, action in enumerate(("seal", "open")):
        for row, (key, unit) in enumerate((("gb_per_s", 1), ("peak_bytes", 1e6))):
            axis = axes[row, column]
            for tool in TOOLS:
                chosen = [run for run in runs if run["tool"] == tool]
                sizes = [run["bytes"] / 1e6 for run in chosen]
                axis.plot(sizes, [run[f"{action}_{key}"] / unit for run in chosen], marker="o", label=tool)
            axis.set_xscale("log")
            axis.set_yscale("log")
            axis.grid(alpha=0.3)
            axis.set_ylabel(f"{action}: " + ("GB/s" if row == 0 else "peak memory, MB"))
    for axis in axes[1]:
        axis.set_xlabel("plaintext, MB")
    axes[0, 0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
