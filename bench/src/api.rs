//! The resource API over many alerts and machines: pages, deep skips, one machine.

use crate::server::{SERVER_CORE, Server, leave_server_core};
use anyhow::{Context as _, Result};
use std::path::Path;
use std::time::{Duration, Instant};
use vigie_database::{Database, Value};

const ALERTS: i64 = 1_000_000;
const MACHINES: i64 = 10_000;
/// Requests a second, and for how long.
const RATE: u64 = 200;
const SECONDS: u64 = 20;

pub async fn run() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (tenant, secret, application) = {
        // Makes the tables and a tenant.
        let server = Server::start(folder.path(), false, &["--no-sensor"])?;
        let login = server.login()?;
        (login.tenant, login.secret, login.application)
    };
    let began = Instant::now();
    fill(&folder.path().join("state.db"), &tenant).await?;
    println!(
        "api: {ALERTS} alerts and {MACHINES} machines stored in {:.0} s",
        began.elapsed().as_secs_f64()
    );
    let server = Server::start(folder.path(), true, &["--no-sensor", "--no-quotas"])?;
    leave_server_core()?;
    let http = server.http()?;
    let login = crate::server::Login { url: server.url()?, tenant, application, secret };
    let token = login.token(&http).await?;
    let get = async |path: &str| {
        let began = Instant::now();
        let answer = http.get(format!("{}{path}", login.url)).bearer_auth(&token).send().await?;
        let status = answer.status();
        let bytes = answer.bytes().await?;
        anyhow::ensure!(status.is_success(), "{path}: {}", String::from_utf8_lossy(&bytes));
        anyhow::Ok(began.elapsed())
    };
    let filter = "/api/alerts?$filter=severity eq 'High' and status eq 'New'&$top=100";
    let machine = format!("/api/machines/{:040x}", MACHINES / 2);
    for (name, path, target) in [
        ("alerts, filtered, 100 rows", filter, 20.0),
        (
            "alerts since a time, expanded",
            "/api/alerts?$filter=alertCreationTime gt 2020-01-01T00:11:00Z&$orderby=alertCreationTime asc&$top=50&$expand=evidence",
            20.0,
        ),
        (
            "alerts changed since a time",
            "/api/alerts?$filter=lastUpdateTime gt 2020-01-01T00:11:00Z&$top=100",
            20.0,
        ),
        ("one machine", machine.as_str(), 2.0),
    ] {
        get(path).await.with_context(|| name.to_owned())?;
        let (p50, p99) = paced(&get, path).await?;
        println!(
            "api: {name}: median {p50:.1} ms, p99 {p99:.1} ms (target < {target} ms) at {RATE} \
             requests/s on core {SERVER_CORE}"
        );
    }
    for (name, filter, skip) in [
        ("all", "", 900_000),
        ("by status", "&$filter=status ne 'Resolved'", 600_000),
        (
            "since a time",
            "&$filter=alertCreationTime gt 2019-12-31T00:00:00Z and severity ne 'Low'",
            700_000,
        ),
        ("by machine", "&$filter=machineId ne 'x'", 900_000),
    ] {
        let path = format!("/api/alerts?$top=100{filter}");
        let first = several(&get, &path).await?;
        let deep = several(&get, &format!("{path}&$skip={skip}")).await?;
        println!(
            "api: {name}: first page {first:.1} ms, behind {skip} rows {deep:.1} ms (target < 10 times)"
        );
    }
    Ok(())
}

/// The middle of several requests in milliseconds.
async fn several(get: &impl AsyncFn(&str) -> Result<Duration>, path: &str) -> Result<f64> {
    let mut times = Vec::new();
    for _ in 0..11 {
        times.push(get(path).await?.as_secs_f64() * 1e3);
    }
    Ok(crate::median(times))
}

/// Requests at the rate, one after the other; the median and the 99th percentile in milliseconds.
async fn paced(get: &impl AsyncFn(&str) -> Result<Duration>, path: &str) -> Result<(f64, f64)> {
    let mut times = Vec::new();
    let began = Instant::now();
    for at in 0..RATE * SECONDS {
        let due = began + Duration::from_micros(at * 1_000_000 / RATE);
        tokio::time::sleep_until(due.into()).await;
        times.push(get(path).await?.as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok((times[times.len() / 2], times[times.len() * 99 / 100]))
}

async fn fill(path: &Path, tenant: &str) -> Result<()> {
    let database = Database::open_file(path).await?;
    let mut transaction = database.begin().await?;
    for at in 0..MACHINES {
        let insert = "INSERT INTO machines (id, tenant, installation, public_key, name, os_platform, \
            device_value, tags, report, first_seen, last_seen) VALUES ($1, $2, $3, '', $4, 'Linux', \
            'Normal', '[]', '{}', $5, $5)";
        let values: [Value; 5] = [
            format!("{at:040x}").into(),
            tenant.into(),
            format!("installation {at}").into(),
            format!("host{at}.bench.example").into(),
            at.into(),
        ];
        transaction.execute(insert, &values).await?;
    }
    transaction.commit().await?;
    let severities = ["Informational", "Low", "Medium", "High"];
    let statuses = ["New", "InProgress", "Resolved"];
    // 2020-01-01, then one each millisecond.
    let start = 1_577_836_800_000_000_i64;
    for part in 0..ALERTS / 10_000 {
        let mut transaction = database.begin().await?;
        for at in part * 10_000..(part + 1) * 10_000 {
            let id = format!("da{at:012}");
            let insert = "INSERT INTO alerts (id, tenant, machine, name, title, description, \
                recommended_action, severity, category, status, detection_source, incident, techniques, \
                comments, created, updated, first_event, last_event) VALUES ($1, $2, $3, $4, \
                'A title of usual length', 'A description that says what was seen and why it matters', \
                'Look at it', $5, 'Execution', $6, 'CustomDetection', $7, '[]', '[]', $8, $8, $8, $8)";
            let values: [Value; 8] = [
                id.as_str().into(),
                tenant.into(),
                format!("{:040x}", at % MACHINES).into(),
                format!("host{}.bench.example", at % MACHINES).into(),
                severities[(at % 4) as usize].into(),
                statuses[(at / 4 % 3) as usize].into(),
                at.into(),
                (start + at * 1000).into(),
            ];
            transaction.execute(insert, &values).await?;
            let insert = "INSERT INTO alert_evidence (alert, tenant, position, entity_type, created, \
                          sha1, file_name) VALUES ($1, $2, 0, 'Process', $3, $4, 'curl')";
            let values: [Value; 4] =
                [id.into(), tenant.into(), start.into(), format!("{:040x}", at % 5000).into()];
            transaction.execute(insert, &values).await?;
        }
        transaction.commit().await?;
    }
    // As the server counts them.
    let mut transaction = database.begin().await?;
    for seconds in [86_400, 60] {
        let micros = seconds * 1_000_000;
        let count = format!(
            "INSERT INTO alert_counts (tenant, seconds, began, severity, status, number) \
             SELECT tenant, {seconds}, created - created % {micros}, severity, status, COUNT(*) \
             FROM alerts GROUP BY 1, 3, 4, 5"
        );
        transaction.execute(&count, &[]).await?;
    }
    transaction.commit().await?;
    database.close().await;
    Ok(())
}
