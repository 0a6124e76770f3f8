// A browser with the page open, and everything in it that should not be.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";

// The packages are kept outside the checkout: hack/web.sh says where.
const packages = createRequire(`${process.env.TIPHYS_WEB_PACKAGES}/`);
const { chromium } = packages("playwright-core");
const AXE = packages.resolve("axe-core/axe.min.js");

/** What the table shows, by the name of each agent. */
const readRows = (rows) => Object.fromEntries(rows.map((row) => {
  const cells = Array.from(row.children, (cell) => cell.textContent);
  const [state, name, mode, since, lag, waiting, oldest, repaired, version, certificate] = cells;
  return [name, { state, mode, since, lag, waiting: Number(waiting), oldest, repaired: Number(repaired), version, certificate }];
}));

export class Viewer {
  /** Opens the page in a browser that reaches no other host, with a profile of its own. */
  static async open(executablePath, url) {
    const viewer = new Viewer();
    viewer.url = url;
    viewer.browser = await chromium.launch({ executablePath, args: ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"] });
    const context = await viewer.browser.newContext({ viewport: { width: 1200, height: 800 }, locale: "en-GB" });
    const page = await context.newPage();
    Object.assign(viewer, { page, requests: [], said: [], violations: [] });
    page.on("request", (request) => viewer.requests.push(request));
    page.on("console", (message) => viewer.said.push(`${message.type()}: ${message.text()}`));
    page.on("pageerror", (error) => viewer.said.push(`thrown: ${error}`));
    await page.exposeFunction("tiphysViolation", (what) => viewer.violations.push(what));
    await page.addInitScript(() => addEventListener("securitypolicyviolation", (event) => {
      globalThis.tiphysViolation(`${event.violatedDirective} ${event.blockedURI}`);
    }));
    await page.goto(url);
    return viewer;
  }

  async logIn({ user, password }) {
    await this.page.getByLabel("User").fill(user);
    await this.page.getByLabel("Password").fill(password);
    await this.page.getByRole("button", { name: "Log in" }).click();
  }

  agents() { return this.page.locator("#agents tbody tr").evaluateAll(readRows); }

  /** Waits until an agent is as `condition` wants it, as the page learns of it by itself. */
  async until(name, condition) {
    const row = this.page.locator("#agents tbody tr").filter({ has: this.page.getByText(name, { exact: true }) });
    await row.filter({ hasText: condition }).waitFor({ timeout: 60_000 });
    return (await this.agents())[name];
  }

  problem(text) { return this.page.locator("#problems li").filter({ hasText: text }).first(); }

  figure(id) { return this.page.locator(`#${id}`).textContent(); }

  /** What the console has said since the last look. */
  heard() { return this.said.splice(0); }

  /** What is wider than the screen at this width, in CSS pixels. */
  async overflowing(width) {
    await this.page.setViewportSize({ width, height: 800 });
    return this.page.evaluate(() => {
      const limit = document.documentElement.clientWidth;
      const wide = [...document.querySelectorAll("body *")].filter((it) => it.getBoundingClientRect().right > limit + 0.5);
      // What is inside of something that scrolls by itself is within reach.
      const scrolls = (it) => it && (getComputedStyle(it).overflowX === "auto" || scrolls(it.parentElement));
      return wide.filter((it) => !scrolls(it.parentElement)).map((it) => it.outerHTML.slice(0, 100));
    });
  }

  /** What axe-core finds against the rules of WCAG 2.1, A and AA: contrast, names, roles, order. */
  async barriers() {
    await this.page.evaluate(await readFile(AXE, "utf8"));
    const tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"];
    const { violations, passes } = await this.page.evaluate((values) => globalThis.axe.run({ runOnly: { type: "tag", values } }), tags);
    assert(passes.some((pass) => pass.id === "color-contrast"), "nothing was looked at");
    return violations.flatMap(({ id, nodes }) => nodes.map((node) => `${id}: ${node.html}: ${node.failureSummary}`));
  }

  /** A picture, as the screen is. */
  async picture(path, { scheme, width, height, whole = false }) {
    await this.page.emulateMedia({ colorScheme: scheme });
    await this.page.setViewportSize({ width, height });
    await this.page.mouse.move(0, 0);
    await this.page.screenshot({ path, fullPage: whole, caret: "hide", animations: "disabled" });
  }

  async close() { await this.browser.close(); }
}
