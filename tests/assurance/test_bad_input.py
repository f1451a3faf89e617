"""Bytes from outside never take a program down, whatever they are: replays of the fuzz targets, and more."""

from __future__ import annotations

import tvm_secret as secret


def test_inspect_shows_brackets_as_they_are(keys, tvmc):
    sealed = secret.seal(b"x", content_type="params")
    header = secret.inspect(sealed)
    stanza = {**header.recipients[0], "note": "[/bold] [link=file:x]y[/link]"}
    (tvmc.folder / "odd.sealed").write_bytes(
        bytes(header.replace_recipients([stanza])) + sealed[len(bytes(header)) :]
    )
    shown = "".join(tvmc("inspect", "odd.sealed").stdout.split())
    assert stanza["note"].replace(" ", "") in shown
