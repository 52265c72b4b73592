"""The running daemon, asked through its command socket. Blocking calls, standard library only."""

from __future__ import annotations

import http.client
import json
import socket
from argparse import Namespace
from pathlib import Path
from typing import Any, Final

from wazuh_comms_trio.cli.program import Failure, config_path

#: The exit status where no daemon serves the socket.
EXIT_NOT_RUNNING: Final = 3


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, seconds: float) -> None:
        super().__init__("localhost", timeout=seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def find_command_socket(file: Path) -> Path:
    """The socket's path as the file names it, also when the rest of the file can't be used: the running daemon was
    started with a better one, and what is wrong with the new one is its word to say. Raises ``ConfigError`` when there
    is no reading it at all."""
    import attrs

    from wazuh_comms_trio.config.load import load_config
    from wazuh_comms_trio.config.models import CommunicationsApi
    from wazuh_comms_trio.config.problems import ConfigError
    from wazuh_comms_trio.config.source import parse

    try:
        return load_config(file, check_files=False, credentials=False).config.communications_api.command_socket
    except ConfigError:
        try:
            section = parse(file.read_text(), ("communications_api",)).data.get("communications_api")
        except (OSError, ValueError):
            section = None
        if not isinstance(section, dict):
            raise
        named = section.get("command_socket", attrs.fields(CommunicationsApi).command_socket.default)
        if not isinstance(named, str | Path):
            raise
        return file.absolute().parent / named


def ask_daemon(arguments: Namespace, method: str, path: str, seconds: float) -> dict[str, Any]:
    command_socket = find_command_socket(Path(config_path(arguments.config)))
    connection = _Connection(command_socket, seconds)
    try:
        connection.request(method, path)
        reply = connection.getresponse()
        body = reply.read()
    except PermissionError as error:
        raise Failure(f"{command_socket}: not permitted; run this as root, or as the service's user") from error
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise Failure(f"the daemon doesn't run: nobody serves {command_socket}", EXIT_NOT_RUNNING) from error
    except TimeoutError as error:
        raise Failure(f"the daemon doesn't answer on {command_socket} within {seconds:.0f} s") from error
    except (OSError, http.client.HTTPException) as error:
        raise Failure(f"{command_socket}: {error}") from error
    finally:
        connection.close()
    try:
        answer = json.loads(body)
    except ValueError as error:
        raise Failure(f"{command_socket} doesn't answer as the daemon does") from error
    if reply.status != 200 or not isinstance(answer, dict):
        message = answer.get("message", "") if isinstance(answer, dict) else ""
        raise Failure(f"the daemon refuses: {message or reply.status}")
    return answer
