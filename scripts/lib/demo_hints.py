"""What to try next, as commands that work when pasted into any terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from shlex import quote

INDENT = "    "


def hints(folder: Path, demo: Mapping[str, str], port: int, enrollment_port: int | None) -> str:
    """``demo`` has ``uuid``, ``name``, ``key``, ``user`` and ``password``."""
    url = f"https://127.0.0.1:{port}/api/v1"
    curl = f"curl -sS --cacert {quote(str(folder / 'certs' / 'ca.pem'))}"
    bearer = '-H "Authorization: Bearer $TOKEN"'
    tool = f"{installed_tool()} --config {quote(str(folder / 'wazuh-server.yml'))}"
    metadata = compact(
        {
            "agent": {
                "id": demo["uuid"],
                "name": demo["name"],
                "type": "Endpoint",
                "version": "6.0.0",
                "groups": [],
                "host": {"hostname": "demo", "os": {"name": "Debian", "type": "Linux"}},
            }
        }
    )
    credentials = compact({"uuid": demo["uuid"], "key": demo["key"]})
    stateless = lines(
        metadata,
        compact({"module": "logcollector", "collector": "file"}),
        compact({"log": {"file": {"path": "/var/log/syslog"}}, "event": {"original": "hello"}}),
    )
    stateful = lines(
        metadata,
        compact({"id": "zlib1g", "module": "inventory", "collector": "packages", "operation": "create"}),
        compact({"package": {"name": "zlib1g", "version": "1:1.3"}}),
    )
    json_body = "-H 'Content-Type: application/json'"
    only_value = """sed 's/.*"token": *"\\([^"]*\\)".*/\\1/'"""
    authenticate = f"TOKEN=$({curl} {json_body} -d {quote(credentials)} {url}/authentication | {only_value})"
    post = f"{curl} {bearer} {json_body} --data-binary @-"
    steps = [
        ("Authenticate as the demo agent", f'{authenticate}; echo "$TOKEN"'),
        ("Send a stateless event (the answer is 204)", f"{stateless} | {post} -i {url}/events/stateless"),
        ("Send a stateful event", f"{stateful} | {post} -w '\\n' {url}/events/stateful"),
        ("Look at them", f"{tool} events tail"),
        ("Park a poll: it waits for a command", f"{curl} {bearer} -w '\\n' {url}/commands"),
        ("Meanwhile, from another terminal, send one", f"{tool} commands send --agent {demo['uuid']} restart"),
        ("What became of it", f"{tool} commands list"),
        ("Fetch a group's file, as agents do", f"{curl} {bearer} '{url}/files?file_name=default.yml'"),
        ("How the daemon is", f"{tool} status"),
    ]
    if enrollment_port is not None:
        steps.append(
            (
                f"Join with a real agent (it must trust {folder / 'certs' / 'ca.pem'})",
                f"wazuh-agent --enroll --enroll-url https://127.0.0.1:{enrollment_port} --user {quote(demo['user'])} "
                f"--password {quote(demo['password'])}",
            )
        )
    head = [
        "",
        f"Agents are served on https://127.0.0.1:{port}"
        + (f", and join on https://127.0.0.1:{enrollment_port}" if enrollment_port is not None else "")
        + ". Ctrl-C ends it.",
        "",
        f"Demo agent: uuid {demo['uuid']}, key {demo['key']}",
        "",
        "What to try next, in another terminal:",
        "",
    ]
    return "\n".join(head + [part for title, command in steps for part in (f"# {title}", INDENT + command, "")])


def compact(document: object) -> str:
    return json.dumps(document, separators=(",", ":"))


def lines(*parts: str) -> str:
    return "printf '%s\\n' " + " ".join(quote(part) for part in parts)


def installed_tool() -> str:
    """The tool of the Python that runs the demo; where that has no programs installed, as a module."""
    program = Path(sys.executable).with_name("wazuh-comms")
    return quote(str(program)) if program.exists() else f"{quote(sys.executable)} -m wazuh_comms_trio.cli.tool"
