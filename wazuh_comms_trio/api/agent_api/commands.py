"""``GET /api/v1/commands``: a long poll for commands, whose delivery is confirmed or taken back."""

from __future__ import annotations

from functools import partial
from typing import Final

import trio

from wazuh_comms_trio.api.agent_api.base import PREFIX, AgentApi
from wazuh_comms_trio.api.guard import peer_address
from wazuh_comms_trio.api.problems import describe
from wazuh_comms_trio.errors import TimeLimitExceeded
from wazuh_comms_trio.foundation.nurseries import BackgroundNursery, drop_locals
from wazuh_comms_trio.http.server.bodies import FREE_BYTES, RequestRoom, skip_body
from wazuh_comms_trio.http.server.delivery import EXTENSION, DeliveryConfirmation
from wazuh_comms_trio.http.server.hypercorn_protocol import Scope
from wazuh_comms_trio.http.server.listener_context import Receive, Send
from wazuh_comms_trio.http.server.replies import send_refusal, send_reply
from wazuh_comms_trio.services.authentication.authenticator import Caller
from wazuh_comms_trio.services.commands.command_delivery import CommandDelivery
from wazuh_comms_trio.services.commands.command_json import (
    encode_commands,
    fit_into_reply,
    join_commands,
    size_of_reply,
)

__all__ = ["add_commands"]

_NO_COMMANDS: Final = describe(TimeLimitExceeded())
#: What a reply has around its commands.
_AROUND: Final = encode_commands(())


def add_commands(api: AgentApi) -> None:
    api.add_handler(f"{PREFIX}/commands", partial(commands, api), "GET")


async def commands(api: AgentApi, scope: Scope, receive: Receive, send: Send) -> None:
    """A poll whose agent leaves ends at once. On a server that can't confirm deliveries, a reply that was sent counts
    as delivered.
    """
    caller = await api.identify(scope)
    api.services.journal.heard(caller.agent.id, "poll", peer_address(scope))  # its reply may be minutes away
    with api.admitted("commands", caller):
        await skip_body(receive)
        await _answer(api, caller, scope, receive, send)


async def _answer(api: AgentApi, caller: Caller, scope: Scope, receive: Receive, send: Send) -> None:
    dispatcher = api.services.commands
    confirmation: DeliveryConfirmation | None = scope["extensions"].get(EXTENSION)
    delivery: CommandDelivery | None = None
    begun = delivered = False
    try:
        async with BackgroundNursery() as nursery:
            polling, watching = trio.CancelScope(), trio.CancelScope()
            nursery.start_soon(cancel_when_gone, receive, polling, watching)
            with polling:
                delivery = await dispatcher.poll(caller, deadline=trio.current_time() + dispatcher.poll_limit())
            watching.cancel()  # from here on nobody else reads
            if delivery is not None:
                # Before the nursery ends, which is two turns of the event loop.
                with api.room(caller.agent.id) as room:
                    reply = await _reply_with_room(delivery, room)
                    begun = True
                    try:
                        await _send(reply, confirmation, room.watched(send))
                    except BaseException as error:
                        drop_locals(error)  # until its commands are given back, which may take a while
                        raise
                    finally:
                        del reply  # it has its room no longer, and whoever acknowledges it may take half a minute
        if delivery is None:
            await send_refusal(send, _NO_COMMANDS)  # to a peer that left, too: sending says so
        else:
            delivered = confirmation is None or await confirmation.confirmed()
    finally:
        if delivery is not None:
            if begun and not delivered and confirmation is not None:
                delivered = confirmation.give_up()
            # Either decides at once, also when this is being cancelled; what takes time is the store's taking note.
            await (delivery.confirm() if delivered else delivery.release())


async def _reply_with_room(delivery: CommandDelivery, room: RequestRoom) -> bytes:
    """A delivery's reply, which has its room in the budget of bodies. Where there is none for all of its commands it
    has only those that need none, at least one. It isn't made before there is room: a large command for a group is
    many agents'. Raises ``Overloaded`` when there was no room for that in time."""
    if delivery.texts is not None and len(reply := join_commands(delivery.texts)) <= FREE_BYTES:
        return reply
    if not room.add_reply_now(size_of_reply(delivery.commands)):
        delivery.keep(max(1, len(fit_into_reply(delivery.commands, FREE_BYTES - len(_AROUND)).now)))
        await room.add_reply(size_of_reply(delivery.commands))
    reply = encode_commands(delivery.commands)
    if len(reply) > FREE_BYTES:
        delivery.drop_contents()
    return reply


async def _send(reply: bytes, confirmation: DeliveryConfirmation | None, send: Send) -> None:
    if confirmation is not None:
        confirmation.expect()
    await send_reply(send, 200, reply)


async def cancel_when_gone(receive: Receive, polling: trio.CancelScope, watching: trio.CancelScope) -> None:
    """Runs beside a parked poll, until ``watching`` is cancelled; cancels ``polling`` when the peer leaves."""
    with watching:
        await trio.lowlevel.checkpoint_if_cancelled()  # before this began to run there may have been a delivery
        while (await receive())["type"] != "http.disconnect":
            pass
        polling.cancel()
