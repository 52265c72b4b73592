"""Logs: one line a record, with its context, and no secret in it.

The context (request id, agent, worker) lives in the variables of ``foundation.log_context``. ``set_up_logs`` is
called once per process. Levels and formats are the configuration's; the lines go to stderr, where systemd's journal
picks them up, with their priorities when it is the journal that listens.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import traceback
from collections.abc import Iterator
from typing import Final, Literal, TextIO

from wazuh_comms_trio.config.models import Logging
from wazuh_comms_trio.daemon.logging.output import DescriptorHandler, LogFileHandler, LogFileUnusable
from wazuh_comms_trio.foundation.journal import is_journal, printable, with_priority
from wazuh_comms_trio.foundation.log_context import AGENT, REQUEST, WORKER
from wazuh_comms_trio.foundation.timestamps import to_iso

__all__ = ["LogFileUnusable", "make_formatter", "mask", "set_up_logs"]

#: Loggers of libraries that say, at their lower levels, what no operator asked for (bodies and headers among it).
_QUIET: Final = ("hypercorn", "quart", "trio", "httpcore", "httpx", "asyncio", "charset_normalizer")


# --- what never gets into a log

_NAMES: Final = "(?:key|key_hash|password|passwd|secret|token|keyfile_password|private_key|authorization)"
_SECRETS: Final = re.compile(
    rf"""
      \beyJ[\w-]{{4,}}\.[\w-]+(?:\.[\w-]*)?                                    # a token, wherever it stands
    | (?P<scheme>(?i:\bbearer\s+|authorization\W{{1,4}}basic\s+))[\w+/=.~-]{{4,}}   # an Authorization header
    | (?P<name>(?i:(?P<quote>\\*["']){_NAMES}(?P=quote)\s*[:=]\s*|\b{_NAMES}=))  # "name": "value", name=value
      (?:\\+(?P<inner>["']).*?(?P=inner)|"(?:[^"\\]|\\.)*"?|'(?:[^'\\]|\\.)*'?|[^\s,;&}})"']+)
    """,
    re.VERBOSE,
)
MASK: Final = "***"


def mask(text: str) -> str:
    """The text without tokens, keys and passwords. A second line of defence: nothing should log them in the first
    place.
    """
    return _SECRETS.sub(_masked, text)


def _masked(match: re.Match[str]) -> str:
    return (match["scheme"] or match["name"] or "") + MASK


# --- formats


def _moment(record: logging.LogRecord) -> str:
    return to_iso(record.created)


class _Formatter(logging.Formatter):
    def message(self, record: logging.LogRecord) -> str:
        return mask(printable(record.getMessage()))

    def traceback(self, record: logging.LogRecord) -> str | None:
        if record.exc_info and record.exc_info[0] is not None:
            return mask("\n".join(_traceback_lines(record.exc_info[1])))
        return None


#: Of an exception group's traceback, before what each line says; and what stands between two exceptions.
_INDENT: Final = " |"
_BETWEEN: Final = frozenset(
    {
        "",
        "The above exception was the direct cause of the following exception:",
        "During handling of the above exception, another exception occurred:",
    }
)


def _traceback_lines(error: BaseException | None) -> Iterator[str]:
    """A traceback's lines. Each error is one of them, whatever breaks there are in what it says: else whoever has a say
    in that begins lines of the log."""
    if error is None:
        return
    whole = traceback.TracebackException.from_exception(error, compact=True)
    _join_notes(whole)
    for part in whole.format():
        lines = part.removesuffix("\n").split("\n")
        said = [line.lstrip(_INDENT) for line in lines]
        if said[0].startswith(('File "', "[Previous line")) or _BETWEEN.issuperset(said):
            yield from map(printable, lines)
        else:
            yield printable("\n".join(lines))


def _join_notes(found: traceback.TracebackException) -> None:
    """A note is one line, too."""
    waiting = [found]
    while waiting:
        one = waiting.pop()
        if notes := getattr(one, "__notes__", None):
            one.__notes__ = [printable(str(note)) for note in notes]
        waiting += [each for each in (one.__cause__, one.__context__, *(one.exceptions or ())) if each is not None]


def _context(record: logging.LogRecord) -> dict[str, str]:
    values = (("worker", WORKER.get()), ("request", REQUEST.get()), ("agent", AGENT.get()))
    return {name: printable(value) for name, value in values if value is not None}


class PlainFormatter(_Formatter):
    """``2025-03-11T19:12:36.629Z INFO name: message [request=… agent=…]``; a traceback stands on the lines after it."""

    def format(self, record: logging.LogRecord) -> str:
        context = " ".join(f"{name}={value}" for name, value in _context(record).items())
        line = f"{_moment(record)} {record.levelname} {record.name}: {self.message(record)}"
        line += f" [{context}]" if context else ""
        lines = self.traceback(record)
        return f"{line}\n{lines}" if lines else line


class JsonFormatter(_Formatter):
    """One object a line: ``time``, ``level``, ``logger``, ``message``, the context's names, ``traceback``."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": _moment(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self.message(record),
            **_context(record),
        }
        if lines := self.traceback(record):
            entry["traceback"] = lines
        return json.dumps(entry, ensure_ascii=False)


class JournalFormatter(logging.Formatter):
    """Another format's lines, each with its syslog priority in front (``<3>``), as the journal reads them from
    stderr.
    """

    _PRIORITIES: Final = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        priority = next((number for level, number in self._PRIORITIES if record.levelno >= level), 7)
        return with_priority(priority, self._inner.format(record))


def make_formatter(format: Literal["plain", "json"], *, journal: bool = False) -> logging.Formatter:
    formatter: logging.Formatter = JsonFormatter() if format == "json" else PlainFormatter()
    return JournalFormatter(formatter) if journal else formatter


def _make_handler(settings: Logging, stream: TextIO | None) -> logging.Handler:
    if settings.file is not None:
        handler: logging.Handler = LogFileHandler(settings.file)
        handler.setFormatter(make_formatter(settings.format))
        return handler
    target = sys.stderr if stream is None else stream
    try:
        handler = DescriptorHandler(target.fileno())
    except (OSError, ValueError, AttributeError):  # a stream that is only Python's
        handler = logging.StreamHandler(target)
    handler.setFormatter(make_formatter(settings.format, journal=is_journal(target)))
    return handler


def set_up_logs(settings: Logging, *, stream: TextIO | None = None) -> None:
    """All of this process's logs go to ``settings.file``, else to ``stream`` (stderr). May be called again: it replaces
    what it set up before. Raises ``LogFileUnusable`` for a file that can't be written, with nothing replaced."""
    handler = _make_handler(settings, stream)
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, (logging.StreamHandler, DescriptorHandler))]:
        root.removeHandler(old)
        if isinstance(old, LogFileHandler):
            old.close()
    root.addHandler(handler)
    root.setLevel(settings.level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)
    # A closed stderr must not make every request print a traceback of the logging module.
    logging.raiseExceptions = False
