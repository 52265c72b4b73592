"""The folder of group files: is there what agents ask for?"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Final

from wazuh_comms_trio.config.models import Config
from wazuh_comms_trio.config.reader import Reader

#: Groups that a warning names.
_NAMED: Final = 5


def check_group_files(reader: Reader, config: Config) -> None:
    """Warns of groups that only have what agents no longer ask for. A folder that isn't there, or can't be read, says
    nothing: it may come later."""
    files = config.communications_api.files
    groups = only_old(files.path)
    if not groups:
        return
    named = ", ".join(f"{group}.conf" for group in groups[:_NAMED])
    more = f" and {len(groups) - _NAMED} more" if len(groups) > _NAMED else ""
    beside = f"{groups[0]}.yml" if len(groups) == 1 else "a .yml of the same name beside each"
    reader.warning_at(
        "communications_api.files.path",
        f"{files.path} has {named}{more} alone: agents ask for <group>.yml, and only those from before December 2024 "
        f"for <group>.conf; add {beside}",
    )


def only_old(folder: Path) -> list[str]:
    """The groups with a ``.conf`` and no ``.yml``, sorted."""
    try:
        names = _files_of(folder)
    except OSError:
        return []
    groups = (name.removesuffix(".conf") for name in names if name.endswith(".conf"))
    return sorted(group for group in groups if group and f"{group}.yml" not in names)


def without_file(folder: Path, groups: Collection[str]) -> list[str]:
    """The groups, of these, that agents find no file of, in their order; none where the folder can't be read."""
    try:
        names = _files_of(folder)
    except FileNotFoundError:
        names = set()
    except OSError:
        return []
    return [group for group in groups if not names & {f"{group}.yml", f"{group}.conf"}]


def _files_of(folder: Path) -> set[str]:
    """Raises ``OSError``."""
    with os.scandir(folder) as found:
        return {entry.name for entry in found if entry.is_file()}
