"""Bytes from outside never take a program down, whatever they are: the fuzz targets, replayed.

Each target runs on its seeds, on its committed corpus, and on changes of both that are the same in every run.
`python -m fuzz TARGET` goes on from there.
"""

from __future__ import annotations

import importlib
import random
from pathlib import Path

import pytest

import tvm_secret as secret

ROOT = Path(__file__).resolve().parents[2]
TARGETS = sorted(path.name for path in (ROOT / "fuzz" / "corpus").iterdir())
CHANGED = 150


@pytest.fixture(autouse=True)
def _fuzz(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)


def inputs(target, name: str) -> list[bytes]:
    good = [
        *target.seeds(),
        *(path.read_bytes() for path in sorted((ROOT / "fuzz" / "corpus" / name).iterdir())),
    ]
    from fuzz.harness import edited

    rng = random.Random(name)
    changed = [edited(rng.choice(good), rng.randbytes(6 * rng.randint(1, 4))) for _ in range(CHANGED)]
    return good + changed


def test_every_target_has_a_corpus():
    import fuzz

    assert sorted(fuzz.TARGETS) == TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_replay(name):
    target, harness = importlib.import_module(f"fuzz.{name}"), importlib.import_module("fuzz.harness")
    for data in inputs(target, name):
        try:
            harness.run(target, data)
        except BaseException as error:
            pytest.fail(f"{type(error).__name__}: {error}, on {data!r}")


def test_the_limits_are_kept():
    """A control: the harness sees what takes too much of either."""
    from fuzz.harness import limits

    with limits(0):
        bytearray(56 << 20)
    with pytest.raises(MemoryError), limits(0):
        bytearray(72 << 20)  # the kernel counts a few other megabytes differently than it reports them
    with pytest.raises(MemoryError), limits(1 << 20):
        secret.envelope.SecretBuffer(80 << 20)


def test_inspect_shows_brackets_as_they_are(keys, tvmc):
    sealed = secret.seal(b"x", content_type="params")
    header = secret.inspect(sealed)
    stanza = {**header.recipients[0], "note": "[/bold] [link=file:x]y[/link]"}
    (tvmc.folder / "odd.sealed").write_bytes(
        bytes(header.replace_recipients([stanza])) + sealed[len(bytes(header)) :]
    )
    shown = "".join(tvmc("inspect", "odd.sealed").stdout.split())
    assert stanza["note"].replace(" ", "") in shown
