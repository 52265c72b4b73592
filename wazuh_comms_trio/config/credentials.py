"""systemd's credentials (``LoadCredential=``): keys and passwords that only root can read, given to the service alone.

A credential that has a key's name stands in for what the file says: ``ssl.key``, ``ssl.cert``, ``ssl.ca`` and
``token.private_key`` are files of PEM, ``ssl.keyfile_password`` holds the password.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import attrs

from wazuh_comms_trio.config.models import Config

__all__ = ["with_credentials"]

_LARGEST_PASSWORD: Final = 4096


def with_credentials(config: Config, environment: Mapping[str, str] = os.environ) -> Config:
    """The configuration with what ``$CREDENTIALS_DIRECTORY`` has for it."""
    folder = environment.get("CREDENTIALS_DIRECTORY")
    if not folder:
        return config
    api = config.communications_api

    def file(name: str, configured: Path | None) -> Path | None:
        path = Path(folder, name)
        return path if path.is_file() else configured

    ssl, token = api.ssl, api.token
    ssl = attrs.evolve(
        ssl,
        key=file("ssl.key", ssl.key) or ssl.key,
        cert=file("ssl.cert", ssl.cert) or ssl.cert,
        ca=file("ssl.ca", ssl.ca),
        keyfile_password=_password(Path(folder, "ssl.keyfile_password"), ssl.keyfile_password),
    )
    token = attrs.evolve(token, private_key=file("token.private_key", token.private_key))
    return attrs.evolve(config, communications_api=attrs.evolve(api, ssl=ssl, token=token))


def _password(path: Path, configured: str | None) -> str | None:
    """Its first line."""
    try:
        with path.open("rb") as opened:
            return opened.read(_LARGEST_PASSWORD).split(b"\n")[0].removesuffix(b"\r").decode()
    except (OSError, UnicodeDecodeError):
        return configured
