"""The sign-in pages in a real browser: Chromium, on a desktop, on a phone, without scripts; in light
and in dark colours.

Arguments: address of the server, tenant, the program `vigie`, Chromium, the file of axe-core, a folder
for screenshots. Every page is looked at: language, heading, labels, contrast (axe-core), order of
focus, nothing wider than the window, nothing that the page's own policy forbids, no message in the
browser's console.
"""

import base64
import hashlib
import hmac
import http.server
import json
import os
import pathlib
import struct
import subprocess
import sys
import threading
import time
from urllib.parse import parse_qs, urlencode, urlsplit

import requests
from playwright.sync_api import expect, sync_playwright

url, tenant, program, chromium, axe_file, shots = sys.argv[1:]
axe = pathlib.Path(axe_file).read_text()
shots = pathlib.Path(shots)
shots.mkdir(parents=True, exist_ok=True)
domain = "vigietrial.onmicrosoft.com"
password = "correct horse battery"
DEFENDER = "https://api.securitycenter.microsoft.com"


def vigie(*arguments):
    environment = {**os.environ, "VIGIE_USER_PASSWORD": password}
    done = subprocess.run([program, *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, (arguments, done.stderr)
    return done.stdout


def registered(*arguments):
    said = vigie("app", "create", *arguments, "-o", "json")
    return json.loads(said.splitlines()[0])["appId"]


def one_time_code(secret):
    """RFC 6238."""
    key = base64.b32decode(secret + "=" * (-len(secret) % 8))
    digest = hmac.digest(key, struct.pack(">Q", int(time.time()) // 30), hashlib.sha1)
    at = digest[-1] & 15
    return f"{(struct.unpack('>I', digest[at:at + 4])[0] & 0x7FFFFFFF) % 10**6:06}"


class Client(http.server.BaseHTTPRequestHandler):
    """The application to which the browser comes back."""

    got = []

    def answer(self, members):
        if self.path.startswith("/cb"):
            Client.got.append({name: values[0] for name, values in parse_qs(members).items()})
        self.send_response(200)
        self.send_header("content-type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(b'<!DOCTYPE html><html lang="en"><title>Client</title><h1>Back</h1>')

    def do_GET(self):
        self.answer(urlsplit(self.path).query)

    def do_POST(self):
        self.answer(self.rfile.read(int(self.headers["content-length"])).decode())

    def log_message(self, *_):
        pass


client = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Client)
threading.Thread(target=client.serve_forever, daemon=True).start()
back = f"http://127.0.0.1:{client.server_port}/cb"
reader = registered(
    "Machine viewer", "--web-redirect", "http://127.0.0.1/cb", "--delegated", "Machine.Read",
    "--delegated", "Alert.Read",
)
responder = registered(
    "Responder", "--web-redirect", "http://127.0.0.1/cb", "--delegated", "Machine.Isolate"
)
device = registered(
    "Command line", "--public-client", "--native-redirect", "http://localhost",
    "--delegated", "Machine.Read",
)
partner = registered(
    "A partner's product with a name that is rather long", "--multi-tenant",
    "--asks", "Alert.Read.All", "--asks", "Machine.Isolate", "--web-redirect", "http://127.0.0.1/cb",
)
vigie("app", "grant", device, "--delegated", "Machine.Read")
vigie("user", "create", f"chief@{domain}", "--role", "Global Administrator")
customer = "customer.example"
vigie("tenant", "create", "Customer", "--domain", customer)
vigie(
    "user", "create", f"chief@{customer}", "--role", "Global Administrator", "--tenant", customer
)


class Visit:
    """One kind of browser, and a person of its own."""

    def __init__(self, browser, name, **options):
        self.name, self.script = name, options.get("java_script_enabled", True)
        self.user, self.careful = f"{name}@{domain}", f"{name}.careful@{domain}"
        vigie("user", "create", self.user)
        vigie("user", "create", self.careful)
        self.secret = vigie("user", "add-totp", self.careful).splitlines()[0]
        self.browser, self.options, self.complaints = browser, options, []
        self.pictures = 0
        self.context = self.page = None
        self.fresh()

    def fresh(self):
        """A browser that knows nothing."""
        if self.context:
            self.context.close()
        self.context = self.browser.new_context(ignore_https_errors=True, **self.options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(20_000)
        self.page.on("console", lambda message: self.complain(message.text))
        self.page.on("pageerror", lambda error: self.complain(str(error)))

    def complain(self, text):
        # That a page answers with an error is no fault of the page.
        if "the server responded with a status of 4" not in text:
            self.complaints.append(text)

    def authorize(self, app, scope, **more):
        query = {
            "client_id": app, "response_type": "code", "redirect_uri": back, "state": "s",
            "scope": f"{DEFENDER}/{scope} openid", **more,
        }
        self.page.goto(f"{url}/{tenant}/oauth2/v2.0/authorize?{urlencode(query)}")

    def seen(self, title, *order):
        """A page is there: looked at, and kept as a picture. `order` is that of the tab key."""
        page = self.page
        expect(page.locator("h1")).to_have_text(title)
        picture = "".join(c if c.isalnum() else "-" for c in title.lower())
        count, self.pictures = self.pictures, self.pictures + 1
        page.screenshot(path=shots / f"{self.name}-{count:02}-{picture}.png", full_page=True)
        assert page.locator("html").get_attribute("lang") == "en"
        assert title in page.title(), page.title()
        wide = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert wide[0] <= wide[1], (self.name, title, wide)
        small = page.evaluate(
            "[...document.querySelectorAll('button, input:not([type=hidden]):not([type=checkbox])')]"
            ".filter(e => e.getBoundingClientRect().height < 40).map(e => e.outerHTML)"
        )
        assert not small, (self.name, title, small)
        if order:
            self.check_order(title, order)
        if self.script:
            page.evaluate(axe)
            self.check_with_axe(title, "axe.run()")
            page.emulate_media(color_scheme="dark")
            page.screenshot(path=shots / f"{self.name}-{count:02}-{picture}-dark.png", full_page=True)
            self.check_with_axe(title, "axe.run({runOnly: ['color-contrast']})")
            page.emulate_media(color_scheme="light")
        assert not self.complaints, (self.name, title, self.complaints)

    def check_with_axe(self, title, call):
        found = self.page.evaluate(f"{call}.then(result => result.violations)")
        told = [(v["id"], [node["html"] for node in v["nodes"]]) for v in found]
        assert not told, (self.name, title, told)

    def check_order(self, title, order):
        focused = "(document.activeElement.name || document.activeElement.id || '')" \
            " + (document.activeElement.value && document.activeElement.tagName === 'BUTTON'" \
            " ? '=' + document.activeElement.value : '')"
        # From the beginning, wherever the focus was put.
        self.page.evaluate("document.body.tabIndex = -1; document.body.focus()")
        found = []
        for _ in order:
            self.page.keyboard.press("Tab")
            found.append(self.page.evaluate(focused))
        assert found == list(order), (self.name, title, found)

    def sign_in(self, user, secret=password):
        self.page.get_by_label("Account").fill(user)
        self.page.get_by_label("Password").fill(secret)
        self.page.get_by_role("button", name="Sign in").click()

    def returned(self):
        expect(self.page.locator("h1")).to_have_text("Back")
        return Client.got[-1]

    def press(self, name):
        self.page.get_by_role("button", name=name).click()

    def run(self):
        self.first_sign_in()
        self.second_factor()
        self.device()
        self.accounts_and_forms()
        self.administrators()
        self.sign_out()
        self.context.close()

    def first_sign_in(self):
        self.authorize(reader, "Machine.Read")
        assert self.page.evaluate("document.activeElement.id") == "login", "focus where one types"
        self.seen("Sign in", "login", "passwd", "")
        self.sign_in(self.user, "wrong password")
        expect(self.page.get_by_role("alert")).to_contain_text("incorrect")
        assert self.page.get_by_label("Account").input_value() == self.user, "the name stays"
        self.seen("Sign in")
        self.sign_in(self.user)
        self.seen("Permissions requested", "decision=cancel", "decision=accept")
        expect(self.page.locator("main")).to_contain_text("Machine viewer")
        self.press("Cancel")
        assert self.returned()["error"] == "access_denied"
        self.authorize(reader, "Machine.Read")
        self.press("Accept")
        assert "code" in self.returned()
        self.authorize(reader, "Machine.Read")
        assert "code" in self.returned(), "consent is remembered, and so is the session"

    def second_factor(self):
        self.fresh()
        self.authorize(reader, "Machine.Read")
        self.sign_in(self.careful)
        self.seen("Enter code", "otc", "")
        self.page.get_by_label("Code from your authenticator app").fill("000000")
        self.press("Verify")
        expect(self.page.get_by_role("alert")).to_contain_text("didn't work")
        self.seen("Enter code")
        self.page.get_by_label("Code from your authenticator app").fill(one_time_code(self.secret))
        self.press("Verify")
        self.press("Accept")
        assert "code" in self.returned()

    def device(self):
        self.fresh()
        form = {"client_id": device, "scope": f"{DEFENDER}/Machine.Read"}
        endpoint = f"{url}/{tenant}/oauth2/v2.0"
        started = requests.post(f"{endpoint}/devicecode", data=form, timeout=30).json()
        self.page.goto(started["verification_uri"])
        self.seen("Enter code", "otc", "")
        self.page.get_by_label("Code shown by your app or device").fill("BBBBBBBBB")
        self.press("Next")
        expect(self.page.get_by_role("alert")).to_contain_text("didn't work")
        self.seen("Enter code")
        self.page.get_by_label("Code shown by your app or device").fill(started["user_code"].lower())
        self.press("Next")
        self.sign_in(self.user)
        self.seen("Sign in on another device", "decision=cancel", "decision=continue")
        self.press("Continue")
        self.seen("Signed in")
        poll = {"grant_type": "device_code", "client_id": device, "code": started["device_code"]}
        got = requests.post(f"{endpoint}/token", data=poll, timeout=30).json()
        assert "access_token" in got, got

    def accounts_and_forms(self):
        self.authorize(reader, "Machine.Read", prompt="select_account")
        self.seen("Pick an account", "decision=this", "decision=other")
        self.press(self.user)
        assert "code" in self.returned()
        self.authorize(reader, "Machine.Read", response_mode="form_post", state="a form")
        if not self.script:
            self.seen("Signing in")
            self.press("Continue")
        got = self.returned()
        assert "code" in got and got["state"] == "a form", got
        self.authorize(responder, "Machine.Isolate")
        self.seen("Need admin approval")
        self.page.get_by_role("link", name="Return to the application").click()
        assert self.returned()["error"] == "consent_required"
        self.authorize(reader, "Machine.Read", redirect_uri="https://elsewhere.example/")
        self.seen("Sorry, but we're having trouble signing you in")
        expect(self.page.get_by_role("alert")).to_contain_text("AADSTS50011")

    def administrators(self):
        self.fresh()
        query = urlencode({"client_id": partner, "redirect_uri": back, "state": "t"})
        self.page.goto(f"{url}/common/adminconsent?{query}")
        self.sign_in(f"chief@{customer}")
        self.seen("Permissions requested", "decision=cancel", "decision=accept")
        expect(self.page.get_by_role("listitem")).to_have_count(2)
        self.press("Cancel")
        assert self.returned()["error"] == "access_denied"
        self.page.goto(f"{url}/common/adminconsent?{query}")
        self.press("Accept")
        assert self.returned()["admin_consent"] == "True"
        self.fresh()
        self.authorize(reader, "Alert.Read")
        self.sign_in(f"chief@{domain}")
        self.seen("Permissions requested", "everybody", "decision=cancel", "decision=accept")
        self.page.get_by_label("Consent on behalf of your organization").check()
        self.press("Cancel")
        self.returned()

    def sign_out(self):
        self.page.goto(f"{url}/{tenant}/oauth2/v2.0/logout")
        self.seen("You signed out of your account")
        self.authorize(reader, "Machine.Read")
        self.seen("Sign in")


for old in shots.glob("*.png"):
    old.unlink()
with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
    desktop, phone = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
    for name, options in {
        "desktop": {"viewport": desktop},
        "phone": {"viewport": phone, "is_mobile": True, "has_touch": True},
        "noscript": {"viewport": phone, "java_script_enabled": False},
    }.items():
        Visit(browser, name, **options).run()
        print(name)
    browser.close()
