// A real installation on loopback: a control plane in a folder with its principal and page, a second folder that serves as
// the clusters' API server, with a namespace for each of them, and an agent process for each.
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { rmSync } from "node:fs";
import { mkdtemp, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { promisify } from "node:util";

const run = promisify(execFile);
const PATIENCE = 120_000;
const UNWATCHED = ["--metrics-port=0", "--healthz-port=0", "--log-format=json"];

// Who may look. The hashes are what `htpasswd -B` writes for these passwords.
export const ADA = { user: "ada", password: "correct horse", line: "ada:$2y$10$Kq1d8x0WmYv3TzB5nRjQe.nl.27SQjVdKWVkcJSmrT7KgaT9kzDwO" };
export const BOB = { user: "bob", password: "battery staple", line: "bob:$2y$10$uH7sPzL2cVbN9mXw4eRt6OPtPWxSQZhRWJB9sIVbUN6IQNAvA19I6" };

export const AGENTS = [
  { name: "ap-osaka", mode: "managed", days: 90, options: ["--adoption-policy=never"] },
  { name: "ap-perth", mode: "autonomous", days: 180 },
  { name: "eu-bergen", mode: "managed", days: 180 },
  { name: "eu-oslo", mode: "managed", days: 180 },
  { name: "eu-porto", mode: "managed", days: 60 },
  { name: "eu-riga", mode: "managed", days: 180 },
  { name: "eu-turku", mode: "managed", days: 120 },
  { name: "us-austin", mode: "managed", days: 7 },
  { name: "us-denver", mode: "autonomous", days: 90 },
  { name: "us-fargo", mode: "managed", days: 365 },
];

/** Calls `look` again and again until it returns something, and says what was waited for if that takes too long. */
export async function until(what, look) {
  const begin = Date.now();
  for (;;) {
    const found = await look();
    if (found) return found;
    if (Date.now() - begin > PATIENCE) throw new Error(`waited in vain for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** A tiphys process and what it has said. */
class Process {
  constructor(tiphys, line, log) {
    this.said = [];
    this.child = spawn(tiphys, line, { stdio: ["ignore", "pipe", "pipe"] });
    this.ended = once(this.child, "exit");
    for (const output of [this.child.stdout, this.child.stderr]) {
      createInterface({ input: output }).on("line", (text) => this.said.push(text));
    }
    this.log = log;
  }

  /** Waits for a line with this text. */
  wait(text) {
    return until(`"${text}" from ${this.log}`, () => {
      if (this.child.exitCode != null) throw new Error(`${this.log} ended:\n${this.said.slice(-20).join("\n")}`);
      return this.said.find((line) => line.includes(text));
    });
  }

  async end(signal) {
    this.child.kill(signal);
    this.child.kill("SIGCONT");
    await this.ended;
  }
}

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

export class Fleet {
  static async start(tiphys) {
    const fleet = new Fleet();
    fleet.tiphys = tiphys;
    fleet.folder = await mkdtemp(join(tmpdir(), "tiphys-web-"));
    fleet.running = new Map();
    // A failure on the way leaves nothing behind.
    process.once("exit", () => {
      for (const it of fleet.running.values()) it.child.kill("SIGKILL");
      rmSync(fleet.folder, { recursive: true, force: true });
    });
    fleet.webPort = await freePort();
    fleet.port = 0;
    await writeFile(fleet.passwords, `${ADA.line}\n`);
    await fleet.startPrincipal(fleet.byPassword);
    const clusters = fleet.start("clusters", [
      "principal", "--embedded", join(fleet.folder, "clusters"), "--embedded-listen-port=0", "--listen-port=0",
      "--resource-proxy-listen-port=0", "--allowed-namespaces=nobody",
    ]);
    await clusters.wait("principal listens");
    const namespaces = AGENTS.map(({ name }) => ({ apiVersion: "v1", kind: "Namespace", metadata: { name } }));
    await Promise.all([fleet.apply("control", namespaces), fleet.apply("clusters", namespaces)]);
    for (const { name, days } of AGENTS) {
      await run(tiphys, [
        "pki", "issue", "agent", name, `--days=${days}`, "--kubeconfig", fleet.kubeconfig("control"),
        "--agent-kubeconfig", fleet.kubeconfig("clusters"), "--agent-namespace", name,
      ]);
    }
    return fleet;
  }

  get url() { return `http://127.0.0.1:${this.webPort}/`; }
  get passwords() { return join(this.folder, "users"); }
  get byPassword() { return ["--web-auth=password", "--web-passwords", this.passwords]; }

  kubeconfig(of) { return join(this.folder, of, "kubeconfig"); }

  /** The token that the control plane's API server believes. */
  async token() {
    const view = ["config", "view", "--raw", "--output=jsonpath={.users[0].user.token}"];
    return (await run("kubectl", ["--kubeconfig", this.kubeconfig("control"), ...view])).stdout;
  }

  start(name, line) {
    const started = new Process(this.tiphys, [...line, ...UNWATCHED], name);
    this.running.set(name, started);
    return started;
  }

  async startPrincipal(viewers) {
    const principal = this.start("principal", [
      "principal", "--embedded", join(this.folder, "control"), "--embedded-listen-port=0", `--listen-port=${this.port}`,
      "--listen-host=127.0.0.1", "--resource-proxy-listen-port=0", `--web-port=${this.webPort}`, ...viewers,
    ]);
    this.port = JSON.parse(await principal.wait("principal listens")).address.split(":").pop();
    await principal.wait("serving the page about the fleet");
  }

  startAgent(name) {
    const { mode, options = [] } = AGENTS.find((agent) => agent.name === name);
    return this.start(name, [
      "agent", "--kubeconfig", this.kubeconfig("clusters"), "--namespace", name, "--agent-mode", mode, "--creds=mtls:any",
      "--server-address=localhost", `--server-port=${this.port}`, "--redis-addr=none", ...options,
    ]);
  }

  signal(name, signal) { this.running.get(name).child.kill(signal); }

  async stop(name, signal = "SIGTERM") {
    await this.running.get(name).end(signal);
    this.running.delete(name);
  }

  kubectl(at, ...line) { return run("kubectl", ["--kubeconfig", this.kubeconfig(at), ...line]); }

  async apply(at, items) {
    const file = join(this.folder, `${at}.json`);
    await writeFile(file, JSON.stringify({ apiVersion: "v1", kind: "List", items }));
    await this.kubectl(at, "apply", "--server-side", "--force-conflicts", "--filename", file);
  }

  /** The certificate that an agent logs in with, as PEM, in a file. */
  async certificate(name) {
    const path = ["--output=jsonpath={.data.tls\\.crt}"];
    const { stdout } = await this.kubectl("clusters", "--namespace", name, "get", "secret", "argocd-agent-client-tls", ...path);
    const file = join(this.folder, `${name}.crt`);
    await writeFile(file, Buffer.from(stdout, "base64"));
    return file;
  }

  async users(...lines) { await writeFile(this.passwords, lines.map((line) => `${line}\n`).join("")); }

  said(name) { return this.running.get(name).said; }

  async end() {
    const all = [...this.running.values()].reverse();
    for (const it of all) it.child.kill("SIGCONT");
    await Promise.all(all.map((it) => it.end("SIGTERM")));
  }
}

/** An Application. */
export function application(namespace, name, revision = "HEAD") {
  return {
    apiVersion: "argoproj.io/v1alpha1", kind: "Application", metadata: { namespace, name },
    spec: {
      project: "default",
      source: { repoURL: "https://example.com/deploy.git", path: name, targetRevision: revision },
      destination: { name: namespace, namespace: name },
    },
  };
}
