"""Why an agent is silent: what is known of it, as sentences with what to do. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from attrs import frozen

from wazuh_comms_trio.cli.output import duration, timestamp
from wazuh_comms_trio.foundation.journal import printable

if TYPE_CHECKING:
    from wazuh_comms_trio.backends.interfaces import Agent, Command

__all__ = ["Facts", "explain", "facts_document"]

#: Seconds after which an agent that was heard is silent: a token lives for 15 minutes, a poll for 5.
SILENT_AFTER: Final = 330.0
#: Seconds within which two addresses are two hosts in turn.
IN_TURN: Final = 900.0
#: How often an agent has to come back to an address that it had left: one that moves once is no clone.
RETURNS: Final = 3
#: Seconds for which two addresses have to be heard side by side, by whatever nodes: then nobody moved to the other.
BESIDE: Final = 600.0
_NAMES: Final = {
    "login": "Log-in",
    "token": "Token",
    "poll": "Poll for commands",
    "stateless": "Stateless events",
    "stateful": "Stateful events",
    "files": "Request for a file",
}
#: What to do about a refusal, by channel and cause; by cause alone in the second.
_LOGIN_ADVICE: Final = {
    "wrong_key": "its key isn't the one that is stored: `wazuh-comms agents rekey {id}` prints a new one for it",
    "unknown_agent": "no agent has this uuid: let the agent join again, or `wazuh-comms agents add NAME --uuid {id}`",
    "foreign_certificate": "its client certificate has to name its uuid (`ssl.client_identity`): give it one that does",
    "unavailable": "the store of agents was away: see `wazuh-comms status`",
}
#: Causes for which a log-in is refused until somebody does something.
_LASTING: Final = frozenset({"wrong_key", "unknown_agent", "foreign_certificate"})
_TOKEN_ADVICE: Final = {
    "expired": "everyday: the agent logs in again",
    "agent_removed": "the agent was removed here: let it join again",
    "agent_rekeyed": "it has another key since: give the agent that one, and it logs in again",
    "foreign_certificate": _LOGIN_ADVICE["foreign_certificate"],
    "from_the_future": "the token was made by a node whose clock is ahead: set the clocks of the nodes (NTP)",
}


@frozen
class Facts:
    """What is known of one agent; ``seen``: what the daemon and other nodes say (``services.agent_journal.merged``).
    ``silent``: why the daemon can't be asked. ``shared``: other nodes may have heard of the agent, too, and ``unasked``
    says why what they store can't be read. ``nodes``: the names of others that heard of it. ``stored``: when it was
    heard last, as it is stored, epoch seconds. ``groups_without_file``: groups of the agent that have no file in
    ``files``, the folder of this node."""

    agent_id: str
    agent: Agent | None
    seen: Mapping[str, Any]
    commands: Sequence[Command] = ()
    quarantined: int = 0
    now: float = 0.0
    silent: str | None = None
    unreadable: str | None = None
    shared: bool = False
    unasked: str | None = None
    nodes: Sequence[str] = ()
    stored: float | None = None
    groups_without_file: Sequence[str] = ()
    files: str = ""


def facts_document(facts: Facts) -> dict[str, Any]:
    """The facts for ``--json``."""
    agent = facts.agent
    return {
        "uuid": facts.agent_id,
        "name": None if agent is None else agent.name,
        "enrolled": agent is not None,
        "last_login": None if agent is None else timestamp(agent.last_login),
        "heard": dict(facts.seen),
        "last_seen": timestamp(facts.stored),
        "nodes": list(facts.nodes),
        "commands": [{"document_id": one.document_id, "status": one.status} for one in facts.commands],
        "quarantined": facts.quarantined,
        "sentences": explain(facts),
    }


def explain(facts: Facts) -> list[str]:
    return [printable(sentence) for sentence in _sentences(facts)]


def _sentences(facts: Facts) -> Iterator[str]:
    yield from _who(facts)
    channels: Mapping[str, Any] = facts.seen.get("channels", {})
    yield from _presence(facts, channels)
    for name, kinds in channels.items():
        yield from _channel(facts, name, kinds)
    yield from _clone(facts)
    yield from facts.seen.get("limits", ())
    yield from _groups(facts)
    yield from _commands(facts)
    if facts.quarantined:
        yield (
            f"{facts.quarantined} of its events are in quarantine, and"
            f" `wazuh-comms quarantine list --agent {facts.agent_id}` says why."
        )
    if facts.unasked is not None:
        yield (
            f"Only this node was asked, since what other nodes store can't be read: {facts.unasked}. What they heard of"
            " it is in their own `agents why`."
        )
    elif facts.nodes:
        names = ", ".join(facts.nodes)
        yield f"Others heard of it, too, and what they say may be a minute old: {names}."
    elif facts.shared:
        yield "No other node has heard of it, as of a minute ago."


def _who(facts: Facts) -> Iterator[str]:
    agent = facts.agent
    if facts.unreadable is not None:
        yield f"Agent {facts.agent_id}: its record can't be used, so it can't log in: {facts.unreadable}"
    elif agent is None:
        yield f"No agent has the uuid {facts.agent_id}: it can't log in. Let it join again, or add it."
    elif agent.last_login is None:
        yield f"Agent {agent.name} ({agent.id}) has never logged in."
    else:
        yield f"Agent {agent.name} ({agent.id}) logged in last at {timestamp(agent.last_login)}."


def _presence(facts: Facts, channels: Mapping[str, Any]) -> Iterator[str]:
    if facts.silent is not None:
        if not channels:
            yield f"What was heard of it isn't known: {facts.silent}."
            yield from _stored(facts)
            return
        yield f"What this node heard of it lately isn't known: {facts.silent}."
    heard = [(kinds["success"]["at"], name) for name, kinds in channels.items() if kinds["success"] is not None]
    refused = any(kinds["refusal"] is not None for kinds in channels.values())
    if heard and facts.agent is None and facts.unreadable is None:
        yield f"It was heard last at {timestamp(max(heard)[0])}, when there was such an agent."
        return
    if facts.seen.get("parked"):
        yield "It is there: its poll waits for commands now."
    elif heard and facts.now - max(heard)[0] <= SILENT_AFTER:
        yield f"It is there: it was heard {_ago(facts, max(heard)[0])} ago."
        if _is_kept_out(channels, max(heard)[0]):
            yield "Since then a log-in with its uuid was refused: if that was itself, it won't be there any more."
    elif heard:
        yield (
            f"It is silent since {timestamp(max(heard)[0])} ({_ago(facts, max(heard)[0])}): its service may have"
            " stopped, its host may be down, or its network away."
        )
    elif not refused:
        yield (
            "Nothing was heard of it since the daemon started: look whether the agent runs, whether it has this"
            " server's address and port, and whether a firewall lets it through; a failed TLS handshake is in the log"
            " with its address."
        )
        yield from _stored(facts)
    silent = {"stateless", "stateful"}.isdisjoint(name for _, name in heard)
    if heard and silent and "poll" in {name for _, name in heard}:
        yield "It polls and sends no events: look at the agent's own log and which of its modules are on."


def _is_kept_out(channels: Mapping[str, Any], heard_at: float) -> bool:
    """Whether its log-in was refused after it was heard last, by what doesn't pass by itself."""
    refusal = channels.get("login", {}).get("refusal")
    return refusal is not None and refusal["at"] > heard_at and refusal["cause"] in _LASTING


def _stored(facts: Facts) -> Iterator[str]:
    if facts.stored is not None:
        yield f"It was heard last at {timestamp(facts.stored)} ({_ago(facts, facts.stored)} ago), as is stored."


def _channel(facts: Facts, name: str, kinds: Mapping[str, Any]) -> Iterator[str]:
    success, refusal = kinds["success"], kinds["refusal"]
    what = _NAMES.get(name, name)
    if success is not None:
        yield f"{what}, last taken: {timestamp(success['at'])} from {_where(success)}."
    if refusal is not None:
        over = success is not None and success["at"] > refusal["at"]
        tail = "; it was taken since" if over else _advice(facts, name, refusal["cause"])
        where = f"{timestamp(refusal['at'])} from {_where(refusal)}"
        yield f"{what}, last refused: {where}: {refusal['cause']}{tail}."


def _where(kind: Mapping[str, Any]) -> str:
    """The agent's address, and which other node it was that heard it."""
    return f"{kind['address']} by {kind['node']}" if kind.get("node") else str(kind["address"])


def _advice(facts: Facts, channel: str, cause: str) -> str:
    found = (_LOGIN_ADVICE if channel == "login" else _TOKEN_ADVICE).get(cause)
    if found is None and cause.startswith("503"):
        found = "a store was away or a limit was reached; the agent sends it again: see `wazuh-comms status`"
    elif found is None and cause.startswith("429"):
        found = "it sends more than `limits` gives one agent, and tries again: `wazuh-comms config check` says how much"
    elif found is None and cause.startswith("404") and channel == "files":
        found = "it asked for a file that isn't in `files.path`, or isn't of one of its groups"
    elif found is None and cause.startswith("408"):
        found = "its request came too slowly: see its network, and `limits.body_rate`"
    elif found is None and cause.startswith(("400", "413")):
        found = "what the agent sent isn't taken as it is; the log has the request"
    return "" if found is None else "; " + found.format(id=facts.agent_id)


def _clone(facts: Facts) -> Iterator[str]:
    addresses: Mapping[str, float] = facts.seen.get("addresses", {})
    recent = [address for address, when in addresses.items() if facts.now - when <= IN_TURN]
    since: Mapping[str, float] = facts.seen.get("since", {})
    spans = sorted((since.get(address, addresses[address]), addresses[address]) for address in recent)
    beside = any(min(end, other_end) - start >= BESIDE for (_, end), (start, other_end) in pairwise(spans))
    if len(recent) > 1 and (beside or facts.seen.get("returns", 0) >= RETURNS):
        yield (
            f"It is heard from {' and '.join(sorted(recent))} in turn: two hosts may have the same key, as copies of"
            " one machine do. Remove it from one, and let that one join anew."
        )
    elif len(addresses) > 1:
        spoken = sorted(addresses.items(), key=lambda item: -item[1])
        yield f"It was heard from {', '.join(f'{address} (last {timestamp(when)})' for address, when in spoken)}."


def _groups(facts: Facts) -> Iterator[str]:
    for group in facts.groups_without_file:
        yield (
            f"Its group {group} has no file {group}.yml in {facts.files} on this node: `set-group` and `fetch-config`"
            " end as failed."
        )


def _commands(facts: Facts) -> Iterator[str]:
    pending = [command for command in facts.commands if command.status == "pending"]
    if pending:
        wait = "1 command waits for it," if len(pending) == 1 else f"{len(pending)} commands wait for it, the newest"
        yield f"{wait} {pending[0].document_id} ({pending[0].action.name})."
    elif facts.commands:
        last = facts.commands[0]
        reason = f": {last.result.message}" if last.result is not None and last.result.message else ""
        yield f"Its last command, {last.document_id} ({last.action.name}), is {last.status}{reason}."


def _ago(facts: Facts, when: float) -> str:
    return duration(facts.now - when, spelled_out=True)
