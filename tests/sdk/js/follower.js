// A client that follows one room and keeps all that its SDK tells it.

import { EventSource } from 'eventsource';
import { WebSocket } from 'ws';

import { until, world } from './world.js';

/**
 * Delivers each message in a task of its own, as browsers do. By default `ws` delivers all that one
 * read brought in a row, and before 5.8 the SDK then mixes up frames of several messages.
 */
class BrowserLikeSocket extends WebSocket {
  constructor(url, protocols) {
    super(url, protocols, { allowSynchronousEvents: false });
  }
}

/** What the SDK of this run is to use. */
export const websocket = process.argv[2] === 'older' ? BrowserLikeSocket : WebSocket;

const http = (url, path) => new URL(path, url.replace(/^ws/, 'http')).href;

/** The URL of the transport that the scenarios are run over. */
function endpoint(url) {
  const transport = process.env.ROOMWIRE_TRANSPORT;
  return transport ? [{ transport, endpoint: http(url, `/connection/${transport}`) }] : url;
}

/** In Protobuf data is bytes, and what they mean is the application's business: here it is JSON. */
const protobuf = process.env.ROOMWIRE_FORMAT === 'protobuf';
const encode = (data) => (protobuf ? new TextEncoder().encode(JSON.stringify(data)) : data);
const decode = (data) => (protobuf ? JSON.parse(new TextDecoder().decode(data)) : data);
const decoded = (publication) => ({ ...publication, data: decode(publication.data) });

/** A subscription that is given and gives objects, whatever its client speaks. */
function ofObjects(subscription) {
  const publish = subscription.publish.bind(subscription);
  const history = subscription.history.bind(subscription);
  return Object.assign(subscription, {
    publish: (data) => publish(encode(data)),
    history: async (options) => {
      const result = await history(options);
      return { ...result, publications: result.publications.map(decoded) };
    },
  });
}

/** Everything that happened to a client, besides its publications. */
export function open(Centrifuge, url) {
  const client = new Centrifuge(endpoint(url), {
    websocket,
    fetch,
    readableStream: ReadableStream,
    eventsource: EventSource,
    emulationEndpoint: http(url, '/emulation'),
    minReconnectDelay: 50,
  });
  client.log = { id: null, connecting: [], disconnected: [], errors: [] };
  client.on('connected', (context) => { client.log.id = context.client; });
  client.on('connecting', (context) => client.log.connecting.push(context));
  client.on('disconnected', (context) => client.log.disconnected.push(context));
  client.on('error', (context) => client.log.errors.push(context.error));
  return client;
}

export async function connect(Centrifuge, url) {
  const client = open(Centrifuge, url);
  client.connect();
  await client.ready(10_000);
  return client;
}

export class Follower {
  /** `seen` is written for the judge: joined, delta and reload in the order in which they came. */
  constructor(client, room, options = {}) {
    this.room = room;
    this.seen = [];
    this.publications = [];
    this.subscribed = [];
    this.unsubscribed = [];
    const subscription = client.newSubscription(room, { recoverable: true, ...options });
    this.subscription = ofObjects(subscription);
    this.subscription.on('subscribed', (context) => this.#joined(context));
    this.subscription.on('publication', (context) => this.#received(context));
    this.subscription.on('unsubscribed', (context) => this.unsubscribed.push(context));
  }

  static async join(client, room, options) {
    const follower = new Follower(client, room, options);
    follower.subscription.subscribe();
    await follower.subscription.ready(10_000);
    return follower;
  }

  get reloads() {
    return this.seen.filter(([kind]) => kind === 'reload').length;
  }

  #joined(context) {
    this.subscribed.push(context);
    const at = context.streamPosition?.offset ?? 0;
    if (!context.wasRecovering) this.seen.push(['joined', at]);
    else if (!context.recovered) this.seen.push(['reload', at]);
  }

  #received(received) {
    const context = decoded(received);
    this.publications.push(context);
    if (context.offset) this.seen.push(['delta', context.offset, context.data]);
  }

  /** Waits for `count` publications and has them judged. */
  async hasExactly(count) {
    await until(`${count} publications in ${this.room}`, () => this.publications.length >= count);
    await world(`check ${this.room} ${JSON.stringify(this.seen)}`);
  }
}
