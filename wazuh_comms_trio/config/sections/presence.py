"""The section ``presence``: from when on an agent counts as gone."""

from __future__ import annotations

from attrs import field, frozen

from wazuh_comms_trio.config.key import key, seconds

__all__ = ["Presence"]


@frozen
class Presence:
    disconnected_after: float | None = field(
        default=None,
        metadata=seconds(
            "An agent of which nothing was heard for so long is `disconnected`. By default "
            "`indexer.disconnected_after`, also where there is no indexer. More than `timeouts.commands`: a poll that "
            "waits is heard when it begins and ends."
        ),
    )
    events: bool = field(
        default=False,
        metadata=key(
            "Whether agents that are lost, that send nothing any more, and that are back, are told to the "
            "engine as events."
        ),
    )
    partial_after: float = field(
        default=3600.0,
        metadata=seconds("With `events`: an agent that is there and sent no event for so long is told of."),
    )
