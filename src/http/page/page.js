// What the page does: it follows one room over one transport, shows what arrives, publishes through the HTTP API, and
// shows what came back after an outage. The transports are in transports.js.

import { TRANSPORTS, follow } from "./transports.js";

/** Rows that stay on the page. */
const MAX_ROWS = 500;

const SAMPLES = [
  () => ({ action: "comment", comment: random(900) + 100, text: "Hello from this page" }),
  () => ({ action: "like", comment: random(900) + 100, user: random(900) + 100 }),
  () => ({ action: "edit", comment: random(900) + 100, text: "Hello again" }),
];

const at = (id) => document.getElementById(id);
const random = (below) => Math.floor(Math.random() * below);

const followed = { room: "", stream: null, count: 0, replayed: 0, position: null };
/** Since the page last cut its own connection: when it did, the newest offset when it came back, and what came back. */
let outage = null;
/** When each of the latest deltas was sent and arrived, by offset, as far as it was sent from here. */
const [sent, arrived] = [new Map(), new Map()];

function start() {
  for (const [name, transport] of Object.entries(TRANSPORTS)) {
    at("transport").append(new Option(transport.label, name));
  }
  const asked = new URLSearchParams(location.search);
  if (asked.get("room")) at("room").value = asked.get("room");
  if (asked.get("transport") in TRANSPORTS) at("transport").value = asked.get("transport");
  at("delta").value = JSON.stringify(SAMPLES[0]());
  at("follow").addEventListener("submit", (event) => {
    event.preventDefault();
    followRoom();
  });
  at("transport").addEventListener("change", followRoom);
  at("publish").addEventListener("submit", (event) => {
    event.preventDefault();
    publish(at("delta").value);
  });
  at("ten").addEventListener("click", publishTen);
  at("cut").addEventListener("click", () => (isCut() ? comeBack() : cut()));
  at("rehearse").addEventListener("click", rehearse);
  at("clear").addEventListener("click", clear);
  followRoom();
}

function followRoom() {
  followed.stream?.end();
  const [room, transport] = [at("room").value.trim(), at("transport").value];
  Object.assign(followed, { room, count: 0, replayed: 0, position: null });
  outage = null;
  showCut(false);
  clear();
  at("title").textContent = room;
  at("hint").textContent = `roomwire publish ${room} '${JSON.stringify(SAMPLES[1]())}'`;
  tellRecovery("Cut the connection, publish meanwhile, and come back.");
  history.replaceState(null, "", `?${new URLSearchParams({ room, transport })}`);
  followed.stream = follow(transport, room, { state, delta, lost, refused });
  showFigures();
}

/** The transport's connection is "live", "connecting" or "offline". */
function state(name, detail) {
  at("status").dataset.state = name;
  at("status").textContent = detail ? `${name}: ${detail}` : name;
  if (name === "live" && outage?.back) tellOutage();
}

function delta({ offset, epoch, data }) {
  const replayed = Boolean(outage?.back && offset <= outage.upto);
  followed.count += 1;
  followed.replayed += replayed ? 1 : 0;
  followed.position = { offset, epoch: epoch ?? followed.position?.epoch };
  if (replayed) {
    outage.replayed += 1;
    tellOutage();
  }
  arrived.set(offset, performance.now());
  showWay(offset);
  const row = document.createElement("li");
  if (replayed) row.className = "replayed";
  const [number, body, when] = ["span", "pre", "time"].map((tag) => document.createElement(tag));
  number.textContent = offset ?? "–";
  body.textContent = JSON.stringify(data);
  when.textContent = (replayed ? "replayed " : "") + new Date().toLocaleTimeString();
  row.append(number, body, when);
  addRow(row);
  showFigures();
}

/** The position is not in the history any more. */
function lost() {
  if (outage) outage.lost = true;
  note("What was missed is not kept any more: an app reloads its state now.");
  tellRecovery("The position is lost: an app reloads its state now.", true);
}

function refused(reason) {
  state("offline", reason);
  note(`Refused: ${reason}`);
}

function note(text) {
  const row = document.createElement("li");
  row.className = "note";
  const span = document.createElement("span");
  span.textContent = text;
  row.append(span);
  addRow(row);
}

function addRow(row) {
  const rows = at("deltas");
  rows.prepend(row);
  while (rows.childElementCount > MAX_ROWS) rows.lastElementChild.remove();
  at("empty").hidden = true;
}

function clear() {
  at("deltas").replaceChildren();
  at("empty").hidden = false;
}

/** How long the last delta took that was published here and has arrived here. */
function showWay(offset) {
  const [from, to] = [sent.get(offset), arrived.get(offset)];
  if (from !== undefined && to !== undefined) at("way").textContent = `${(to - from).toFixed(1)} ms`;
  for (const times of [sent, arrived]) {
    if (times.size > MAX_ROWS) times.delete(times.keys().next().value);
  }
}

function showFigures() {
  const { position, count, replayed } = followed;
  at("position").textContent = position?.offset ? `${position.offset} @ ${(position.epoch ?? "").slice(0, 8)}` : "–";
  at("count").textContent = count;
  at("replayed").textContent = replayed;
}

async function publish(body) {
  const [told, began] = [at("published"), performance.now()];
  try {
    const response = await fetch(`v1/rooms/${encodeURIComponent(followed.room)}/deltas`, {
      method: "POST",
      headers: { "Content-Type": "application/json", "Idempotency-Key": crypto.randomUUID?.() ?? `${Math.random()}` },
      body,
    });
    const answer = await response.json();
    if (answer.offset) {
      sent.set(answer.offset, began);
      showWay(answer.offset);
    }
    told.className = response.ok ? "" : "bad";
    told.textContent = response.ok
      ? `${response.status}: offset ${answer.offset ?? "not known yet"}`
      : `${response.status}: ${answer.detail ?? answer.title}`;
    return response.ok;
  } catch (error) {
    told.className = "bad";
    told.textContent = `the server can't be reached: ${error.message}`;
    return false;
  }
}

async function publishTen() {
  for (let n = 0; n < 10; n += 1) {
    if (!(await publish(JSON.stringify(SAMPLES[n % SAMPLES.length]())))) return;
  }
}

function cut() {
  outage = { since: Date.now(), back: false, upto: 0, replayed: 0, lost: false };
  followed.stream.cut();
  showCut(true);
  tellRecovery("The connection is cut. What is published now is missed here.");
}

async function comeBack() {
  outage.upto = await newest();
  outage.seconds = (Date.now() - outage.since) / 1000;
  outage.back = true;
  followed.stream.comeBack();
  showCut(false);
}

/** The room's newest offset: what comes up to it after an outage was missed. */
async function newest() {
  try {
    const response = await fetch(`v1/rooms/${encodeURIComponent(followed.room)}/deltas?limit=1`, { cache: "no-store" });
    return (await response.json()).newest ?? 0;
  } catch {
    return 0;
  }
}

async function rehearse() {
  at("rehearse").disabled = true;
  if (!isCut()) cut();
  await publishTen();
  await comeBack();
  at("rehearse").disabled = false;
}

const isCut = () => Boolean(outage && !outage.back);

function showCut(cut) {
  at("cut").setAttribute("aria-pressed", cut);
  at("cut").textContent = cut ? "Come back" : "Cut";
}

function tellOutage() {
  if (outage.lost) return;
  const { replayed, seconds } = outage;
  const deltas = replayed === 1 ? "1 delta" : `${replayed} deltas`;
  tellRecovery(`Back after ${seconds.toFixed(1)} s: ${deltas} replayed, nothing lost.`);
}

function tellRecovery(text, bad = false) {
  at("recovery").textContent = text;
  at("recovery").className = bad ? "bad" : "";
}

start();
