// Looks at the principal's page in a real browser, and makes happen what it is to show. Started by hack/web.sh.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs, promisify } from "node:util";

import { ADA, AGENTS, BOB, Fleet, application, until } from "./fleet.mjs";
import { Viewer } from "./viewer.mjs";

const { values: options } = parseArgs({ options: { stay: { type: "boolean" }, pictures: { type: "string" } } });
const { TIPHYS: tiphys, CHROMIUM: chromium } = process.env;
const run = promisify(execFile);
const REFUSED = /^error: Failed to load resource: the server responded with a status of 401/;
const AWAY = /^error: Failed to load resource: net::ERR_/;
/** Largest picture in the docs, in bytes. */
const LARGEST = 150_000;

let checks = 0;
async function check(what, look) {
  const begin = Date.now();
  await look();
  checks += 1;
  console.error(`web: ${what}: ok, ${((Date.now() - begin) / 1000).toFixed(1)} s`);
}

// Whatever ends this ends what it has started.
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => process.exit(1));
const fleet = await Fleet.start(tiphys);
const named = (mode) => AGENTS.filter((agent) => agent.mode === mode).map((agent) => agent.name);

async function populate() {
  // This one is there before its namesake at the control plane, and its agent takes over nothing.
  await fleet.apply("clusters", [application("ap-osaka", "billing")]);
  await fleet.apply("control", named("managed").flatMap((name) => ["billing", "metrics", "web"].map((app) => application(name, app))));
  await fleet.apply("clusters", named("autonomous").flatMap((name) => ["cache", "web"].map((app) => application(name, app))));
}

async function stay() {
  for (const { name } of AGENTS) fleet.startAgent(name);
  await populate();
  console.error(`web: ${fleet.url} shows the fleet to ${ADA.user} with the password "${ADA.password}", until Ctrl-C`);
  await new Promise(() => {});
}

async function look() {
  const viewer = await Viewer.open(chromium, fleet.url);
  const { page } = viewer;
  const opened = await page.evaluate(() => performance.timeOrigin);
  const quiet = (...expected) => {
    const heard = viewer.heard();
    assert.equal(heard.length, expected.length, `the console says ${heard.join("\n")}`);
    expected.forEach((pattern, index) => assert.match(heard[index], pattern));
  };

  await check("who has not logged in is asked to, and sees nothing", async () => {
    await page.getByLabel("User").waitFor();
    assert(await page.locator("#fleet").isHidden());
    quiet(REFUSED);
    assert.deepEqual(await viewer.barriers(), []);
  });
  await check("a wrong password is refused", async () => {
    await viewer.logIn({ ...ADA, password: "wrong" });
    await page.getByText("is wrong").waitFor();
    assert(await page.locator("#fleet").isHidden());
    assert.equal(await page.getByLabel("Password").inputValue(), "");
    assert.equal(await page.evaluate(() => sessionStorage.length), 0);
    quiet(REFUSED);
  });
  await check("the right one shows a fleet without agents", async () => {
    await viewer.logIn(ADA);
    await page.getByText("No agent has connected").waitFor();
    await page.getByText("None since the principal started").waitFor();
    quiet();
    assert.deepEqual(await viewer.barriers(), []);
  });

  await check("agents appear with mode, connection, lag, version and certificate", async () => {
    for (const { name } of AGENTS) fleet.startAgent(name);
    await populate();
    const { stdout } = await run(tiphys, ["version"]);
    for (const { name, mode, days } of AGENTS) {
      // The principal tells an autonomous agent nothing here that it could acknowledge.
      const told = (shown) => mode === "autonomous" || / (ms|s)$/.test(shown.lag);
      await viewer.until(name, /connected/);
      const shown = await until(`the lag of ${name}`, async () => {
        const shown = (await viewer.agents())[name];
        return told(shown) && shown;
      });
      assert.equal(shown.mode, mode);
      assert(stdout.includes(shown.version.replace("tiphys-", "")), `${shown.version} is not of ${stdout}`);
      const [, left] = shown.certificate.match(/^in (\d+) d$/);
      assert(Math.abs(left - days) <= 1, `${name}: ${shown.certificate}`);
    }
    assert.deepEqual(Object.keys(await viewer.agents()).sort(), AGENTS.map(({ name }) => name));
  });
  await check("a resource that an agent refuses is a problem", async () => {
    await viewer.problem(/ap-osaka.*refused.*billing: an object of this name is there already/).waitFor();
  });
  await check("what a comparison has found is shown", async () => {
    await fleet.stop("us-fargo");
    const { repaired } = await viewer.until("us-fargo", /away/);
    await fleet.kubectl("clusters", "--namespace=us-fargo", "delete", "application", "web");
    fleet.startAgent("us-fargo");
    await until("the repair", async () => (await viewer.agents())["us-fargo"].repaired > repaired);
    await viewer.until("us-fargo", /connected/);
  });
  await check("an agent that is cut off is away, and why is said", async () => {
    const reason = "--reason=stolen with the machine";
    const blocklist = ["blocklist", "tls", "add", "--file", await fleet.certificate("eu-riga"), reason];
    await run(tiphys, [...blocklist, "--kubeconfig", fleet.kubeconfig("control")]);
    await viewer.until("eu-riga", /away/);
    await viewer.problem(/eu-riga.*it was cut off: .*stolen with the machine/).waitFor();
    // It would come again and again.
    await fleet.stop("eu-riga");
  });
  await check("an agent that is killed is away, and what waits for it is counted", async () => {
    await fleet.stop("eu-bergen", "SIGKILL");
    await viewer.until("eu-bergen", /away/);
    await fleet.apply("control", ["billing", "web"].map((app) => application("eu-bergen", app, "v2")));
    await until("what waits", async () => (await viewer.agents())["eu-bergen"].waiting === 2);
    assert.equal(await viewer.figure("away"), "2");
    assert.equal(await viewer.figure("connected"), String(AGENTS.length - 2));
  });
  await check("an agent that hangs is slow", async () => {
    fleet.signal("eu-porto", "SIGSTOP");
    await fleet.apply("control", [application("eu-porto", "web", "v2")]);
    await viewer.until("eu-porto", /slow/);
    // Whoever is in trouble stands first.
    assert.deepEqual(Object.keys(await viewer.agents()).slice(0, 3), ["eu-bergen", "eu-riga", "eu-porto"]);
    await pictures(viewer);
    fleet.signal("eu-porto", "SIGCONT");
    await until("the acknowledgement", async () => (await viewer.agents())["eu-porto"].waiting === 0);
    assert.equal((await viewer.agents())["eu-porto"].state, "slow", "its last change has taken long");
    await fleet.apply("control", [application("eu-porto", "web", "v3")]);
    await viewer.until("eu-porto", /connected/);
  });

  await check("agents are found and sorted", async () => {
    const shown = async () => Object.keys(await viewer.agents());
    await page.getByRole("searchbox").fill("eu- managed");
    assert.deepEqual((await shown()).sort(), ["eu-bergen", "eu-oslo", "eu-porto", "eu-riga", "eu-turku"]);
    await page.getByRole("searchbox").fill("nothing");
    await page.getByText("No agent matches").waitFor();
    await page.getByRole("searchbox").fill("");
    await page.getByLabel("only those with trouble").check();
    assert.deepEqual((await shown()).sort(), ["eu-bergen", "eu-riga", "us-austin"]);
    await page.getByLabel("only those with trouble").uncheck();
    await page.getByRole("button", { name: "Certificate" }).click();
    assert.equal((await shown())[0], "us-austin");
    await page.getByRole("button", { name: "Agent" }).click();
    await page.getByRole("button", { name: "Agent" }).click();
    assert.deepEqual(await shown(), AGENTS.map(({ name }) => name).reverse());
  });
  await check("nothing is wider than the screen, nor hard to read", async () => {
    for (const width of [320, 390, 640, 768, 960, 1024, 1200, 1920]) {
      assert.deepEqual(await viewer.overflowing(width), [], `at ${width} pixels`);
    }
    for (const colorScheme of ["light", "dark"]) {
      for (const width of [390, 1200]) {
        await page.emulateMedia({ colorScheme });
        await page.setViewportSize({ width, height: 800 });
        assert.deepEqual(await viewer.barriers(), [], `${colorScheme}, ${width} pixels`);
      }
    }
  });

  await check("a broken password file changes nothing, a new one counts at once", async () => {
    await fleet.users(BOB.line, ADA.line.slice(0, -1));
    const principal = fleet.running.get("principal");
    await principal.wait("line 2 of ");
    assert.equal(await page.evaluate(() => fetch("api/fleet", { headers: { Authorization: sessionStorage[sessionStorage.key(0)] } })
      .then((response) => response.status)), 200);
    await fleet.users(BOB.line);
    await page.getByLabel("User").waitFor({ timeout: 60_000 });
    quiet(REFUSED);
    await viewer.logIn(ADA);
    await page.getByText("is wrong").waitFor();
    await viewer.logIn(BOB);
    await viewer.until("eu-oslo", /connected/);
    quiet(REFUSED);
  });
  await check("who logs out is forgotten", async () => {
    await page.getByRole("button", { name: "Log out" }).click();
    await page.getByLabel("User").waitFor();
    assert.equal(await page.evaluate(() => sessionStorage.length), 0);
    assert.deepEqual(await viewer.agents(), {});
    quiet(REFUSED);
    await viewer.logIn(BOB);
    await viewer.until("eu-oslo", /connected/);
    quiet();
  });
  await check("a principal that is away is said to be, and asks for a token if it comes back so", async () => {
    await fleet.stop("principal");
    await page.getByText("does not answer").waitFor();
    assert.equal(Object.keys(await viewer.agents()).length, AGENTS.length, "what was known is shown no more");
    await fleet.startPrincipal(["--web-auth=kubernetes"]);
    const token = page.getByLabel("Token");
    await token.waitFor({ timeout: 60_000 });
    for (const line of viewer.heard().slice(0, -1)) assert.match(line, AWAY);
    await token.fill("forged");
    await page.getByRole("button", { name: "Log in" }).click();
    await page.getByText("is wrong").waitFor();
    await token.fill(await fleet.token());
    await page.getByRole("button", { name: "Log in" }).click();
    for (const { name } of AGENTS.filter((agent) => !["eu-bergen", "eu-riga"].includes(agent.name))) {
      await viewer.until(name, /connected/);
    }
    quiet(REFUSED);
  });

  await check("it only reads, and only from the principal", async () => {
    assert.equal(await page.evaluate(() => performance.timeOrigin), opened, "the page was loaded again");
    assert(viewer.requests.length > 20);
    for (const request of viewer.requests) {
      assert.equal(request.method(), "GET");
      assert(request.url().startsWith(fleet.url) || request.url() === "data:,", request.url());
    }
    for (const method of ["POST", "PUT", "PATCH", "DELETE"]) {
      for (const path of ["", "api/fleet"]) {
        const response = await fetch(`${fleet.url}${path}`, { method });
        assert.equal(response.status, 405, `${method} ${path}`);
      }
    }
  });
  await check("the policy is never violated, and would be told of", async () => {
    assert.deepEqual(viewer.violations, []);
    quiet();
    await page.evaluate(() => {
      const image = document.createElement("img");
      image.src = "http://elsewhere.example/";
      const script = document.createElement("script");
      script.textContent = "globalThis.ran = true";
      document.body.append(image, script);
    });
    await until("the violations", () => viewer.violations.length === 2);
    assert.equal(await page.evaluate(() => globalThis.ran), undefined);
  });
  await viewer.close();
}

async function pictures(viewer) {
  if (!options.pictures) return;
  const all = {
    "web-light.png": { scheme: "light", width: 1120, height: 800 },
    "web-dark.png": { scheme: "dark", width: 1120, height: 800 },
    "web-narrow.png": { scheme: "light", width: 390, height: 844 },
  };
  for (const [name, how] of Object.entries(all)) {
    const path = join(options.pictures, name);
    await viewer.picture(path, how);
    const { size } = await stat(path);
    assert(size <= LARGEST, `${name} has ${size} bytes`);
  }
  await viewer.picture(undefined, { scheme: "light", width: 1200, height: 800 });
}

try {
  await (options.stay ? stay() : look());
} catch (error) {
  for (const [name, it] of fleet.running) console.error(`web: ${name} said last:\n  ${it.said.slice(-3).join("\n  ")}`);
  throw error;
} finally {
  await fleet.end();
}
if (!options.stay) console.log(`web: ok, ${checks} checks`);
