"""Publishes one delta straight to the exchange: publish.py ROOM DELTA [MESSAGE_ID]"""

import os
import sys
import time
import uuid

import pika
from pika.exceptions import AMQPError, NackError, UnroutableError

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2f")
EXCHANGE = os.environ.get("AMQP_PREFIX", "roomwire") + ".in"
ATTEMPTS = 5


def publish(room: str, delta: str, message_id: str) -> None:
    """Returns once the broker has the delta on a majority of its nodes."""
    connection = pika.BlockingConnection(pika.URLParameters(URL))
    try:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.basic_publish(
            exchange=EXCHANGE,
            routing_key=room,
            body=delta.encode(),
            properties=pika.BasicProperties(
                content_type="application/json",
                delivery_mode=pika.DeliveryMode.Persistent,
                message_id=message_id,
            ),
            # Without this a delta that no queue takes would be confirmed too.
            mandatory=True,
        )
    finally:
        if connection.is_open:
            connection.close()


def main() -> None:
    room, delta = sys.argv[1:3]
    # In a backend: the id of the row that the delta tells of, so that a retry after a crash has the
    # same one.
    message_id = sys.argv[3] if len(sys.argv) > 3 else str(uuid.uuid4())
    for attempt in range(1, ATTEMPTS + 1):
        try:
            publish(room, delta, message_id)
            print(f"confirmed {message_id}")
            return
        except UnroutableError:
            sys.exit(f"nothing is bound to {EXCHANGE}: is Roomwire set up?")
        except (AMQPError, NackError) as error:
            print(f"attempt {attempt}: {error!r}", file=sys.stderr)
            time.sleep(attempt)
    sys.exit("not confirmed; a retry with the same message id is safe")


main()
