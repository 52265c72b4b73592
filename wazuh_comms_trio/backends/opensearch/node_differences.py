"""What differs between nodes, in sentences for the operator. Pure.

Group files are published as digests of shares: a file's share is the first byte of its name's SHA-256, so that a node's
document has 256 of them at most, some 5 kB, however many groups there are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Final

from wazuh_comms_trio.backends.opensearch.node_registry import KnownNode

__all__ = ["CLOCK_LIMIT", "about_clocks", "about_files", "about_keys", "shares_of"]

#: Seconds by which clocks may differ.
CLOCK_LIMIT: Final = 5.0
#: File names in a sentence.
_NAMED: Final = 5
_DIGITS: Final = 16


def about_keys(key: str, trusted: Collection[str], others: Sequence[KnownNode]) -> dict[str, str]:
    """``key`` signs here, ``trusted`` are good here; a sentence by a node's name."""
    found = {}
    for node in others:
        if node.key is None:
            continue
        refused_here = node.key not in trusted
        refused_there = key != node.key if node.accepts is None else key not in node.accepts
        if refused_here or refused_there:
            found[node.name] = (
                f"the node {node.name} signs tokens with another key: agents that log in "
                f"{_where(node.name, refused_here, refused_there)}; set communications_api.token.private_key to "
                "the same key on all nodes, or name the others' public keys in token.verify_keys"
            )
    return found


def _where(name: str, refused_here: bool, refused_there: bool) -> str:
    if refused_here and refused_there:
        return "there are refused here, and the other way round"
    return "there are refused here" if refused_here else f"here are refused by {name}"


def shares_of(files: Mapping[str, str]) -> list[str]:
    """One digest for each share of files: by the share's number, of the digests by file name."""
    return sorted(f"{share}{_of_share(files, names)}" for share, names in _by_share(files).items())


def _by_share(names: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:2], []).append(name)
    return found


def _of_share(files: Mapping[str, str], names: list[str]) -> str:
    text = "".join(f"{name}\0{files[name]}\n" for name in sorted(names))
    return sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:_DIGITS]


def about_files(files: Mapping[str, str], others: Sequence[KnownNode]) -> dict[str, str]:
    """What differs in the group files of nodes; ``files``: this node's digests, by file name. A node of an earlier
    version says nothing of its own."""
    ours = set(shares_of(files))
    found = {}
    for node in others:
        if node.files is None or (differing := {share[:2] for share in ours ^ set(node.files)}) == set():
            continue
        by_share = _by_share(files)
        names = sorted(name for share in differing for name in by_share.get(share, ()))
        elsewhere = sum(share not in by_share for share in differing)
        found[node.name] = (
            f"the group files of the node {node.name} differ from this node's: {_named(names, elsewhere)}; agents get "
            "one or the other, as they come"
        )
    return found


def _named(names: list[str], elsewhere: int) -> str:
    shown = ", ".join(name.encode("utf-8", "replace").decode() for name in names[:_NAMED])
    parts = []
    if names:
        more = f" or {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        parts.append(f"{'in' if len(names) == 1 else 'in one or more of'} {shown}{more}")
    if elsewhere:
        parts.append("in some that this node doesn't have")
    return ", and ".join(parts)


def about_clocks(now: float, ahead: float | None, others: Sequence[KnownNode]) -> dict[str, str]:
    """``ahead``: by how many seconds the indexer's clock is ahead of this machine's, as other nodes say it of theirs.
    Where one of them doesn't know, a node is noticed whose last sign of life is in the future."""
    found = {}
    if ahead is not None and abs(ahead) > CLOCK_LIMIT:
        side = "behind" if ahead > 0 else "ahead of"
        found["this node"] = f"this machine's clock is {abs(ahead):.0f} s {side} the indexer's: {_SYNCHRONISE}"
    for node in others:
        theirs = max(0.0, node.seen - now) if ahead is None or node.clock is None else ahead - node.clock
        if abs(theirs) > CLOCK_LIMIT:
            side = "ahead of" if theirs > 0 else "behind"
            found[node.name] = (
                f"the clock of the node {node.name} is {abs(theirs):.0f} s {side} this machine's: {_SYNCHRONISE}"
            )
    return found


_SYNCHRONISE: Final = (
    "tokens end too early or too late, and from 30 s on nodes refuse each other's new ones; synchronise both, by NTP "
    "for instance"
)
