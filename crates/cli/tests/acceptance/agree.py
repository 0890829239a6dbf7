"""Compares what the resource API tells with what hunting finds in the same tenant, and says where they
differ. Nothing may arrive while it runs. Standard library only.

    agree.py URL TENANT APPLICATION SECRET CA.pem
"""

import json
import ssl
import sys
import urllib.parse
import urllib.request

url, tenant, application, secret, ca = sys.argv[1:6]
context = ssl.create_default_context(cafile=ca)
differences = []
compared = {}


def call(path, body=None, form=None):
    headers = {}
    if form is not None:
        data = urllib.parse.urlencode(form).encode()
    else:
        headers["Authorization"] = f"Bearer {token}"
        data = None if body is None else json.dumps(body).encode()
        headers["Content-Type"] = "application/json"
    address = path if path.startswith("https:") else url + urllib.parse.quote(path, safe="/?=&$%'(),:")
    request = urllib.request.Request(address, data=data, headers=headers)
    try:
        with urllib.request.urlopen(request, context=context) as answer:
            return json.loads(answer.read())
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise SystemExit(f"{path}: {error.code} {error.read().decode()}")


def rows_of(path):
    """All rows of a list, page by page."""
    found = []
    while path:
        page = call(path)
        found += page["value"]
        path = page.get("@odata.nextLink")
    return found


def hunt(query):
    return call("/api/advancedqueries/run", {"Query": query})["Results"]


def same(what, api, hunting):
    compared[what.split(" of ")[0]] = compared.get(what.split(" of ")[0], 0) + 1
    if api != hunting:
        differences.append(f"{what}: the API says {api}, hunting says {hunting}")


def time(text):
    """Times without the digits behind microseconds, which only one of both has."""
    return text and text.rstrip("Z")[:26].ljust(26, "0") if "." in (text or "") else text and text.rstrip("Z") + ".000000"


form = {"grant_type": "client_credentials", "client_id": application, "client_secret": secret}
form["scope"] = "https://api.securitycenter.microsoft.com/.default"
token = None
token = call(f"/{tenant}/oauth2/v2.0/token", form=form)["access_token"]

# Alerts and their evidence.
alerts = {row["id"]: row for row in rows_of("/api/alerts?$expand=evidence")}
info = {row["AlertId"]: row for row in hunt("AlertInfo | summarize arg_max(Timestamp, *) by AlertId")}
same("alerts", sorted(alerts), sorted(info))
for name, alert in alerts.items():
    row = info.get(name, {})
    same(f"alert of {name}", [alert["title"], alert["severity"], alert["category"], time(alert["alertCreationTime"])],
         [row.get("Title"), row.get("Severity"), row.get("Category"), time(row.get("Timestamp"))])
evidence = hunt("AlertEvidence | summarize Rows = count() by AlertId, EntityType, DeviceId")
for name, alert in alerts.items():
    told = {}
    for entity in alert["evidence"]:
        told[entity["entityType"]] = told.get(entity["entityType"], 0) + 1
    found = {row["EntityType"]: row["Rows"] for row in evidence if row["AlertId"] == name}
    found.pop("Machine", None)
    same(f"evidence of {name}", told, found)
    devices = {row["DeviceId"] for row in evidence if row["AlertId"] == name}
    same(f"machine of {name}", {alert["machineId"]}, devices)

# Machines, what they are called, their alerts and their users.
machines = {row["id"]: row for row in rows_of("/api/machines")}
devices = hunt("DeviceInfo | summarize arg_max(Timestamp, DeviceName, OSPlatform) by DeviceId")
devices = {row["DeviceId"]: row for row in devices}
same("machines", sorted(machines), sorted(devices))
seen = {row["DeviceId"] for row in hunt("union Device* | distinct DeviceId")}
same("machines with events", sorted(seen - set(machines)), [])
logons = hunt("DeviceLogonEvents | where ActionType == 'LogonSuccess' and isnotempty(AccountName)"
              " | distinct DeviceId, AccountName = tolower(AccountName), AccountDomain = tolower(AccountDomain)")
for name, machine in machines.items():
    device = devices.get(name, {})
    same(f"name of {name}", [machine["computerDnsName"], machine["osPlatform"]],
         [device.get("DeviceName"), device.get("OSPlatform")])
    count = call(f"/api/machines/{name}/alerts/$count")
    same(f"number of alerts of {name}", count, len({row["AlertId"] for row in evidence if row["DeviceId"] == name}))
    users = rows_of(f"/api/machines/{name}/logonusers")
    told = {(row["accountDomain"].lower(), row["accountName"].lower()) for row in users}
    found = {(row["AccountDomain"], row["AccountName"]) for row in logons if row["DeviceId"] == name}
    same(f"users of {name}, who logged on but are not told", sorted(found - told), [])
for user in sorted({row["AccountName"] for row in logons}):
    told = {row["id"] for row in rows_of(f"/api/users/{user}/machines")}
    found = {row["DeviceId"] for row in logons if row["AccountName"] == user}
    same(f"machines of user {user}, where he logged on but that are not told", sorted(found - told), [])

# Machine actions: the last event of each is its state.
actions = {row["id"]: [row["type"], row["status"], row["machineId"]] for row in rows_of("/api/machineactions")}
trail = hunt(
    "CloudAppEvents | where ObjectType == 'Machine' | extend d = parse_json(RawEventData)"
    " | where ActivityType !in ('Requested', 'CancelRequested')"
    " | summarize arg_max(Timestamp, ActivityType, ActionType, ObjectId) by Id = tostring(d.actionId)")
requested = hunt("CloudAppEvents | where ObjectType == 'Machine' and ActivityType == 'Requested'"
                 " | distinct Id = tostring(parse_json(RawEventData).actionId), ActionType")
same("machine actions", sorted(actions), sorted(row["Id"] for row in requested if row["ActionType"] != "Investigate"))
for row in trail:
    if row["Id"] in actions:
        same(f"machine action of {row['Id']}", actions[row["Id"]],
             [row["ActionType"], row["ActivityType"], row["ObjectId"]])

# Statistics of files, addresses and hosts: the most frequent, and those that are rare.
events = ("let own = union DeviceEvents, DeviceFileEvents, DeviceImageLoadEvents, DeviceProcessEvents"
          " | project Timestamp, DeviceId, Value = {own}, Name = FileName;"
          " let done = union DeviceEvents, DeviceFileEvents, DeviceImageLoadEvents, DeviceLogonEvents,"
          " DeviceNetworkEvents, DeviceProcessEvents, DeviceRegistryEvents"
          " | project Timestamp, DeviceId, Value = InitiatingProcess{own}, Name = InitiatingProcessFileName;"
          " union own, done")
addresses = ("union DeviceNetworkEvents, DeviceLogonEvents, DeviceEvents"
             " | project Timestamp, DeviceId, Value = RemoteIP, Name = ''")
hosts = ("union DeviceNetworkEvents, DeviceEvents | where isnotempty(RemoteUrl)"
         " | extend Host = tolower(tostring(parse_url(iff(RemoteUrl contains '://', RemoteUrl, strcat('http://', RemoteUrl))).Host))"
         " | project Timestamp, DeviceId, Value = Host, Name = ''")
for what, query, path in [
    ("file", events.replace("{own}", "SHA1"), "files"),
    ("file by SHA-256", events.replace("{own}", "SHA256"), "files"),
    ("address", addresses, "ips"),
    ("host", hosts, "domains"),
]:
    every = (query + " | where isnotempty(Value) | summarize First = min(Timestamp), Last = max(Timestamp),"
             " Devices = dcountif(DeviceId, isnotempty(DeviceId)), Times = count() by Value | order by Times desc, Value asc")
    found = hunt(every)
    for row in found[:25] + found[-15:]:
        # Neither an address in a URL nor a name without a dot is a domain.
        if what == "host" and ("." not in row["Value"] or row["Value"].replace(".", "").isdigit()):
            continue
        stats = call(f"/api/{path}/{row['Value']}/stats")
        if stats is None:
            differences.append(f"{what} of {row['Value']}: unknown to the API")
            continue
        same(f"{what} of {row['Value']}",
             [stats["organizationPrevalence"], time(stats["orgFirstSeen"]), time(stats["orgLastSeen"])],
             [row["Devices"], time(row["First"]), time(row["Last"])])
    print(f"{what}: {len(found)} values")

# What leads from things to alerts.
for column, path, entity in [("SHA1", "files", "sha1"), ("RemoteIP", "ips", "ipAddress")]:
    found = hunt(f"AlertEvidence | where isnotempty({column}) | summarize Alerts = make_set(AlertId) by {column} | top 20 by {column}")
    for row in found:
        told = sorted(alert["id"] for alert in rows_of(f"/api/{path}/{row[column]}/alerts"))
        same(f"alerts of {row[column]}", told, sorted(row["Alerts"] if isinstance(row["Alerts"], list) else json.loads(row["Alerts"])))

print(f"{len(alerts)} alerts, {len(machines)} machines, {len(actions)} machine actions")
print("compared:", ", ".join(f"{name} {number}" for name, number in sorted(compared.items())))
if differences:
    print(f"{len(differences)} differences:")
    print("\n".join(differences))
    raise SystemExit(1)
