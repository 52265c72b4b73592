"""What agents are told to run: active responses as JSON, and scripts as text for agents before 4.2. Pure code."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from wazuh_comms_trio.errors import MessageInvalid
from wazuh_comms_trio.wire.envelope import create_wazuh_socket_message
from wazuh_comms_trio.wire.text_rules import check_line, check_list

#: What the messages say where they come from.
ORIGIN: Final[Mapping[str, str]] = {"module": "framework"}
_NAME: Final = re.compile(r"!?[A-Za-z0-9_][A-Za-z0-9_.\-]*\Z")


def create_active_response(
    command: str,
    arguments: Sequence[str] = (),
    *,
    custom: bool = False,
    alert: Mapping[str, Any] | None = None,
    origin: Mapping[str, Any] | None = None,
) -> str:
    """An active response as a version 1 message in JSON, on one line. ``custom``: ``command`` is a script in the
    agent's folder of active responses, not a command that its server configured. 1012 for a name that can't be one,
    arguments that aren't text."""
    if not isinstance(command, str) or not _NAME.match(command):
        raise MessageInvalid(1012, f"{command!r:.60} is no command's name: letters, digits, '_', '.' and '-'")
    arguments = check_list(arguments, "arguments")
    for argument in arguments:
        check_line(argument, "an argument")
    name = f"!{command}" if custom and not command.startswith("!") else command
    parameters = {"extra_args": arguments, "alert": dict(alert or {})}
    message = create_wazuh_socket_message(dict(ORIGIN if origin is None else origin), name, parameters)
    try:
        return json.dumps(message, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise MessageInvalid(1012, f"the alert or the origin can't be written as JSON: {error}") from error


def create_script_command(script: str, *arguments: str) -> str:
    """``!script argument…`` as text, for agents before 4.2. 1012 for an argument that isn't one word: the agent splits
    at spaces."""
    if not isinstance(script, str) or not _NAME.match(script):
        raise MessageInvalid(1012, f"{script!r:.60} is no script's name: letters, digits, '_', '.' and '-'")
    for argument in arguments:
        if not check_line(argument, "an argument") or re.search(r"\s", argument):
            raise MessageInvalid(1012, f"{argument!r:.60} isn't one word: give it with create_active_response")
    return " ".join(["!" + script.removeprefix("!"), *arguments])
