"""Owner, compiler host and device: three parties, three folders, and what each can and cannot see.

    python tutorials/secret/three_parties.py [FOLDER] [--photo FILE]

Each party works in a folder of its own under FOLDER with keys of its own, and runs nothing but `tvmc`. Files
go from one folder to another where the parties would send them. Every refusal shown is one that happened: the
script stops where something that should be refused is not.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import common
import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

console = Console(soft_wrap=True, highlight=False)


@dataclass(frozen=True)
class Party:
    """Somebody with a folder, and a passphrase that nobody else knows; in earnest it is typed."""

    name: str
    folder: Path
    passphrase: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)

    def tvmc(self, *arguments: str) -> None:
        """Run `tvmc` here; stop where it fails."""
        done = self._run(arguments)
        if done.returncode:
            sys.exit(done.stderr)
        if done.stdout:
            console.print(escape(done.stdout.rstrip()))

    def refused(self, *arguments: str) -> None:
        """Run `tvmc` here, and show why it refuses; stop where it does not."""
        done = self._run(arguments)
        if done.returncode == 0:
            sys.exit("that should have been refused")
        console.print(f"[red]{escape(done.stderr.strip())}[/red]")

    def _run(self, arguments: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        console.print(f"[bold]{self.name}$[/bold] tvmc {escape(' '.join(arguments))}")
        outside = {name: value for name, value in os.environ.items() if not name.startswith("TVM_SECRET_")}
        return subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "tvm_secret.cli", *arguments],
            cwd=self.folder,
            env={**outside, "TVM_SECRET_PASSPHRASE": self.passphrase},
            capture_output=True,
            text=True,
        )

    def gives(self, other: Party, name: str, renamed: str | None = None) -> None:
        """Send a file."""
        shutil.copy(self.folder / name, other.folder / (renamed or name))
        console.print(f"[green]{self.name} -> {other.name}: {renamed or name}[/green]")


def main() -> None:
    options = common.options(__doc__)
    folders = options.folder / "three_parties"
    shutil.rmtree(folders, ignore_errors=True)
    owner, host, device, stranger = (
        Party(name, folders / name) for name in ("owner", "host", "device", "stranger")
    )
    for party in (owner, host, device, stranger):
        party.folder.mkdir(parents=True)
    shutil.copy(common.quantised_model(), owner.folder / "model.tflite")
    np.savez(device.folder / "in.npz", images=common.pixels(options.photo))

    keys(owner, host, device, stranger)
    owner_seals(owner, host)
    what_the_host_sees(owner, host, device)
    what_the_host_refuses(host, stranger)
    host_compiles(host, device)
    device_runs(host, device, options.photo)
    summary()


def keys(owner: Party, host: Party, device: Party, stranger: Party) -> None:
    console.rule("1. Keys", align="left")
    console.print(
        "Who opens files has a key pair for sealing, and who makes them one for signing. Only public halves "
        "travel, and those of signers by a way that nobody can tamper with."
    )
    for party in (host, device):
        party.tvmc("keygen")
    for party in (owner, host, stranger):
        party.tvmc("keygen", "--signing")
    host.gives(owner, "rsa_public_key.pem", "host.pem")
    host.gives(stranger, "rsa_public_key.pem", "host.pem")
    device.gives(host, "rsa_public_key.pem", "device.pem")
    owner.gives(host, "signing_public_key.pem", "owner.pem")
    host.gives(device, "signing_public_key.pem", "host.pem")


def owner_seals(owner: Party, host: Party) -> None:
    console.rule("2. The owner seals the model to the host, and signs it", align="left")
    sign = ("--sign-key", "signing_private_key.bin")
    owner.tvmc("encrypt", "model.tflite", "-o", "model.tflite.sealed", "-r", "host.pem", *sign)
    owner.gives(host, "model.tflite.sealed")


def what_the_host_sees(owner: Party, host: Party, device: Party) -> None:
    console.rule("3. What the sealed file shows", align="left")
    plain = (owner.folder / "model.tflite").read_bytes()
    sealed = (host.folder / "model.tflite.sealed").read_bytes()
    console.print("The end of the owner's file, which is a list of class names:")
    console.print(escape(hex_dump(plain, len(plain) // 16 * 16 - 2048)))
    console.print("The end of the sealed file, which nobody can tell from noise:")
    console.print(escape(hex_dump(sealed, len(sealed) // 16 * 16 - 2048)))
    shared = sum(plain[start : start + 16] in sealed for start in range(0, len(plain), 4096))
    console.print(f"Of {len(range(0, len(plain), 4096))} samples of the owner's file, {shared} are in it.")
    if shared:
        sys.exit("the sealed file holds parts of the model")
    console.print("What it says of itself, to everybody: its kind and size, who signed it, who can open it.")
    host.tvmc("inspect", "model.tflite.sealed")
    host.tvmc("verify", "model.tflite.sealed", "--signer", "owner.pem")
    console.print("Another party's key does not open it, and the owner has none that does.")
    host.gives(device, "model.tflite.sealed")
    device.refused("rewrap", "model.tflite.sealed", "-o", "mine.sealed")


def what_the_host_refuses(host: Party, stranger: Party) -> None:
    console.rule("4. What the host refuses", align="left")
    compile_it = ("compile", "--target", "llvm", "-r", "device.pem", "--signer", "owner.pem", "-o", "x.tar")
    console.print("Everybody can seal to the host's public key. A signature that it does not trust:")
    (stranger.folder / "model.tflite").write_bytes(b"code that the host should not compile")
    sign = ("--sign-key", "signing_private_key.bin")
    stranger.tvmc("encrypt", "model.tflite", "-o", "forged.sealed", "-r", "host.pem", *sign)
    stranger.gives(host, "forged.sealed")
    host.refused(*compile_it, "forged.sealed")
    console.print("One bit of the owner's file changed on the way:")
    altered = bytearray((host.folder / "model.tflite.sealed").read_bytes())
    altered[len(altered) // 2] ^= 1
    (host.folder / "altered.sealed").write_bytes(altered)
    host.refused(*compile_it, "altered.sealed")


def host_compiles(host: Party, device: Party) -> None:
    console.rule("5. The host compiles for the device, and signs", align="left")
    trust, sign = ("--signer", "owner.pem"), ("--sign-key", "signing_private_key.bin")
    host.tvmc(
        "compile", "--target", "llvm", *trust, "-r", "device.pem", *sign, "-o", "model.tar",
        "model.tflite.sealed",
    )  # fmt: skip
    host.tvmc("inspect", "model.tar")
    console.print("It cannot run what it made, or read it: that is sealed to the device.")
    host.refused("run", "model.tar")
    host.gives(device, "model.tar")


def device_runs(host: Party, device: Party, photo: Path) -> None:
    console.rule("6. The device runs it", align="left")
    console.print("Native code runs only where somebody trusted signed it:")
    (device.folder / "stranger.pem").write_bytes(
        (host.folder.parent / "stranger" / "signing_public_key.pem").read_bytes()
    )
    device.refused("run", "--signer", "stranger.pem", "-i", "in.npz", "-o", "out.npz", "model.tar")
    device.tvmc("run", "--signer", "host.pem", "-i", "in.npz", "-o", "out.npz", "model.tar")
    with np.load(device.folder / "out.npz", allow_pickle=False) as outputs:
        common.print_top_five(photo, common.probabilities(outputs["output_0"]))


def summary() -> None:
    table = Table("", "owner", "host", "device", "everybody", title="Who can see what", title_justify="left")
    table.add_row("the plain model", "yes", "no file; its memory, while it compiles", "no", "no")
    table.add_row("code and weights", "no", "no file; its memory, while it compiles", "in memory only", "no")
    table.add_row("photo and prediction", "no", "no", "yes", "no")
    table.add_row("kind, size, signer, recipients", "yes", "yes", "yes", "yes")
    console.print(table)


def hex_dump(data: bytes, start: int, lines: int = 4) -> str:
    """`lines` times 16 bytes from `start`, as offset, hex and text."""
    rows = []
    for offset in range(start, start + 16 * lines, 16):
        piece = data[offset : offset + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in piece)
        rows.append(f"  {offset:08x}  {piece.hex(' ')}  {text}")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
