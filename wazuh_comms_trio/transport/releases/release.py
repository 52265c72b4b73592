"""A release of the server, named by its version, and the group of releases that behave alike.

"5.0" is not one dialect: its betas and its final release differ more from one another than 4.14 from the first beta, so
a version has to be named in full.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias

from wazuh_comms_trio.errors import NotInRelease

#: A version as it can be compared: major, minor, patch, stage (alpha 0, beta 1, release candidate 2, final 3), number.
Version: TypeAlias = "tuple[int, int, int, int, int]"

_FORM: Final = re.compile(r"v?(\d+)\.(\d+)(?:\.(\d+))?(?:-(alpha|beta|rc)\.?(\d+))?\Z")
_STAGES: Final = {"alpha": 0, "beta": 1, "rc": 2, None: 3}

#: group -> its first version, its last one as far as known. In the order of time.
GROUPS: Final[dict[str, tuple[str, str]]] = {
    "A": ("4.0.0", "4.8.2"),
    "B": ("4.9.0", "4.12.0"),
    "C": ("4.13.0", "4.14.1"),
    "D": ("4.14.2", "4.14.9"),
    "alpha": ("5.0.0-alpha0", "5.0.0-alpha0"),
    "E": ("5.0.0-beta1", "5.0.0-beta1"),
    "F": ("5.0.0-beta2", "5.0.0-beta4"),
    "G": ("5.0.0-beta5", "5.0.0"),
}
_ORDER: Final = tuple(GROUPS)

HOME_4: Final = "/var/ossec"
HOME_5: Final = "/var/wazuh-manager"
#: The environment variable that names the home of a 5.0 server.
HOME_VARIABLE: Final = "WAZUH_MANAGER_HOME"


@dataclass(frozen=True)
class Release:
    """A release. ``group`` is one of ``A`` (4.7, 4.8), ``B`` (4.9 to 4.12), ``C`` (4.13 to 4.14.1), ``D`` (4.14.2 and
    later 4.14), ``alpha`` (5.0.0-alpha0), ``E`` (5.0.0-beta1), ``F`` (beta2 to beta4), ``G`` (5.0.0). Made by
    ``release_of`` and ``detect_release``.
    """

    group: str
    version: str

    def __str__(self) -> str:
        return self.version

    @property
    def home(self) -> str:
        """The folder where this release is installed unless told otherwise."""
        return HOME_5 if self.at_least("E") else HOME_4

    def at_least(self, group_or_version: str) -> bool:
        """Whether this is that group or version, or a later one."""
        if group_or_version in GROUPS:
            return _ORDER.index(self.group) >= _ORDER.index(group_or_version)
        return parse_version(self.version) >= parse_version(group_or_version)

    def in_groups(self, first: str, last: str) -> bool:
        """Whether the group is one of ``first`` to ``last``."""
        return _ORDER.index(first) <= _ORDER.index(self.group) <= _ORDER.index(last)


def only_in(release: Release, first: str, last: str, what: str) -> None:
    """:class:`NotInRelease` (1012) unless the release's group is one of these."""
    if not release.in_groups(first, last):
        raise NotInRelease(1012, f"{what} is not in {release}")


@lru_cache(maxsize=64)
def parse_version(text: str) -> Version:
    """``"4.14.2"``, ``"v5.0.0-beta3"`` as numbers. ``ValueError`` for another form."""
    match = _FORM.match(text)
    if match is None:
        raise ValueError(f"{text!r:.60} is no version: write it in full, such as '4.14.2' or '5.0.0-beta3'")
    major, minor, patch, stage, number = match.groups()
    return (int(major), int(minor), int(patch or 0), _STAGES[stage], int(number or 0))


def release_of(name: str | Release) -> Release:
    """The release of that version: ``"4.7.5"``, ``"4.14.2"``, ``"5.0.0-beta3"``, ``"5.0.0"``; or of a group, ``"A"`` to
    ``"G"`` (its last version then).

    ``ValueError`` for another form, for what is older than 4.0, and for ``"5.0"``, which several groups are.
    """
    if isinstance(name, Release):
        return name
    if not isinstance(name, str):
        raise ValueError(f"a release is named by its version's text, not by {type(name).__name__}")  # noqa: TRY004 -- one error for a wrong name
    return _release_named(name)


@lru_cache(maxsize=64)
def _release_named(name: str) -> Release:
    if name in GROUPS:
        return Release(name, GROUPS[name][1])
    version = parse_version(name)
    if version[0] == 5 and name.count(".") < 2:
        raise ValueError(f"{name!r} is several releases that differ: write '5.0.0' or a beta such as '5.0.0-beta3'")
    found = None
    for group, (first, _) in GROUPS.items():
        if version >= parse_version(first):
            found = group
    if found is None:
        raise ValueError(f"{name!r} is older than what is known, which begins with 4.0")
    return Release(found, name.removeprefix("v"))
