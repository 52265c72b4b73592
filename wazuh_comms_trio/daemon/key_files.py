"""Keys and certificates as they were when a generation of workers began.

The supervisor reads the files once; each worker gets what they held and puts it where OpenSSL can read it: a worker
that is replaced has the same key as the others, whatever has become of the files meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs

from wazuh_comms_trio.config.check import FileProblem, next_key_file, public_half, read_next_key, signing_key
from wazuh_comms_trio.config.models import CommunicationsApi
from wazuh_comms_trio.daemon.exit_status import BadConfiguration
from wazuh_comms_trio.foundation.file_writes import write_all

__all__ = ["key_files_in_memory", "read_key_files", "signing_public_key"]


def _files(settings: CommunicationsApi) -> list[Path]:
    ssl = settings.ssl
    named = [
        ssl.key,
        ssl.cert,
        *((ssl.ca, ssl.crl) if ssl.use_ca else ()),
        settings.token.private_key,
        *settings.token.verify_keys,
    ]
    return [file for file in named if file is not None]


def read_key_files(settings: CommunicationsApi) -> dict[str, str]:
    """Reads the files of keys and certificates: text by path. Blocks. Raises ``BadConfiguration``."""
    key_files = {}
    for file in _files(settings):
        try:
            key_files[str(file)] = file.read_bytes().decode("latin-1")
        except OSError as error:
            raise BadConfiguration(f"{file} can't be read: {error.strerror}") from error
    if (following := read_next_key(settings.token)) is not None:
        file, public_key = following
        key_files[str(file)] = public_key.decode("latin-1")  # a worker needs no more of it
    return key_files


def signing_public_key(settings: CommunicationsApi, key_files: Mapping[str, str]) -> str | None:
    """The public half (PEM) of the key that workers with these files sign tokens with; None: it can't be read, as the
    workers will say. Blocks."""
    file, password = signing_key(settings)
    try:
        return public_half(key_files[str(file)].encode("latin-1"), password).decode()
    except FileProblem:
        return None


@contextmanager
def key_files_in_memory(settings: CommunicationsApi, key_files: Mapping[str, str]) -> Iterator[CommunicationsApi]:
    """The settings with paths that hold what ``key_files`` says: in memory, while this is entered."""
    with ExitStack() as stack:

        def place(file: Path) -> Path:
            if str(file) not in key_files:
                return file
            descriptor = os.memfd_create(file.name, os.MFD_CLOEXEC)
            stack.callback(os.close, descriptor)
            write_all(descriptor, key_files[str(file)].encode("latin-1"))
            return Path(f"/proc/self/fd/{descriptor}")

        ssl, token = settings.ssl, settings.token
        ssl = attrs.evolve(
            ssl,
            key=place(ssl.key),
            cert=place(ssl.cert),
            ca=place(ssl.ca) if ssl.ca else None,
            crl=place(ssl.crl) if ssl.crl else None,
        )
        verify_keys = [*token.verify_keys]
        if token.private_key is not None and str(following := next_key_file(token.private_key)) in key_files:
            verify_keys.append(following)
        token = attrs.evolve(token, verify_keys=tuple(map(place, verify_keys)))
        if token.private_key is not None:
            token = attrs.evolve(token, private_key=place(token.private_key))
        yield attrs.evolve(settings, ssl=ssl, token=token)
