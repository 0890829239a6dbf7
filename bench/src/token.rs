//! Client credentials: tokens a second against raw signatures a second on the same core, how long one
//! takes, the same with very many tenants; and how long the API looks at a token.

use crate::idle::cpu;
use crate::server::{Login, SERVER_CORE, Server, leave_server_core};
use anyhow::{Context as _, Result};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use std::path::Path;
use std::time::{Duration, Instant};
use vigie_contract::clock::Clock;
use vigie_database::{Database, Value};
use vigie_identity::{Authority, Directory, MasterKey, Resource};

const CONNECTIONS: usize = 16;
const SECONDS: u64 = 10;
const TENANTS: u64 = 10_000;
const APPLICATIONS: u64 = 100_000;

pub async fn run() -> Result<()> {
    let raw = signatures()?;
    let folder = tempfile::tempdir()?;
    let server = Server::start(folder.path(), true, &["--no-sensor"])?;
    leave_server_core()?;
    let login = server.login()?;
    let mut half = 0.0;
    for (name, target, protocol) in [
        ("HTTP/1.1", " (target >= 80 %)", Protocol::Http1),
        ("HTTP/2", "", Protocol::Http2),
        ("a new connection each", "", Protocol::Alone),
    ] {
        settled(&server).await?;
        let rate = rate(&server, &login, protocol).await?;
        let share = rate / raw * 100.0;
        println!(
            "token: {rate:.0} tokens/s on core {SERVER_CORE}, {name}; {raw:.0} raw RS256 \
             signatures/s: {share:.0} %{target}"
        );
        if matches!(protocol, Protocol::Http1) {
            half = rate / 2.0;
        }
    }
    settled(&server).await?;
    let one = paced(&server, std::slice::from_ref(&login), half).await?;
    println!("token: p99 {:.1} ms at {half:.0} tokens/s (target < 10 ms)", one.p99);
    // Far from the rate at which requests queue: an application that nobody asked for lately costs
    // more of the processor than one in memory, and a queue would show that many times over.
    let quarter = half / 2.0;
    let one = paced(&server, std::slice::from_ref(&login), quarter).await?;
    let token = login.token(&client(&server, Protocol::Http1)?).await?;
    drop(server);
    validation(folder.path(), &token).await?;
    let began = Instant::now();
    fill(&folder.path().join("state.db"), &login.application).await?;
    println!(
        "token: {TENANTS} tenants, {APPLICATIONS} applications stored in {:.0} s",
        began.elapsed().as_secs_f64()
    );
    let server = Server::start(folder.path(), true, &["--no-sensor"])?;
    settled(&server).await?;
    let url = server.url()?;
    // All of them, by steps that have no factor in common with their number.
    let many: Vec<Login> = (0..APPLICATIONS)
        .map(|at| application(&url, &login.secret, at * 61_283 % APPLICATIONS))
        .collect();
    let many = paced(&server, &many, quarter).await?;
    println!(
        "token: one application {:.2} ms (p99 {:.1}), {APPLICATIONS} applications of {TENANTS} \
         tenants {:.2} ms (p99 {:.1}): {:.2} times (target <= 2)",
        one.mean,
        one.p99,
        many.mean,
        many.p99,
        many.mean / one.mean
    );
    Ok(())
}

/// How clients reach the server. Most libraries speak HTTP/1.1.
#[derive(Clone, Copy)]
enum Protocol {
    Http1,
    Http2,
    /// Without reuse: a TLS handshake for every request.
    Alone,
}

fn client(server: &Server, protocol: Protocol) -> Result<reqwest::Client> {
    let builder = server.http_builder()?;
    Ok(match protocol {
        Protocol::Http1 => builder.http1_only(),
        Protocol::Http2 => builder,
        Protocol::Alone => builder.http1_only().pool_max_idle_per_host(0),
    }
    .build()?)
}

/// Waits until the server has done what it does at its start.
async fn settled(server: &Server) -> Result<()> {
    for _ in 0..60 {
        let before = cpu(server.pid())?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        if cpu(server.pid())? - before <= 2 {
            return Ok(());
        }
    }
    anyhow::bail!("the server does not come to rest")
}

/// Tokens a second that the server gives at most.
async fn rate(server: &Server, login: &Login, protocol: Protocol) -> Result<f64> {
    let began = Instant::now();
    let end = began + Duration::from_secs(SECONDS);
    let mut tasks = Vec::new();
    for _ in 0..CONNECTIONS {
        let (login, http) = (login.clone(), client(server, protocol)?);
        tasks.push(tokio::spawn(async move {
            let mut tokens = 0_u64;
            while Instant::now() < end {
                login.token(&http).await?;
                tokens += 1;
            }
            anyhow::Ok(tokens)
        }));
    }
    let mut tokens = 0;
    for task in tasks {
        tokens += task.await??;
    }
    Ok(tokens as f64 / began.elapsed().as_secs_f64())
}

/// In milliseconds.
struct Latency {
    mean: f64,
    p99: f64,
}

/// Requests at a rate, whether or not the ones before were answered; one application after the other.
async fn paced(server: &Server, logins: &[Login], rate: f64) -> Result<Latency> {
    let http = client(server, Protocol::Http1)?;
    let began = Instant::now();
    let mut tasks = Vec::new();
    for at in 0..(rate * SECONDS as f64) as usize {
        let due = began + Duration::from_secs_f64(at as f64 / rate);
        tokio::time::sleep_until(due.into()).await;
        let (http, login) = (http.clone(), logins[at % logins.len()].clone());
        tasks.push(tokio::spawn(async move {
            login.token(&http).await?;
            anyhow::Ok(due.elapsed().as_secs_f64() * 1e3)
        }));
    }
    let mut times = Vec::new();
    for task in tasks {
        times.push(task.await??);
    }
    // The first ones open connections.
    let mut times = times.split_off(times.len() / 10);
    times.sort_by(f64::total_cmp);
    let mean = times.iter().sum::<f64>() / times.len() as f64;
    Ok(Latency { mean, p99: times[times.len() * 99 / 100] })
}

fn tenant_id(number: u64) -> String {
    format!("{number:08x}-0000-4000-8000-{number:012x}")
}

fn application(url: &str, secret: &str, number: u64) -> Login {
    Login {
        url: url.to_owned(),
        tenant: tenant_id(number % TENANTS),
        application: format!("{number:08x}-0000-4000-9000-{number:012x}"),
        secret: secret.to_owned(),
    }
}

/// Tenants and applications like the first one, with its secret: hashes of secrets are made with one
/// key.
async fn fill(path: &Path, like: &str) -> Result<()> {
    let database = Database::open_file(path).await?;
    let mut transaction = database.begin().await?;
    let numbers = |count: u64| {
        format!(
            "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {count})"
        )
    };
    let tenants = numbers(TENANTS);
    let applications = numbers(APPLICATIONS);
    let tenant = "printf('%08x-0000-4000-8000-%012x', i, i)";
    let owner = format!("printf('%08x-0000-4000-8000-%012x', i % {TENANTS}, i % {TENANTS})");
    let id = "printf('%08x-0000-4000-9000-%012x', i, i)";
    let object = "printf('%08x-0000-4000-a000-%012x', i, i)";
    for statement in [
        format!(
            "INSERT INTO tenants (id, display_name, plan, created) {tenants} \
             SELECT {tenant}, 'Tenant ' || i, 'Trial', 0 FROM n"
        ),
        format!(
            "INSERT INTO domains (name, tenant, place) {tenants} \
             SELECT 'tenant' || i || '.example', {tenant}, 0 FROM n"
        ),
        format!(
            "INSERT INTO applications (app_id, tenant, object_id, display_name, created) \
             {applications} SELECT {id}, {owner}, {object}, 'Application ' || i, 0 FROM n"
        ),
        format!(
            "INSERT INTO service_principals (object_id, tenant, app_id, enabled, \
             assignment_required, created) {applications} SELECT {object}, {owner}, {id}, 1, 0, 0 \
             FROM n"
        ),
        format!(
            "INSERT INTO role_grants (tenant, app_id, resource, role) {applications} \
             SELECT {owner}, {id}, resource, role FROM n, role_grants WHERE app_id = $1"
        ),
        format!(
            "INSERT INTO secrets (key_id, app_id, hint, hash, created, expires) {applications} \
             SELECT {object}, {id}, hint, hash, created, expires FROM n, secrets WHERE app_id = $1"
        ),
    ] {
        let values: Vec<Value> =
            if statement.contains("$1") { vec![like.into()] } else { Vec::new() };
        transaction.execute(&statement, &values).await.context(statement)?;
    }
    transaction.commit().await?;
    database.close().await;
    Ok(())
}

/// What the API's edge does with a bearer token, in this process.
async fn validation(folder: &Path, token: &str) -> Result<()> {
    let database = Database::open_file(&folder.join("state.db")).await?;
    let fresh = async || {
        let master = MasterKey::from_file(&folder.join("master.key"))?;
        let directory = Directory::open(database.clone(), master, Clock::default()).await?;
        directory.set_authority(Authority::new("https://127.0.0.1:8443", &[]));
        anyhow::Ok(directory)
    };
    let mut first = Vec::new();
    for _ in 0..50 {
        let directory = fresh().await?;
        let began = Instant::now();
        directory.verify(token, Resource::Defender)?;
        first.push(began.elapsed().as_secs_f64() * 1e6);
    }
    let directory = fresh().await?;
    const TIMES: u32 = 100_000;
    directory.verify(token, Resource::Defender)?;
    let began = Instant::now();
    for _ in 0..TIMES {
        std::hint::black_box(directory.verify(std::hint::black_box(token), Resource::Defender)?);
    }
    println!(
        "token: the API looks at a token that it knows for {:.2} µs (target < 5 µs), at a new one for \
         {:.0} µs",
        began.elapsed().as_secs_f64() * 1e6 / f64::from(TIMES),
        crate::median(first)
    );
    database.close().await;
    Ok(())
}

/// RS256 signatures a second of a token's length on the server's core.
fn signatures() -> Result<f64> {
    let thread = std::thread::spawn(|| {
        let mut core = rustix::thread::CpuSet::new();
        core.set(SERVER_CORE);
        rustix::thread::sched_setaffinity(None, &core)?;
        let pair: RsaKeyPair = aws_lc_rs::rsa::KeyPair::generate(KeySize::Rsa2048)?;
        let (random, message) = (SystemRandom::new(), [b'x'; 1200]);
        let mut signature = vec![0; pair.public_modulus_len()];
        let began = Instant::now();
        let mut made = 0_u64;
        while began.elapsed() < Duration::from_secs(4) {
            pair.sign(&RSA_PKCS1_SHA256, &random, &message, &mut signature)?;
            made += 1;
        }
        anyhow::Ok(made as f64 / began.elapsed().as_secs_f64())
    });
    thread.join().unwrap_or_else(|_| anyhow::bail!("the thread ended"))
}
