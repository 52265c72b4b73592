"""Enrolment through authd: add, remove and look up agents, over ``open_pool("authd")``.

authd crashes on a number where a string belongs, so types are checked before anything is sent. It answers one request
per connection, in one thread: a long pause between connecting and asking would delay everybody, and the pool makes
none. A call that is cancelled may have been carried out all the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from attrs import field, frozen

from wazuh_comms_trio.transport.pool.pool import Pool
from wazuh_comms_trio.wire.text_rules import (
    check_agent_address,
    check_agent_id,
    check_agent_key,
    check_agent_name,
    check_duration,
    check_flag,
    check_group,
    check_list,
)


@frozen
class EnrolledAgent:
    """An agent as authd has it. ``key`` is its secret."""

    id: str
    name: str
    ip: str
    key: str = field(repr=False)


@frozen(kw_only=True)
class ForceInsertion:
    """When an agent that has the same name, address or id is replaced. Times as authd takes them: ``"1h"``, ``"30m"``,
    ``"0"``.

    ``disconnected_time``: only one that has been disconnected for so long, None for any. ``after_registration_time``:
    only one that was registered at least so long ago. ``key_mismatch``: only one whose key differs, as the framework
    always asks.
    """

    enabled: bool = True
    key_mismatch: bool = True
    disconnected_time: str | None = None
    after_registration_time: str = "0"

    def as_arguments(self) -> dict[str, Any]:
        """As authd takes it: all four, since it refuses an object that lacks one (9002). ``MessageInvalid`` (1012) for
        what is neither true nor false, or no length of time."""
        disconnected = self.disconnected_time
        return {
            "enabled": check_flag(self.enabled, "force.enabled"),
            "key_mismatch": check_flag(self.key_mismatch, "force.key_mismatch"),
            "disconnected_time": {
                "enabled": disconnected is not None,
                "value": "0" if disconnected is None else check_duration(disconnected, "force.disconnected_time"),
            },
            "after_registration_time": check_duration(self.after_registration_time, "force.after_registration_time"),
        }


async def add_agent(
    authd: Pool,
    name: str,
    ip: str = "any",
    *,
    groups: Iterable[str] = (),
    agent_id: str | None = None,
    key: str | None = None,
    force: ForceInsertion | None = None,
) -> EnrolledAgent:
    """Enrol an agent; authd chooses id and key unless they are given.

    authd writes what it is given into its key file as it is, so all of it is checked here: a name has 2 to 128 letters,
    digits, ``_``, ``.``, ``%`` and ``-``; ``ip`` is ``any``, an address or a network; a key has 64 letters and digits.

    authd's own errors come with its number: ``WazuhException`` 9008 ``Duplicate name`` and its kin.
    ``MessageInvalid`` (1012) for an argument of a wrong type or form, before anything is sent.

    Cancelled: the connection is given up; the agent may have been added all the same.
    """
    arguments: dict[str, Any] = {"name": check_agent_name(name), "ip": check_agent_address(ip)}
    if names := [check_group(group) for group in check_list(groups, "groups")]:
        arguments["groups"] = ",".join(names)
    if agent_id is not None:
        arguments["id"] = check_agent_id(agent_id)
    if key is not None:
        arguments["key"] = check_agent_key(key)
    if force is not None:
        arguments["force"] = force.as_arguments()
    return await authd.request({"function": "add", "arguments": arguments}, type=EnrolledAgent)


async def remove_agent(authd: Pool, agent_id: str, *, purge: bool = False) -> str:
    """Remove an agent; returns authd's confirmation. ``purge`` also forgets its key entry for good. Errors and
    cancellation as ``add_agent``."""
    arguments = {"id": check_agent_id(agent_id), "purge": check_flag(purge, "purge")}
    return str(await authd.request({"function": "remove", "arguments": arguments}))


async def get_agent(authd: Pool, agent_id: str) -> EnrolledAgent:
    """An enrolled agent with its key. Errors as ``add_agent``. Cancelled: the connection is given up."""
    arguments = {"id": check_agent_id(agent_id)}
    return await authd.request({"function": "get", "arguments": arguments}, type=EnrolledAgent)
