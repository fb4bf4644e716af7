// Publishes one delta straight to the exchange: node publish.js ROOM DELTA [MESSAGE_ID]

const amqp = require('amqplib');
const { randomUUID } = require('node:crypto');
const { setTimeout: sleep } = require('node:timers/promises');

const url = process.env.AMQP_URL ?? 'amqp://guest:guest@127.0.0.1:5672/%2f';
const exchange = `${process.env.AMQP_PREFIX ?? 'roomwire'}.in`;
const attempts = 5;

class Unroutable extends Error {}

/** Resolves once the broker has the delta on a majority of its nodes. */
async function publish(room, delta, messageId) {
  const connection = await amqp.connect(url);
  // Without a listener a connection that breaks would end the process; the confirm fails anyway.
  connection.on('error', () => {});
  try {
    const channel = await connection.createConfirmChannel();
    let failure;
    channel.on('error', (error) => { failure = error; });
    let returned = false;
    channel.on('return', () => { returned = true; });
    channel.publish(exchange, room, Buffer.from(delta), {
      contentType: 'application/json',
      persistent: true,
      messageId,
      // Without this a delta that no queue takes would be confirmed too.
      mandatory: true,
    });
    await channel.waitForConfirms().catch((error) => { throw failure ?? error; });
    if (returned) throw new Unroutable(`nothing is bound to ${exchange}: is Roomwire set up?`);
  } finally {
    await connection.close().catch(() => {});
  }
}

async function main() {
  const [room, delta, id] = process.argv.slice(2);
  // In a backend: the id of the row that the delta tells of, so that a retry after a crash has the
  // same one.
  const messageId = id ?? randomUUID();
  for (let attempt = 1; attempt <= attempts; attempt += 1) {
    try {
      await publish(room, delta, messageId);
      console.log(`confirmed ${messageId}`);
      return;
    } catch (error) {
      if (error instanceof Unroutable) throw error;
      console.error(`attempt ${attempt}: ${error.message}`);
      await sleep(attempt * 1000);
    }
  }
  throw new Error('not confirmed; a retry with the same message id is safe');
}

main().catch((error) => {
  console.error(error.message);
  process.exitCode = 1;
});
