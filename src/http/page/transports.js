// One room over any transport. Each returns { cut, comeBack, end } and calls
//   on.state(name, detail)   "live", "connecting" or "offline"
//   on.delta({ offset, epoch, data })
//   on.lost()                what was missed is not kept any more
//   on.refused(reason)       for good

export const TRANSPORTS = {
  websocket: { label: "WebSocket (SDK)", follow: bySdk },
};

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
