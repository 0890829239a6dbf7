"""Hunting shapes by Vigie beside DuckDB, chDB and Polars, in one run.

`run.py VIGIE ROWS FOLDER` makes the telemetry, imports it into Vigie and runs every shape, the engines
one after the other, each a process of its own with two threads, warm, the median of five. Times are
from the query's text to its rows. Answers are compared by their number of rows and the sum of their
whole numbers (not where a count of different values is approximate).
"""
import json
import math
import os
import statistics
import subprocess
import sys
import time

import telemetry

P, N = "DeviceProcessEvents", "DeviceNetworkEvents"
WEEK = ("2026-06-15", "2026-06-22")
URL = "https?://[0-9]{1,3}[.][0-9]{1,3}[.][0-9]{1,3}[.][0-9]{1,3}/"
SEARCHED = "ProcessCommandLine FolderPath FileName InitiatingProcessCommandLine AccountName DeviceName".split()


def between(first, last, column="Timestamp"):
    return f"{column} >= timestamp '{first}' and {column} < timestamp '{last}'"


def kql_between(first, last):
    return f"where Timestamp >= datetime({first}) and Timestamp < datetime({last})"


def term(column, text):
    return {
        "duckdb": f"{column} ilike '%{text}%' and regexp_matches({column}, '(?i)(^|[^a-z0-9]){text}($|[^a-z0-9])')",
        "chdb": f"hasTokenCaseInsensitive({column}, '{text}')",
    }


def shapes(facts):
    """Name → KQL, SQL (one, or one for each engine), Polars, whether the answer is approximate."""
    import polars as pl

    c = pl.col
    scan = lambda table: pl.scan_parquet(f"{facts['folder']}/{table}/*.parquet")
    top = lambda frame, by, rows: frame.sort(by, descending=[True] + [False] * (len(by) - 1)).head(rows)
    date = lambda text: pl.lit(text).str.to_datetime("%Y-%m-%d", time_unit="us", time_zone="UTC")
    within = lambda first, last: (c("Timestamp") >= date(first)) & (c("Timestamp") < date(last))
    counted = lambda frame, by, rows: top(frame.group_by(by).agg(c=pl.len()), ["c", *by], rows)
    wanted = ", ".join(f"'{text}'" for text in facts["wanted"])
    encoded = term("ProcessCommandLine", "encodedcommand")
    count_by = lambda by, where, rows: f"select {by}, count(*) c from P {where} group by {by} order by c desc, {by} limit {rows}"
    return {
        "contains, a week": (
            f"{P} | {kql_between(*WEEK)} | where ProcessCommandLine contains 'mimikatz' | top 1000 by Timestamp desc | project DeviceName, FileName, ProcessId",
            f"select DeviceName, FileName, ProcessId from P where {between(*WEEK)} and ProcessCommandLine ilike '%mimikatz%' order by Timestamp desc limit 1000",
            lambda: scan(P).filter(within(*WEEK) & c("ProcessCommandLine").str.contains("(?i)mimikatz")).sort("Timestamp", descending=True).head(1000).select("DeviceName", "FileName", "ProcessId"),
        ),
        "has, all": (
            f"{P} | where ProcessCommandLine has 'EncodedCommand' | summarize c = count() by DeviceName | top 20 by c desc, DeviceName asc",
            {engine: count_by("DeviceName", f"where {test}", 20) for engine, test in encoded.items()},
            lambda: counted(scan(P).filter(c("ProcessCommandLine").str.contains("(?i)(^|[^a-z0-9])encodedcommand($|[^a-z0-9])")), ["DeviceName"], 20),
        ),
        "count by file": (
            f"{P} | summarize c = count() by FileName | top 20 by c desc, FileName asc",
            count_by("FileName", "", 20),
            lambda: counted(scan(P), ["FileName"], 20),
        ),
        "dcount": (
            f"{P} | summarize c = count(), d = dcount(DeviceId) by FileName | top 20 by c desc, FileName asc",
            {
                "duckdb": "select FileName, count(*) c, approx_count_distinct(DeviceId) d from P group by FileName order by c desc, FileName limit 20",
                "chdb": "select FileName, count(*) c, uniqCombined(DeviceId) d from P group by FileName order by c desc, FileName limit 20",
            },
            lambda: top(scan(P).group_by("FileName").agg(c=pl.len(), d=c("DeviceId").approx_n_unique()), ["c", "FileName"], 20),
            True,
        ),
        "=~ by hour": (
            f"{P} | where FileName =~ 'POWERSHELL.exe' | summarize c = count() by h = bin(Timestamp, 1h), ActionType | sort by h asc, ActionType asc",
            "select date_trunc('hour', Timestamp) h, ActionType, count(*) c from P where lower(FileName) = 'powershell.exe' group by 1, 2 order by 1, 2",
            lambda: scan(P).filter(c("FileName").str.to_lowercase() == "powershell.exe").group_by(c("Timestamp").dt.truncate("1h").alias("h"), "ActionType").agg(c=pl.len()).sort("h", "ActionType"),
        ),
        "arg_max": (
            f"{N} | summarize arg_max(Timestamp, RemoteIP, InitiatingProcessFileName) by DeviceId",
            {
                "duckdb": "select DeviceId, max(Timestamp) t, arg_max(RemoteIP, Timestamp) a, arg_max(InitiatingProcessFileName, Timestamp) f from N group by DeviceId",
                "chdb": "select DeviceId, max(Timestamp) t, argMax(RemoteIP, Timestamp) a, argMax(InitiatingProcessFileName, Timestamp) f from N group by DeviceId",
            },
            lambda: scan(N).group_by("DeviceId").agg(c("Timestamp").max(), *[c(x).sort_by("Timestamp").last() for x in ("RemoteIP", "InitiatingProcessFileName")]),
        ),
        "join in time": (
            f"{P} | where ProcessCommandLine contains_cs '-EncodedCommand' | project DeviceId, ProcessId, DeviceName, Started = Timestamp | join kind=inner ({N} | project DeviceId, InitiatingProcessId, RemoteIP, Timestamp) on DeviceId, $left.ProcessId == $right.InitiatingProcessId | where Timestamp >= Started and Timestamp < Started + 10m | summarize c = count() by DeviceName, RemoteIP | top 50 by c desc, DeviceName asc, RemoteIP asc",
            "select p.DeviceName, n.RemoteIP, count(*) c from P p join N n on n.DeviceId = p.DeviceId and n.InitiatingProcessId = p.ProcessId where p.ProcessCommandLine like '%-EncodedCommand%' and n.Timestamp >= p.Timestamp and n.Timestamp < p.Timestamp + interval '10 minutes' group by 1, 2 order by c desc, 1, 2 limit 50",
            lambda: counted(scan(P).filter(c("ProcessCommandLine").str.contains("-EncodedCommand", literal=True)).select("DeviceId", "ProcessId", "DeviceName", started="Timestamp").join(scan(N).select("DeviceId", "InitiatingProcessId", "RemoteIP", "Timestamp"), left_on=["DeviceId", "ProcessId"], right_on=["DeviceId", "InitiatingProcessId"]).filter((c("Timestamp") >= c("started")) & (c("Timestamp") < c("started") + pl.duration(minutes=10))), ["DeviceName", "RemoteIP"], 50),
        ),
        "never seen before": (
            f"let old = {P} | where Timestamp < datetime(2026-06-30) | distinct FileName; {P} | where Timestamp >= datetime(2026-06-30) | join kind=leftanti old on FileName | summarize c = count() by FileName | top 100 by c desc, FileName asc",
            "select d.FileName, count(*) c from P d {anti} join (select distinct FileName from P where Timestamp < timestamp '2026-06-30') o on d.FileName = o.FileName where d.Timestamp >= timestamp '2026-06-30' group by d.FileName order by c desc, 1 limit 100",
            lambda: counted(scan(P).filter(c("Timestamp") >= date("2026-06-30")).join(scan(P).filter(c("Timestamp") < date("2026-06-30")).select("FileName").unique(), on="FileName", how="anti"), ["FileName"], 100),
        ),
        "regex, all": (
            f"{P} | where ProcessCommandLine matches regex @'{URL}' | summarize c = count() by FileName | top 50 by c desc, FileName asc",
            {"duckdb": count_by("FileName", f"where regexp_matches(ProcessCommandLine, '{URL}')", 50), "chdb": count_by("FileName", f"where match(ProcessCommandLine, '{URL}')", 50)},
            lambda: counted(scan(P).filter(c("ProcessCommandLine").str.contains(URL)), ["FileName"], 50),
        ),
        "JSON, a week": (
            f"{P} | {kql_between(*WEEK)} | summarize c = count() by s = tostring(parse_json(AdditionalFields).Session.Name) | sort by c desc",
            {
                "duckdb": f"select json_extract_string(AdditionalFields, '$.Session.Name') s, count(*) c from P where {between(*WEEK)} group by 1 order by c desc",
                "chdb": f"select JSONExtractString(AdditionalFields, 'Session', 'Name') s, count(*) c from P where {between(*WEEK)} group by 1 order by c desc",
            },
            lambda: scan(P).filter(within(*WEEK)).group_by(s=c("AdditionalFields").str.json_path_match("$.Session.Name")).agg(c=pl.len()).sort("c", descending=True),
        ),
        "5,000 hashes": (
            f"{P} | where SHA256 in ({wanted}) | summarize c = count() by SHA256 | top 100 by c desc, SHA256 asc",
            count_by("SHA256", "where SHA256 in (select SHA256 from W)", 100),
            lambda: counted(scan(P).join(pl.scan_parquet(f"{facts['folder']}/wanted.parquet"), on="SHA256", how="semi"), ["SHA256"], 100),
        ),
        "one hash": (
            f"{N} | where InitiatingProcessSHA256 == '{facts['hash']}' | project DeviceName, RemoteIP, InitiatingProcessId",
            f"select DeviceName, RemoteIP, InitiatingProcessId from N where InitiatingProcessSHA256 = '{facts['hash']}'",
            lambda: scan(N).filter(c("InitiatingProcessSHA256") == facts["hash"]).select("DeviceName", "RemoteIP", "InitiatingProcessId"),
        ),
        "device timeline": (
            f"{P} | where DeviceId == '{facts['device']}' | top 100 by Timestamp desc | project ProcessId, FileName, ProcessCommandLine, AccountName",
            f"select ProcessId, FileName, ProcessCommandLine, AccountName from P where DeviceId = '{facts['device']}' order by Timestamp desc limit 100",
            lambda: scan(P).filter(c("DeviceId") == facts["device"]).sort("Timestamp", descending=True).head(100).select("ProcessId", "FileName", "ProcessCommandLine", "AccountName"),
        ),
        "six columns, a day": (
            f"{P} | {kql_between('2026-06-10', '2026-06-11')} | where " + " or ".join(f"{x} contains 'payload'" for x in SEARCHED) + " | count",
            f"select count(*) c from P where {between('2026-06-10', '2026-06-11')} and (" + " or ".join(f"{x} ilike '%payload%'" for x in SEARCHED) + ")",
            lambda: scan(P).filter(within("2026-06-10", "2026-06-11") & pl.any_horizontal([c(x).str.contains("(?i)payload") for x in SEARCHED])).select(c=pl.len()),
        ),
        "many groups": (
            f"{N} | summarize c = count(), d = count_distinct(InitiatingProcessFileName) by DeviceName, RemoteIP | top 20 by c desc, DeviceName asc, RemoteIP asc",
            "select DeviceName, RemoteIP, count(*) c, count(distinct InitiatingProcessFileName) d from N group by 1, 2 order by c desc, 1, 2 limit 20",
            lambda: top(scan(N).group_by("DeviceName", "RemoteIP").agg(c=pl.len(), d=c("InitiatingProcessFileName").n_unique()), ["c", "DeviceName", "RemoteIP"], 20),
        ),
    }


def duckdb_engine(folder):
    import duckdb

    connection = duckdb.connect()
    connection.execute("set threads=2")
    connection.execute("set TimeZone='UTC'")
    for view, files in (("P", f"{P}/*"), ("N", f"{N}/*"), ("W", "wanted")):
        connection.execute(f"create view {view} as select * from read_parquet('{folder}/{files}.parquet')")
    return lambda shape: connection.execute(sql(shape, "duckdb").replace("{anti}", "anti")).fetchall()


def chdb_engine(folder):
    import re

    from chdb import session

    opened = session.Session()
    settings = "settings max_threads=2, session_timezone='UTC', schema_inference_make_columns_nullable=0"
    files = {"P": f"{P}/*", "N": f"{N}/*", "W": "wanted"}

    def run(shape):
        text = sql(shape, "chdb").replace("{anti}", "left anti")
        source = lambda found: f"{found[1]} file('{folder}/{files[found[2]]}.parquet', Parquet)"
        text = re.sub(r"\b(from|join) ([PNW])\b", source, text)
        answer = json.loads(str(opened.query(f"{text} {settings}", "JSONCompact")))
        whole = [column["type"].startswith(("UInt", "Int")) for column in answer["meta"]]
        return [[int(x) if w else x for x, w in zip(row, whole)] for row in answer["data"]]

    return run


def sql(shape, engine):
    return shape[1] if isinstance(shape[1], str) else shape[1][engine]


def polars_engine(_):
    return lambda shape: shape[2]().collect(engine="streaming").rows()


def vigie_engine(_):
    command = [os.environ["VIGIE"], "hunt", "--serve-stdio", "--now", "2026-07-01T00:00:00Z", "--data", os.environ["VIGIE_LAKE"]]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(shape):
        process.stdin.write(json.dumps({"id": 1, "query": shape[0]}) + "\n")
        process.stdin.flush()
        answer = json.loads(process.stdout.readline())
        if "error" in answer:
            raise RuntimeError(answer["error"])
        whole = [column["type"] in ("int", "long") for column in answer["columns"]]
        return [[int(x) if w and x else x for x, w in zip(row, whole)] for row in answer["rows"]]

    return run


ENGINES = {"vigie": vigie_engine, "duckdb": duckdb_engine, "chdb": chdb_engine, "polars": polars_engine}


def work(engine, facts):
    """A worker: names of shapes in, times and what tells answers apart out."""
    known, run = shapes(facts), ENGINES[engine](facts["folder"])
    for line in sys.stdin:
        shape, times = known[line.strip()], []
        try:
            for _ in range(6):
                began = time.perf_counter()
                rows = run(shape)
                times.append((time.perf_counter() - began) * 1000)
            numbers = sum(x for row in rows for x in row if type(x) is int)
            told = {"ms": statistics.median(times[1:]), "answer": [len(rows), 0 if len(shape) > 3 else numbers]}
        except Exception as error:
            told = {"error": f"{error}"[:200]}
        print(json.dumps(told), flush=True)


def main(vigie, rows, folder):
    began = time.time()
    facts = telemetry.write(folder, rows) | {"folder": folder}
    print(f"{rows} rows a table made in {time.time() - began:.0f} s")
    lake, began = f"{folder}/lake", time.time()
    files = [f"{folder}/{table}/{name}" for table in (P, N) for name in sorted(os.listdir(f"{folder}/{table}"))]
    subprocess.run([vigie, "import", "--data", lake, *files], check=True, stdout=subprocess.DEVNULL)
    size = lambda *roots: sum(os.path.getsize(f"{at}/{f}") for root in roots for at, _, names in os.walk(root) for f in names) / 1e6
    print(f"imported in {time.time() - began:.0f} s, {size(lake):.0f} MB of {size(f'{folder}/{P}', f'{folder}/{N}'):.0f} MB")
    environment = dict(os.environ, VIGIE=vigie, VIGIE_LAKE=lake, POLARS_MAX_THREADS="2")
    with open(f"{folder}/facts.json", "w") as file:
        json.dump(facts, file)
    start = lambda engine: subprocess.Popen([sys.executable, __file__, "--worker", engine, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    workers = {engine: start(engine) for engine in ENGINES}
    print(f"{'ms':22}" + "".join(f"{engine:>10}" for engine in ENGINES) + "   ratio to the best peer")
    ratios = []
    for shape in shapes(facts):
        told = {}
        for engine, worker in workers.items():
            worker.stdin.write(shape + "\n")
            worker.stdin.flush()
            told[engine] = json.loads(worker.stdout.readline() or '{"error": "ended"}')
        best = min(t["ms"] for engine, t in told.items() if engine != "vigie" and "ms" in t)
        ratio = told["vigie"].get("ms", math.inf) / best
        ratios.append(ratio)
        agree = "" if len({str(t["answer"]) for t in told.values() if "ms" in t}) == 1 else "   answers differ"
        cells = "".join(f"{t['ms']:10.0f}" if "ms" in t else f"{'error':>10}" for t in told.values())
        print(f"{shape:22}{cells}   {ratio:.2f}{agree}", flush=True)
        for engine, t in told.items():
            if "error" in t:
                print(f"   {engine}: {t['error']}")
    print(f"geometric mean {math.exp(sum(map(math.log, ratios)) / len(ratios)):.2f}, worst {max(ratios):.2f}")


if __name__ == "__main__":
    if sys.argv[1] == "--worker":
        with open(f"{sys.argv[3]}/facts.json") as file:
            work(sys.argv[2], json.load(file))
    else:
        main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
