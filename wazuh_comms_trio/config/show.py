"""Models -> text: the whole configuration as YAML with its secrets masked, and docs/configuration.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import attrs
import yaml
from attrs import NOTHING, Attribute

from wazuh_comms_trio.config.accepted import accepted, types_of, without_none
from wazuh_comms_trio.config.key import Key, key_of
from wazuh_comms_trio.config.models import Config
from wazuh_comms_trio.config.source import Dumper

MASK: Final = "***"

_HEAD: Final = """\
# Configuration

One YAML file, `/etc/wazuh-server/wazuh-server.yml` unless `--config` or `$WAZUH_COMMS_CONFIG` says otherwise. It may
serve several programs: the sections below are read, every other section is left alone. An unknown key is an error in
`communications_api`, and a warning in `indexer` and `engine`. All problems of a file are reported at once, each with
its place; `wazuh-comms config check` does that without starting anything, and `wazuh-comms config show` prints what
is in force, defaults included, with secrets masked.

* Durations are in seconds and sizes in bytes.
* A key without a value, or with a blank one (`ca: " "`), is unset: its default holds.
* Relative paths start at the file's folder.
* Anchors, aliases and merges (`<<`) work; a key that stands twice is an error; tags (`!...`) aren't taken.
* A number is written in decimal, without a leading zero, underscores or colons: YAML 1.1 reads `027000` as 11776 and
  `1:30` as 90, so that such numbers are errors. So are dates, and `yes`, `no`, `on` and `off` where text is wanted:
  text that looks like these stands in quotes.

The least that is needed:

```yaml
communications_api:
  backend: embedded
  ssl:
    key: /etc/wazuh-server/certs/server-1-key.pem
    cert: /etc/wazuh-server/certs/server-1.pem
```

This page is made from the program's models by `scripts/make-docs`.
"""


def as_data(model: Any) -> dict[str, Any]:
    """Plain data of a model, every secret that is set as ``***``."""
    data: dict[str, Any] = {}
    for field in attrs.fields(type(model)):
        value = getattr(model, field.name)
        data[field.name] = _masked(value) if key_of(field).secret else _plain(value)
    return data


def as_yaml(config: Config) -> str:
    return yaml.dump(as_data(config), Dumper=Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False)


def _masked(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict.fromkeys(value, MASK)
    return None if value is None else MASK


def _plain(value: Any) -> Any:
    if attrs.has(type(value)):
        return as_data(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def markdown() -> str:
    """The text of docs/configuration.md."""
    lines = [_HEAD]
    types = types_of(Config)
    for section in attrs.fields(Config):
        lines += [f"## `{section.name}`", "", key_of(section).help, ""]
        lines += _table(_keys(types[section.name], ""))
        lines.append("")
    return "\n".join(lines)


def _table(rows: Iterator[tuple[str, str, str, str]]) -> list[str]:
    lines = ["| key | default | takes | meaning |", "|---|---|---|---|"]
    return lines + ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]


def _keys(model: type, prefix: str) -> Iterator[tuple[str, str, str, str]]:
    """A section's keys as text, the leaves first, then section by section."""
    types = types_of(model)
    sections = []
    for field in attrs.fields(model):
        kind = without_none(types[field.name])
        if attrs.has(kind):
            sections.append((field, kind))
        else:
            key = key_of(field)
            yield f"`{prefix}{field.name}`", _default(field, key), accepted(kind, key), key.help
    for field, kind in sections:
        yield f"**`{prefix}{field.name}`**", "off" if field.default is None else "", "a section", key_of(field).help
        yield from _keys(kind, f"{prefix}{field.name}.")


def _default(field: Attribute[Any], key: Key) -> str:
    value = field.default
    if value is NOTHING:
        return "mandatory"
    if value is None or value == () or getattr(value, "factory", None):
        return "unset"
    if isinstance(value, tuple):
        return ", ".join(f"`{_inline(item)}`" for item in value)
    if isinstance(value, bool):
        return "`true`" if value else "`false`"
    if key.unit == "bytes" and value >= 1 << 20:
        return f"`{value}` ({_rounded(value)})"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _rounded(value: int) -> str:
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20)):
        if value % size == 0:
            return f"{value // size} {unit}"
    return str(value)


def _inline(item: Any) -> str:
    if not attrs.has(type(item)):
        return str(item)
    return "{" + ", ".join(f"{name}: {value}" for name, value in as_data(item).items()) + "}"
