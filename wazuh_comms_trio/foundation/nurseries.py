"""Tasks that live beside a block, what their groups of exceptions hold, and what exceptions keep in memory."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from types import TracebackType

import trio

__all__ = ["BackgroundNursery", "drop_locals", "exceptions_of"]


class BackgroundNursery:
    """``async with BackgroundNursery() as nursery``: a nursery whose tasks serve the block. At the block's end they are
    cancelled; with ``wait`` they are waited for, also after a failure: the block has told them to end by then.

    What the block raises comes out as it is, where trio's own nursery would put it into a group. What a task raises
    comes out in a group, as ever; it cancels the block. When both fail, the group has both. Cancelled: as trio's own.
    """

    __slots__ = ("_manager", "_nursery", "_wait")

    _manager: AbstractAsyncContextManager[trio.Nursery]
    _nursery: trio.Nursery

    def __init__(self, *, wait: bool = False) -> None:
        self._wait = wait

    async def __aenter__(self) -> trio.Nursery:
        self._manager = trio.open_nursery()
        self._nursery = await self._manager.__aenter__()
        return self._nursery

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        if error is not None and not isinstance(error, Exception):  # cancelled, as a rule
            return await self._manager.__aexit__(kind, error, traceback)
        if not self._wait:
            self._nursery.cancel_scope.cancel()
        try:
            await self._manager.__aexit__(None, None, None)
        except BaseExceptionGroup as group:
            if error is None:
                raise
            raise group.derive([*group.exceptions, error]) from None
        return False


def exceptions_of(error: BaseException) -> Iterator[BaseException]:
    """The exceptions of a group, however deep."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from exceptions_of(inner)
    else:
        yield error


def drop_locals(error: BaseException) -> None:
    """Drops the local variables of the calls that an error has ended, and of those that ended with what it came from:
    large ones would stay in memory for as long as whoever handles the error takes."""
    waiting, seen = [error], set[int]()
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        traceback.clear_frames(one.__traceback__)
        if isinstance(one, BaseExceptionGroup):
            waiting += one.exceptions
        waiting += [each for each in (one.__cause__, one.__context__) if each is not None]
