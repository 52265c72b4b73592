"""What a store raises when it can't be used, beside ``errors.BackendUnavailable`` itself."""

from __future__ import annotations

from wazuh_comms_trio.errors import BackendUnavailable


class StateUnusable(BackendUnavailable):
    """The state on disk can't be opened as it is; the text says why and what to do. Raised when opening, never to an
    agent."""


class StateForeign(StateUnusable):
    """... and that is for good: it is another program's, or a newer version's that this one doesn't understand."""


def reported(kind: type[BackendUnavailable] = BackendUnavailable) -> BackendUnavailable:
    """A new error whose cause is in the log."""
    error = kind()
    error.reported = True
    return error
