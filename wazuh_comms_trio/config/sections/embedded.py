"""The section ``embedded``: files of our own, and how much of them is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from attrs import field, frozen

from wazuh_comms_trio.config.key import days, size
from wazuh_comms_trio.config.key import key as about

__all__ = ["Embedded", "EmbeddedDocuments", "EmbeddedEvents", "Keep"]


@frozen
class EmbeddedEvents:
    max_file_bytes: int = field(
        default=128 * 1024 * 1024,
        metadata=size("A file of stateless events is closed, and the next begun, at this size."),
    )
    max_bytes: int = field(
        default=10 * 1024 * 1024 * 1024, metadata=size("What all files of stateless events may take.")
    )
    on_full: Literal["refuse", "delete_oldest"] = field(
        default="refuse",
        metadata=about("When they take that much: `refuse` further ones (503), or delete the oldest file."),
    )
    agent_percent: float = field(
        default=10.0,
        metadata=about(
            "What one agent may have of `max_bytes`; with few agents an even part. What it sends beyond that is "
            "refused (503), or with `delete_oldest` its own oldest go first. 100: no limit.",
            unit="%",
            above=0,
            maximum=100,
        ),
    )


@frozen
class EmbeddedDocuments:
    max_bytes: int = field(
        default=0,
        metadata=size(
            "What all documents of the state index may take, each with 200 bytes for its row. What would add to "
            "them beyond that is refused (503); what deletes or shrinks is always taken. 0: no limit.",
            minimum=0,
        ),
    )
    agent_percent: float = field(
        default=10.0,
        metadata=about(
            "What one agent may have of `max_bytes`; with few agents an even part. 100: no limit; so it is with "
            "`events.document_id: global`, too, where a document may be another's.",
            unit="%",
            above=0,
            maximum=100,
        ),
    )


@frozen
class Keep:
    finished_commands: int = field(
        default=90, metadata=days("Days for which commands that have ended are kept. 0: for ever.", zero=True)
    )
    removed_agents: int = field(
        default=30,
        metadata=days(
            "Days for which a removed agent's documents are kept; when its uuid is back they stay. 0: for ever.",
            zero=True,
        ),
    )
    documents: int = field(
        default=0, metadata=days("Days for which a document is kept that nobody changes. 0: for ever.", zero=True)
    )
    audit_bytes: int = field(
        default=1024 * 1024 * 1024,
        metadata=size("What the audit log may take; above it its oldest part goes, if that is `audit_days` old."),
    )
    audit_days: int = field(default=90, metadata=days("Days for which each part of the audit log is kept at least."))


@frozen
class Embedded:
    path: Path = field(
        default=Path("/var/lib/wazuh-comms"),
        metadata=about("The state folder: the SQLite file, the events' files, the quarantine, the audit log."),
    )
    events: EmbeddedEvents = field(default=EmbeddedEvents(), metadata=about("Stateless events, kept as NDJSON files."))
    keep: Keep = field(
        default=Keep(),
        metadata=about(
            "How long things are kept. Ages count while the daemon runs, from when it first saw the thing; nothing is "
            "deleted in a state's first day with this version."
        ),
    )
    documents: EmbeddedDocuments = field(
        default=EmbeddedDocuments(), metadata=about("How much the state index may take.")
    )
