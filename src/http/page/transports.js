// One room over any transport. Each returns { cut, comeBack, end } and calls
//   on.state(name, detail)   "live", "connecting" or "offline"
//   on.delta({ offset, epoch, data })
//   on.lost()                what was missed is not kept any more
//   on.refused(reason)       for good

export const TRANSPORTS = {
  websocket: { label: "WebSocket (SDK)", follow: bySdk },
  http_stream: { label: "HTTP stream (SDK)", follow: bySdk },
  sse: { label: "SSE (SDK)", follow: bySdk },
  eventsource: { label: "EventSource", follow: byEventSource },
  poll: { label: "Long polling", follow: byPolling },
};

/** Seconds that the server holds a poll. */
const WAIT = 25;

/** What a poll waits before it tries again, in ms. */
const RETRY = 1000;

export function follow(transport, room, on) {
  return TRANSPORTS[transport].follow(room, on, transport);
}

const here = (path) => new URL(path, location.href);

function bySdk(room, on, transport) {
  const endpoint = here(`connection/${transport}`);
  if (transport === "websocket") endpoint.protocol = endpoint.protocol.replace("http", "ws");
  const client = new Centrifuge([{ transport, endpoint: endpoint.href }], {
    emulationEndpoint: here("emulation").href,
    minReconnectDelay: 100,
  });
  const subscription = client.newSubscription(room);
  let epoch;
  client.on("connecting", ({ reason }) => on.state("connecting", reason));
  client.on("disconnected", ({ code, reason }) => on.state("offline", code === 0 ? "cut" : reason));
  subscription.on("subscribed", (context) => {
    epoch = context.streamPosition?.epoch ?? epoch;
    on.state("live");
    if (context.wasRecovering && !context.recovered) on.lost();
  });
  subscription.on("unsubscribed", ({ code, reason }) => code && on.refused(reason));
  subscription.on("error", ({ error }) => on.state("connecting", error.message));
  subscription.on("publication", ({ offset, data }) => on.delta({ offset, epoch, data }));
  subscription.subscribe();
  client.connect();
  return {
    cut: () => client.disconnect(),
    comeBack: () => client.connect(),
    end: () => {
      client.removeAllListeners();
      subscription.removeAllListeners();
      client.disconnect();
    },
  };
}

function byEventSource(room, on) {
  let [source, position] = [null, null];
  const open = () => {
    const address = here("v1/events");
    address.searchParams.set("room", room);
    if (position !== null) address.searchParams.set("after", position);
    source = new EventSource(address);
    on.state("connecting");
    source.addEventListener("open", () => on.state("live"));
    source.addEventListener("message", ({ data, lastEventId }) => {
      position = lastEventId;
      const delta = JSON.parse(data);
      on.delta({ offset: delta.offset, data: delta.data });
    });
    for (const event of ["ping", "reload"]) {
      source.addEventListener(event, ({ lastEventId }) => {
        if (lastEventId) position = lastEventId;
        if (event === "reload") on.lost();
      });
    }
    // The browser comes back by itself, with the last position, unless the server refused it.
    source.addEventListener("error", () => {
      if (source.readyState === EventSource.CLOSED) on.refused("the server refuses the stream");
      else on.state("connecting");
    });
  };
  const close = () => source.close();
  open();
  return {
    cut: () => {
      close();
      on.state("offline", "cut");
    },
    comeBack: open,
    end: close,
  };
}

function byPolling(room, on) {
  const position = { after: null, epoch: null };
  let stop = null;
  const address = (parameters) => {
    const url = here(`v1/rooms/${encodeURIComponent(room)}/deltas`);
    for (const [name, value] of Object.entries(parameters)) url.searchParams.set(name, value);
    return url;
  };
  const ask = async (parameters, signal) => {
    const response = await fetch(address(parameters), { signal, cache: "no-store" });
    const answer = await response.json();
    if (response.ok) return answer;
    throw Object.assign(new Error(answer.detail ?? answer.title), {
      isFinal: response.status < 500 && response.status !== 429,
    });
  };
  const poll = async (signal) => {
    on.state("connecting");
    while (!signal.aborted) {
      try {
        if (position.after === null) {
          // Now: where the newest delta is.
          const { newest, epoch } = await ask({ limit: 1 }, signal);
          Object.assign(position, { after: newest, epoch });
        }
        on.state("live");
        const answer = await ask({ ...position, wait: WAIT }, signal);
        if (!answer.recovered) on.lost();
        for (const { offset, data } of answer.deltas) on.delta({ offset, epoch: answer.epoch, data });
        position.epoch = answer.epoch;
        position.after = answer.recovered ? (answer.deltas.at(-1)?.offset ?? position.after) : answer.newest;
      } catch (error) {
        if (signal.aborted) return;
        if (error.isFinal) return on.refused(error.message);
        on.state("connecting", error.message);
        await new Promise((done) => setTimeout(done, RETRY));
      }
    }
  };
  const open = () => {
    stop = new AbortController();
    poll(stop.signal);
  };
  open();
  return {
    cut: () => {
      stop.abort();
      on.state("offline", "cut");
    },
    comeBack: open,
    end: () => stop.abort(),
  };
}
