"""MSAL for Python as it comes from PyPI: a token for the application, alerts listed with it."""

import sys
import time

import msal
import requests

url, tenant, application, secret = sys.argv[1:]
scope = ["https://api.securitycenter.microsoft.com/.default"]


def client(authority, secret=secret, instance_discovery=False):
    """False is the documented setting for authorities that are not the cloud's own."""
    return msal.ConfidentialClientApplication(
        application,
        authority=authority,
        client_credential=secret,
        instance_discovery=instance_discovery,
    )


app = client(f"{url}/{tenant}")
token = app.acquire_token_for_client(scope)
assert "access_token" in token, token
assert token["token_type"] == "Bearer" and token["token_source"] == "identity_provider", token
again = app.acquire_token_for_client(scope)
assert again["token_source"] == "cache", again
by_domain = client(f"{url}/vigietrial.onmicrosoft.com").acquire_token_for_client(scope)
assert "access_token" in by_domain, by_domain
discovered = client(
    f"{url}/{tenant}", instance_discovery=f"{url}/common/discovery/instance"
).acquire_token_for_client(scope)
assert "access_token" in discovered, discovered
refused = client(f"{url}/{tenant}", secret="wrong").acquire_token_for_client(scope)
assert refused["error"] == "invalid_client" and 7000215 in refused["error_codes"], refused

session = requests.Session()
session.headers["Authorization"] = "Bearer " + token["access_token"]


def call(method, path, **more):
    answer = session.request(method, f"{url}/api/{path}", timeout=30, **more)
    assert answer.ok, (answer.status_code, answer.text)
    return answer.json()


def hunt(query):
    return call("POST", "advancedqueries/run", json={"Query": query})["Results"]


assert call("GET", "alerts")["@odata.context"].endswith("#Alerts")
for _ in range(100):
    events = hunt(
        "DeviceProcessEvents | where isnotempty(ReportId) | project DeviceId, ReportId, Timestamp"
        " | take 1"
    )
    if events:
        break
    time.sleep(0.3)
event = events[0]
made = call(
    "POST",
    "alerts/CreateAlertByReference",
    json={
        "machineId": event["DeviceId"],
        "severity": "Low",
        "title": "Raised by MSAL for Python",
        "description": "An alert of the acceptance tests.",
        "recommendedAction": "None.",
        "eventTime": event["Timestamp"],
        "reportId": str(event["ReportId"]),
        "category": "Execution",
    },
)
alerts = call("GET", "alerts", params={"$filter": f"id eq '{made['id']}'", "$expand": "evidence"})
assert [alert["title"] for alert in alerts["value"]] == ["Raised by MSAL for Python"], alerts
print("token, cache, refusal, alert", made["id"])
