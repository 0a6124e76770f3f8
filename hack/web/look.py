"""Looks at the page about the fleet through a real browser, which it steers over a pipe. See hack/web.sh.

    TOKEN=… look.py BROWSER URL [FOLDER]

It logs in, first with a wrong token, checks what must be there in light and dark, on a desktop and on a phone, and
keeps a picture of each in FOLDER.
"""

import base64
import json
import os
import select
import subprocess
import sys
import tempfile
import time

PATIENCE = 60
VIEWS = {
    # Picture: width, height, whether it is a phone, colours.
    "web-light.png": (1280, 900, False, "light"),
    "web-dark.png": (1280, 900, False, "dark"),
    "web-narrow.png": (390, 844, True, "light"),
    "web-narrow-dark.png": (390, 844, True, "dark"),
}
AGENTS = {"berlin": "managed", "lisbon": "managed", "oslo": "managed", "harbour": "autonomous"}
# Told by the browser itself of what the page does to log in, and of nothing else.
REFUSED = "401"


class Browser:
    """A browser with one page, and all that it asked for and complained of."""

    def __init__(self, program, folder):
        down, up = os.pipe(), os.pipe()

        def wire():
            # The browser reads its orders from 3 and answers on 4.
            reading, writing = os.dup(down[0]), os.dup(up[1])
            os.dup2(reading, 3)
            os.dup2(writing, 4)

        command = [
            program, "--headless=new", "--remote-debugging-pipe", f"--user-data-dir={folder}", "--no-first-run",
            "--hide-scrollbars", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage",
            # Inside of a container there is nobody else, and no right to make a sandbox.
            *(["--no-sandbox"] if os.geteuid() == 0 else []), "about:blank",
        ]
        quiet = subprocess.DEVNULL
        self.process = subprocess.Popen(command, stdout=quiet, stderr=quiet, close_fds=False, preexec_fn=wire)
        os.close(down[0])
        os.close(up[1])
        self.to, self.back, self.rest, self.count, self.session = down[1], up[0], b"", 0, None
        self.asked, self.complaints = [], []
        target = self.tell("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.tell("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ["Page", "Runtime", "Network", "Log"]:
            self.tell(f"{domain}.enable")

    def tell(self, method, **params):
        """Gives an order and waits for its answer."""
        self.count += 1
        order = {"id": self.count, "method": method, "params": params}
        if self.session:
            order["sessionId"] = self.session
        os.write(self.to, json.dumps(order).encode() + b"\0")
        deadline = time.monotonic() + PATIENCE
        while True:
            message = self.hear(deadline)
            if message.get("id") == self.count:
                if "error" in message:
                    sys.exit(f"look.py: {method}: {message['error']}")
                return message["result"]

    def hear(self, deadline):
        while b"\0" not in self.rest:
            if not select.select([self.back], [], [], max(0, deadline - time.monotonic()))[0]:
                sys.exit("look.py: the browser does not answer")
            more = os.read(self.back, 1 << 20)
            if not more:
                sys.exit("look.py: the browser has ended")
            self.rest += more
        text, self.rest = self.rest.split(b"\0", 1)
        message = json.loads(text)
        params = message.get("params", {})
        match message.get("method"):
            case "Network.requestWillBeSent":
                self.asked.append(params["request"]["url"])
            case "Runtime.consoleAPICalled":
                self.complaints.append(str([each.get("value") for each in params["args"]]))
            case "Runtime.exceptionThrown":
                self.complaints.append(params["exceptionDetails"]["text"])
            case "Log.entryAdded":
                self.complaints.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        return message

    def ask(self, expression):
        """The value of an expression on the page."""
        answer = self.tell("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            sys.exit(f"look.py: {expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def until(self, what, expression):
        deadline = time.monotonic() + PATIENCE
        while not (value := self.ask(expression)):
            if time.monotonic() > deadline:
                sys.exit(f"look.py: it never came: {what}; the page says:\n{self.ask('document.body.innerText')}")
            time.sleep(0.1)
        return value

    def press(self, text):
        self.tell("Input.insertText", text=text)
        for kind in ["keyDown", "keyUp"]:
            self.tell("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", text="\r", windowsVirtualKeyCode=13)

    def end(self):
        self.session = None
        try:
            os.write(self.to, json.dumps({"id": 0, "method": "Browser.close"}).encode() + b"\0")
            self.process.wait(timeout=10)
        finally:
            self.process.kill()


def check(holds, what):
    if not holds:
        sys.exit(f"look.py: {what}")


ROWS = """Object.fromEntries([...document.querySelectorAll('#agents tbody tr')].map((row) => [
    row.querySelector('.name').textContent,
    Object.fromEntries([...row.children].map((cell, index) => [
        document.querySelectorAll('#agents th button')[index].dataset.by, cell.textContent])),
]))"""


def log_in(browser, url, token):
    browser.tell("Page.navigate", url=url)
    browser.until("the form", "!document.getElementById('login').hidden")
    browser.ask("document.getElementById('token').focus()")
    browser.press("wrong")
    why = browser.until("the refusal", "document.getElementById('why').textContent")
    check("token" in why or "refused" in why or "nauthorized" in why, f"a wrong token is answered by {why!r}")
    browser.ask("document.getElementById('token').focus()")
    browser.press(token)
    browser.until("the fleet", "!document.getElementById('fleet').hidden")


def check_content(browser):
    browser.until("all agents", f"document.querySelectorAll('#agents tbody tr').length === {len(AGENTS)}")
    browser.until("that one is away", "[...document.querySelectorAll('td.state')].some((it) => it.textContent === 'away')")
    browser.until("the refusal of an Application", "document.getElementById('problems').innerText.includes('adoption policy')")
    rows = browser.ask(ROWS)
    check({name: row["mode"] for name, row in rows.items()} == AGENTS, f"agents and modes: {rows}")
    for name, row in rows.items():
        expected = "away" if name == "oslo" else "connected"
        check(row["state"] == expected, f"{name} is {row['state']}")
        check(row["version"] not in ("", "–"), f"{name} has no version")
        expiry = row["expiry"]
        # Nine days and some hours, and ninety days less a moment.
        near = {"lisbon": ("in 9 d", "in 10 d")}.get(name, ("in 89 d", "in 90 d"))
        check(expiry in near, f"the certificate of {name} ends {expiry}")
        check(row["since"] != "–", f"{name} has been there since nobody knows")
    for name in ["berlin", "lisbon"]:
        check(rows[name]["lag"].endswith("s"), f"{name} has the lag {rows[name]['lag']}")
    check(rows["oslo"]["outbox"] != "0", "nothing waits for oslo")
    check(browser.ask("document.getElementById('connected').textContent") == "3", "three are connected")
    check(browser.ask("document.getElementById('away').textContent") == "1", "one is away")
    problems = browser.ask("document.getElementById('problems').innerText")
    check("lisbon" in problems and "refused" in problems, f"problems: {problems}")
    certificates = browser.ask("document.getElementById('certificates').innerText")
    for name in ["server", "server-ca", "resource-proxy"]:
        check(name in certificates, f"certificates: {certificates}")


def check_use(browser):
    """Sorting, and the filter."""
    names = "[...document.querySelectorAll('#agents tbody .name')].map((it) => it.textContent)"
    browser.ask("document.querySelector('#agents button[data-by=name]').click()")
    check(browser.ask(names) == sorted(AGENTS), "not sorted by name")
    browser.ask("document.querySelector('#agents button[data-by=state]').click()")
    check(browser.ask(names)[0] == "oslo", "who is in trouble does not come first")
    browser.ask("document.getElementById('filter').focus()")
    browser.tell("Input.insertText", text="autonomous")
    check(browser.ask(names) == ["harbour"], "the filter does not find the one")
    browser.ask("document.getElementById('filter').value = ''")
    browser.ask("document.getElementById('filter').dispatchEvent(new Event('input'))")
    browser.ask("document.activeElement.blur()")


def take(browser, name, view, folder):
    width, height, phone, colours = view
    scale = 2 if phone else 1
    browser.tell("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=phone)
    browser.tell("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": colours}])
    check_content(browser)
    across = browser.ask("document.documentElement.scrollWidth")
    check(across <= width, f"{name}: the page is {across} wide on a screen of {width}")
    light = browser.ask("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).reduce((a, b) => a + +b, 0)")
    check((light > 384) == (colours == "light"), f"{name}: the ground has the brightness {light}")
    if folder:
        picture = browser.tell("Page.captureScreenshot", format="png")["data"]
        with open(os.path.join(folder, name), "wb") as file:
            file.write(base64.b64decode(picture))


def main():
    program, url = sys.argv[1:3]
    folder = sys.argv[3] if len(sys.argv) > 3 else None
    with tempfile.TemporaryDirectory() as profile:
        browser = Browser(program, profile)
        try:
            log_in(browser, url, os.environ["TOKEN"])
            check_content(browser)
            check_use(browser)
            for name, view in VIEWS.items():
                take(browser, name, view, folder)
            elsewhere = [asked for asked in browser.asked if not asked.startswith((url, "data:", "about:"))]
            check(not elsewhere, f"asked elsewhere: {elsewhere}")
            complaints = [each for each in browser.complaints if REFUSED not in each]
            check(not complaints, f"the browser complains: {complaints}")
        finally:
            browser.end()
    print(f"web.sh: ok, {len(VIEWS)} views of {len(AGENTS)} agents")


main()
