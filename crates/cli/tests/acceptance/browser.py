"""A browser as plain as can be: opens a page, fills in its form, sends it, until no form is left.

Arguments: address, user name, password, and, for devices, the code to enter first."""

import html
import re
import sys
from urllib.parse import urljoin, urlsplit

import requests

address, user, password, *code = sys.argv[1:]
session = requests.Session()


def form(page):
    """Address and fields of the page's only form."""
    text = re.search(r"<form(.*?)</form>", page, re.S)
    if not text:
        return None, {}
    action = html.unescape(re.search(r'action="([^"]*)"', text[1])[1])
    fields = {}
    for tag in re.findall(r"<input([^>]*)>", text[1]):
        name = re.search(r'name="([^"]*)"', tag)
        if name and 'type="checkbox"' not in tag:
            value = re.search(r'value="([^"]*)"', tag)
            fields[name[1]] = html.unescape(value[1]) if value else ""
    for decision in ("accept", "continue"):
        if f'value="{decision}"' in text[1]:
            fields["decision"] = decision
    return action, fields


def go(method, target, **more):
    """Follows redirects, but only on this machine; an address elsewhere is printed, and ends it."""
    while True:
        if urlsplit(target).hostname not in (urlsplit(address).hostname, "localhost", "127.0.0.1"):
            print(target)
            sys.exit()
        answer = session.request(method, target, allow_redirects=False, timeout=30, **more)
        if not answer.is_redirect:
            return answer
        method, target, more = "GET", urljoin(target, answer.headers["location"]), {}


answer = go("GET", address)
for _ in range(8):
    action, fields = form(answer.text)
    if action is None:
        break
    if "passwd" in fields:
        fields.update(login=user, passwd=password)
    if "otc" in fields:
        fields["otc"] = code[0]
    answer = go("POST", urljoin(answer.url, action), data=fields)
print(answer.url.split("?")[0], re.findall(r"<h1>(.*?)</h1>", answer.text), file=sys.stderr)
