"""A connection that was closed a moment ago is a Kafka error, whatever the event loop calls it: the fetch loop must survive it."""

from __future__ import annotations

import pytest
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.metadata import MetadataRequest

import service.foundation.kafka  # noqa: F401 - teaches the connection


class _ClosedTransport:
    """As uvloop's, once its handle is closed."""

    def write(self, _: bytes) -> None:
        raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")

    def close(self) -> None: ...


async def test_a_send_on_a_closed_transport_is_a_connection_error() -> None:
    connection = AIOKafkaConnection("127.0.0.1", 1, client_id="test")
    connection._writer = _ClosedTransport()
    connection._versions = {3: (0, 1)}
    with pytest.raises(KafkaConnectionError):
        connection.send(MetadataRequest([]))
    assert not connection.connected()
