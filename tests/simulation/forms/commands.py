"""What the commands say that an operator sends, or a local program posts: all of it follows from the id."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wazuh_comms_trio.backends.interfaces import Action, Command, Target

__all__ = ["make_command", "wrong_members"]

#: In the arguments of such a command: its id.
_OF = "of"


def make_command(document_id: str, target: Target, timeout: float) -> Command:
    return Command(
        document_id=document_id,
        target=target,
        action=Action("restart", version=f"v{document_id}", args={_OF: document_id, "é": [1, None, {"x": 0.5}]}),
        timeout=timeout,
        request_id=f"r{document_id}",
        order_id=f"o{document_id}",
        source="Users/Services",
        user=f"u{document_id}",
    )


def wrong_members(received: Mapping[str, Any]) -> Mapping[str, Any]:
    """Those of a command, as its agent has it, that aren't as they were sent; a group's ones are those of its members.
    None where it is another kind of command."""
    sent_as = (received["action"].get("args") or {}).get(_OF)
    if sent_as is None:
        return {}
    document_id = received["document_id"]
    if document_id != sent_as and not document_id.startswith(f"{sent_as}_"):
        return {"document_id": document_id}
    made = make_command(sent_as, Target("agent", ""), 0.0)
    args = None if made.action.args is None else dict(made.action.args)
    wanted = {
        "request_id": made.request_id,
        "order_id": made.order_id,
        "source": made.source,
        "user": made.user,
        "action": {"name": made.action.name, "version": made.action.version, "args": args},
    }
    return {name: received.get(name) for name, value in wanted.items() if received.get(name) != value}
