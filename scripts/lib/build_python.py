"""Builds the wheel or the sdist of the current folder, byte for byte the same wherever and whenever it is done."""

from __future__ import annotations

import gzip
import io
import os
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from setuptools import build_meta


def main() -> int:
    kind, output = sys.argv[1], Path(sys.argv[2])
    epoch = int(os.environ["SOURCE_DATE_EPOCH"])
    with tempfile.TemporaryDirectory() as scratch:
        with quiet(Path(scratch, "log")):
            name = (build_meta.build_wheel if kind == "wheel" else build_meta.build_sdist)(scratch)
        made = Path(scratch, name)
        (output / name).write_bytes(wheel(made, epoch) if kind == "wheel" else sdist(made, epoch))
    print(output / name)
    return 0


@contextmanager
def quiet(log: Path) -> Iterator[None]:
    """What is said meanwhile is shown when it fails."""
    sys.stdout.flush()
    kept = [os.dup(1), os.dup(2)]
    with log.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        yield
    except BaseException:
        os.write(kept[1], log.read_bytes())
        raise
    finally:
        sys.stdout.flush()
        os.dup2(kept[0], 1)
        os.dup2(kept[1], 2)


def wheel(file: Path, epoch: int) -> bytes:
    """With its members in order, one time and two modes."""
    written = io.BytesIO()
    with zipfile.ZipFile(file) as source, zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as target:
        for name in sorted(source.namelist(), key=lambda name: (".dist-info/" in name, name)):
            head = zipfile.ZipInfo(name, time.gmtime(max(epoch, 315532800))[:6])
            head.external_attr = (0o100000 | mode(source.getinfo(name).external_attr >> 16)) << 16
            target.writestr(head, source.read(name), zipfile.ZIP_DEFLATED, 9)
    return written.getvalue()


def sdist(file: Path, epoch: int) -> bytes:
    written = io.BytesIO()
    with tarfile.open(file) as source, tarfile.open(fileobj=written, mode="w", format=tarfile.PAX_FORMAT) as target:
        for member in sorted(source.getmembers(), key=lambda member: member.name):
            if member.isdir():
                continue
            head = tarfile.TarInfo(member.name)
            head.size, head.mtime, head.mode = member.size, epoch, mode(member.mode)
            target.addfile(head, source.extractfile(member))
    return gzip.compress(written.getvalue(), 9, mtime=epoch)


def mode(found: int) -> int:
    return 0o755 if found & 0o100 else 0o644


if __name__ == "__main__":
    sys.exit(main())
