"""The communications layer of a Wazuh server on trio. The transport library's classes and the errors, imported when
used.

Everything else is in the subpackages: :mod:`wazuh_comms_trio.transport` has all of the library's names,
:mod:`wazuh_comms_trio.testing` fakes to test programs with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wazuh_comms_trio.foundation.lazy_imports import lazy_imports

if TYPE_CHECKING:  # the public names: scripts/make-docs makes the table of them from here
    from wazuh_comms_trio.numbered_errors import WazuhError as WazuhError
    from wazuh_comms_trio.numbered_errors import WazuhException as WazuhException
    from wazuh_comms_trio.numbered_errors import WazuhInternalError as WazuhInternalError
    from wazuh_comms_trio.transport.aio.datagram import WazuhAsyncAnalysisdQueue as WazuhAsyncAnalysisdQueue
    from wazuh_comms_trio.transport.aio.datagram import WazuhAsyncQueue as WazuhAsyncQueue
    from wazuh_comms_trio.transport.aio.protocol import WazuhAsyncProtocol as WazuhAsyncProtocol
    from wazuh_comms_trio.transport.aio.socket import WazuhAsyncSocket as WazuhAsyncSocket
    from wazuh_comms_trio.transport.aio.socket import WazuhAsyncSocketJSON as WazuhAsyncSocketJSON
    from wazuh_comms_trio.transport.blocking.datagram import BaseQueue as BaseQueue
    from wazuh_comms_trio.transport.blocking.datagram import WazuhAnalysisdQueue as WazuhAnalysisdQueue
    from wazuh_comms_trio.transport.blocking.datagram import WazuhQueue as WazuhQueue
    from wazuh_comms_trio.transport.blocking.socket import WazuhSocket as WazuhSocket
    from wazuh_comms_trio.transport.blocking.socket import WazuhSocketJSON as WazuhSocketJSON
    from wazuh_comms_trio.transport.registry import daemons as daemons
    from wazuh_comms_trio.transport.send import wazuh_sendasync as wazuh_sendasync
    from wazuh_comms_trio.transport.send import wazuh_sendsync as wazuh_sendsync
    from wazuh_comms_trio.wire.agent_command import create_wazuh_queue_socket_msg as create_wazuh_queue_socket_msg
    from wazuh_comms_trio.wire.envelope import (
        SOCKET_COMMUNICATION_PROTOCOL_VERSION as SOCKET_COMMUNICATION_PROTOCOL_VERSION,
    )
    from wazuh_comms_trio.wire.envelope import create_wazuh_socket_message as create_wazuh_socket_message

lazy_imports(__name__)
