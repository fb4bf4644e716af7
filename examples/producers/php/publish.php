<?php
// Publishes one delta straight to the exchange: php publish.php ROOM DELTA [MESSAGE_ID]

use PhpAmqpLib\Connection\AMQPStreamConnection;
use PhpAmqpLib\Message\AMQPMessage;

// Composer's packages, or else Debian's php-amqplib.
$composer = __DIR__ . '/vendor/autoload.php';
require file_exists($composer) ? $composer : 'PhpAmqpLib/autoload.php';

const ATTEMPTS = 5;

class Unroutable extends RuntimeException
{
}

/** Returns once the broker has the delta on a majority of its nodes. */
function publish(array $broker, string $exchange, string $room, string $delta, string $id): void
{
    $connection = new AMQPStreamConnection(
        $broker['host'],
        $broker['port'] ?? 5672,
        urldecode($broker['user'] ?? 'guest'),
        urldecode($broker['pass'] ?? 'guest'),
        urldecode(substr($broker['path'] ?? '', 1)) ?: '/'
    );
    try {
        $channel = $connection->channel();
        $channel->confirm_select();
        $channel->set_nack_handler(function () {
            throw new RuntimeException('the broker did not take it');
        });
        $returned = false;
        $channel->set_return_listener(function () use (&$returned) {
            $returned = true;
        });
        $message = new AMQPMessage($delta, [
            'content_type' => 'application/json',
            'delivery_mode' => AMQPMessage::DELIVERY_MODE_PERSISTENT,
            'message_id' => $id,
        ]);
        // Mandatory: a delta that no queue takes would be confirmed too.
        $channel->basic_publish($message, $exchange, $room, true);
        $channel->wait_for_pending_acks_returns(10);
        if ($returned) {
            throw new Unroutable("nothing is bound to $exchange: is Roomwire set up?");
        }
    } finally {
        $connection->close();
    }
}

if ($argc < 3) {
    exit("usage: php publish.php ROOM DELTA [MESSAGE_ID]\n");
}
[, $room, $delta] = $argv;
// In a backend: the id of the row that the delta tells of, so that a retry after a crash has the
// same one.
$id = $argv[3] ?? bin2hex(random_bytes(16));
$broker = parse_url(getenv('AMQP_URL') ?: 'amqp://guest:guest@127.0.0.1:5672/%2f');
$exchange = (getenv('AMQP_PREFIX') ?: 'roomwire') . '.in';

for ($attempt = 1; $attempt <= ATTEMPTS; $attempt++) {
    try {
        publish($broker, $exchange, $room, $delta, $id);
        echo "confirmed $id\n";
        exit(0);
    } catch (Unroutable $error) {
        fwrite(STDERR, $error->getMessage() . "\n");
        exit(1);
    } catch (Exception $error) {
        fwrite(STDERR, "attempt $attempt: {$error->getMessage()}\n");
        sleep($attempt);
    }
}
fwrite(STDERR, "not confirmed; a retry with the same message id is safe\n");
exit(1);
