"use strict";
// Shows what /api/fleet tells, every few seconds while somebody looks. Whatever comes from there is text, never markup.

const EVERY = 5000;
const SOON = 14 * 86400;
const SLOW = 10;
const STUCK = 300;
const KEY = "tiphys-authorization";
const at = (id) => document.getElementById(id);

let fleet = null;
let by = "state";
let down = false;
let timer = 0;
let asking = false;
const rows = new Map();

function span(seconds) {
  if (seconds == null || !isFinite(seconds)) return "–";
  const s = Math.abs(seconds);
  if (s < 0.0005) return "0 s";
  if (s < 1) return `${Math.round(s * 1000)} ms`;
  if (s < 10) return `${s.toFixed(1)} s`;
  if (s < 120) return `${Math.round(s)} s`;
  if (s < 7200) return `${Math.round(s / 60)} min`;
  if (s < 172800) return `${Math.round(s / 3600)} h`;
  if (s < 730 * 86400) return `${Math.round(s / 86400)} d`;
  return `${Math.round(s / 31557600)} y`;
}

const ago = (time, now) => (time ? (now - Date.parse(time)) / 1000 : null);
const left = (time, now) => (time ? (Date.parse(time) - now) / 1000 : null);
const tone = (seconds) => (seconds == null ? "dim" : seconds < 0 ? "bad" : seconds < SOON ? "warn" : "");
const until = (seconds) => (seconds == null ? "–" : seconds < 0 ? `ended ${span(seconds)} ago` : `in ${span(seconds)}`);

// What the table shows of an agent, and what it is sorted by.
function read(agent, now) {
  const up = agent.connected_since != null;
  const expiry = left(agent.certificate_expiry, now);
  const stuck = up && agent.behind_seconds > STUCK;
  const slow = up && (agent.behind_seconds > SLOW || agent.lag_seconds > SLOW);
  const state = !up ? "away" : stuck ? "stuck" : slow ? "slow" : "connected";
  return {
    name: agent.name, mode: agent.mode, version: agent.version, outbox: agent.outbox, repaired: agent.repaired,
    state, since: ago(agent.connected_since || agent.disconnected_since, now),
    lag: agent.lag_seconds, behind: agent.behind_seconds, expiry,
    trouble: state !== "connected" || (expiry != null && expiry < SOON),
  };
}

const RANK = { away: 0, stuck: 1, slow: 2, connected: 3 };
const TONE = { away: "bad", stuck: "bad", slow: "warn", connected: "good" };

function compare(a, b) {
  let x = by === "state" ? RANK[a.state] : a[by];
  let y = by === "state" ? RANK[b.state] : b[by];
  let order;
  if (x == null || y == null) order = (x == null) - (y == null);
  else order = (x < y ? -1 : x > y ? 1 : 0) * (down ? -1 : 1);
  return order || (a.name < b.name ? -1 : 1);
}

const CELLS = [
  ["state", "", (a) => a.state, (a) => `state ${TONE[a.state]}`],
  ["name", "", (a) => a.name, () => "name"],
  ["mode", "", (a) => a.mode, () => "dim"],
  ["since", "since", (a) => span(a.since), () => "n"],
  ["lag", "lag", (a) => span(a.lag), (a) => `n ${a.lag > SLOW ? "warn" : a.lag == null ? "dim" : ""}`],
  ["outbox", "waiting", (a) => String(a.outbox), (a) => `n ${a.outbox ? "" : "dim"}`],
  ["behind", "oldest", (a) => (a.behind ? span(a.behind) : "–"), (a) => `n ${a.behind > STUCK ? "bad" : a.behind ? "" : "dim"}`],
  ["repaired", "repaired", (a) => String(a.repaired), (a) => `n ${a.repaired ? "" : "dim"}`],
  ["version", "", (a) => a.version || "–", () => "version"],
  ["expiry", "certificate", (a) => until(a.expiry), (a) => `n ${tone(a.expiry)}`],
];

function row(agent) {
  let tr = rows.get(agent.name);
  if (!tr) {
    tr = document.createElement("tr");
    for (const [, label] of CELLS) {
      const td = document.createElement("td");
      if (label) td.dataset.label = label;
      tr.append(td);
    }
    rows.set(agent.name, tr);
  }
  CELLS.forEach(([, , text, style], index) => {
    const td = tr.children[index];
    const value = text(agent);
    const name = style(agent).trim();
    if (td.textContent !== value) { td.textContent = value; td.title = value; }
    if (td.className !== name) td.className = name;
  });
  return tr;
}

function items(list, entries, empty) {
  list.replaceChildren(...entries.map(([strong, text, aside, style]) => {
    const li = document.createElement("li");
    const main = document.createElement("span");
    if (strong) {
      const b = document.createElement("b");
      b.textContent = strong;
      main.append(b);
    }
    main.append(text);
    const end = document.createElement("span");
    end.textContent = aside;
    if (style) end.className = style;
    li.append(main, end);
    return li;
  }));
  if (!entries.length) {
    const li = document.createElement("li");
    li.className = "dim";
    li.textContent = empty;
    list.append(li);
  }
}

function figure(id, text, style) {
  at(id).textContent = text;
  at(id).className = style || "";
}

function table(agents) {
  const words = at("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const only = at("only").checked;
  const shown = agents.filter((a) => {
    const text = `${a.name} ${a.mode} ${a.version} ${a.state}`.toLowerCase();
    return (!only || a.trouble) && words.every((word) => text.includes(word));
  }).sort(compare);
  const body = document.querySelector("#agents tbody");
  const wanted = shown.map(row);
  // Only what has moved is moved: a selection and the place stay.
  wanted.forEach((tr, index) => {
    if (body.children[index] !== tr) body.insertBefore(tr, body.children[index] || null);
  });
  while (body.children.length > wanted.length) body.lastChild.remove();
  const names = new Set(agents.map((a) => a.name));
  for (const name of rows.keys()) if (!names.has(name)) rows.delete(name);
  at("shown").textContent = shown.length === agents.length ? String(agents.length) : `${shown.length} of ${agents.length}`;
  at("none").hidden = shown.length > 0;
  at("none").textContent = agents.length ? "No agent matches." : "No agent has connected since the principal started.";
  for (const th of document.querySelectorAll("#agents th")) {
    const active = th.firstElementChild.dataset.by === by;
    if (active) th.setAttribute("aria-sort", down ? "descending" : "ascending");
    else th.removeAttribute("aria-sort");
  }
}

function show() {
  const now = Date.parse(fleet.now);
  const agents = fleet.agents.map((agent) => read(agent, now));
  const up = agents.filter((a) => a.state !== "away");
  const sum = (of) => agents.reduce((total, a) => total + a[of], 0);
  const away = agents.length - up.length;
  const behind = Math.max(0, ...up.map((a) => a.behind));
  const ends = [...agents.map((a) => a.expiry), ...fleet.certificates.map((c) => left(c.expiry, now))];
  const first = Math.min(...ends.filter((end) => end != null));
  at("version").textContent = `${fleet.principal.version} · ${fleet.principal.namespace}`;
  figure("connected", String(up.length), up.length ? "good" : "dim");
  figure("away", String(away), away ? "bad" : "dim");
  figure("waiting", String(sum("outbox")));
  figure("behind", behind ? span(behind) : "–", behind > STUCK ? "bad" : behind > SLOW ? "warn" : "");
  figure("repaired", String(sum("repaired")));
  figure("expires", isFinite(first) ? until(first) : "–", isFinite(first) ? tone(first) : "dim");
  table(agents);
  items(at("problems"), fleet.problems.map((p) => [
    p.agent, p.times > 1 ? `${p.what} (${p.times} times)` : p.what, `${span(ago(p.last, now))} ago`,
  ]), "None since the principal started.");
  items(at("certificates"), fleet.certificates.map((c) => {
    const end = left(c.expiry, now);
    return [null, c.name, until(end), tone(end)];
  }), "It serves without TLS.");
  at("entrance").hidden = true;
  at("fleet").hidden = false;
  at("leave").hidden = sessionStorage.getItem(KEY) == null;
  say(`as of ${clock()}`);
  const trouble = agents.filter((a) => a.state !== "connected").length;
  document.title = trouble ? `(${trouble}) Tiphys` : "Tiphys";
}

const clock = () => new Date(fleet.now).toLocaleTimeString();

function say(text, style) {
  at("moment").textContent = text;
  at("moment").className = style || "";
}

// Asks who is there; what was shown is for nobody else.
function login(answer) {
  const tried = sessionStorage.getItem(KEY) != null;
  forget();
  fleet = null;
  rows.clear();
  for (const list of ["#agents tbody", "#problems", "#certificates"]) document.querySelector(list).replaceChildren();
  document.title = "Tiphys";
  at("version").textContent = "";
  at("fleet").hidden = at("leave").hidden = true;
  at("entrance").hidden = false;
  at("basic").hidden = answer.scheme !== "Basic";
  at("bearer").hidden = answer.scheme !== "Bearer";
  for (const field of at("login").querySelectorAll("input")) field.disabled = field.closest("[hidden]") != null;
  at("enter").disabled = false;
  at("why").textContent = tried ? answer.error : "";
  say("");
  at(answer.scheme === "Bearer" ? "token" : tried ? "password" : "user").focus();
}

function forget() {
  sessionStorage.removeItem(KEY);
}

async function ask() {
  clearTimeout(timer);
  if (document.hidden || asking) return;
  asking = true;
  const authorization = sessionStorage.getItem(KEY);
  const heard = await hear(authorization);
  asking = false;
  // Somebody has logged in or out meanwhile.
  if (authorization !== sessionStorage.getItem(KEY)) return ask();
  if (heard.status === 401 || heard.status === 403) return login(heard.answer);
  timer = setTimeout(ask, EVERY);
  if (heard.status === 200 && heard.answer.agents) {
    fleet = heard.answer;
    show();
  } else {
    at("enter").disabled = false;
    say(`The principal does not answer: ${heard.answer.error}${fleet ? `; this was at ${clock()}` : ""}`, "stale");
  }
}

async function hear(authorization) {
  const headers = { "X-Tiphys-Page": "1" };
  if (authorization) headers.Authorization = authorization;
  try {
    const response = await fetch("api/fleet", { headers, cache: "no-store", signal: AbortSignal.timeout(20000) });
    const answer = await response.json().catch(() => ({ error: `status ${response.status}` }));
    return { status: response.status, answer };
  } catch (error) {
    return { status: 0, answer: { error: error.message } };
  }
}

function base64(text) {
  return btoa(String.fromCharCode(...new TextEncoder().encode(text)));
}

at("login").addEventListener("submit", (event) => {
  event.preventDefault();
  const proof = at("basic").hidden
    ? `Bearer ${at("token").value.trim()}`
    : `Basic ${base64(`${at("user").value}:${at("password").value}`)}`;
  at("password").value = at("token").value = "";
  sessionStorage.setItem(KEY, proof);
  at("why").textContent = "";
  at("enter").disabled = true;
  ask();
});
at("leave").addEventListener("click", () => {
  forget();
  ask();
});
at("filter").addEventListener("input", () => fleet && show());
at("only").addEventListener("change", () => fleet && show());
document.querySelector("#agents thead").addEventListener("click", (event) => {
  const wanted = event.target.dataset.by;
  if (!wanted) return;
  down = wanted === by ? !down : !["state", "name", "mode", "version", "expiry"].includes(wanted);
  by = wanted;
  if (fleet) show();
});
document.addEventListener("visibilitychange", ask);
ask();
