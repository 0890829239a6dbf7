//! Tokens a second against raw signatures a second, on the same core.

use crate::server::{SERVER_CORE, Server, leave_server_core};
use anyhow::Result;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use std::time::{Duration, Instant};

const CONNECTIONS: usize = 16;
const SECONDS: u64 = 10;

pub async fn run() -> Result<()> {
    let raw = signatures()?;
    let folder = tempfile::tempdir()?;
    let server = Server::start(folder.path(), true, &["--no-sensor"])?;
    leave_server_core()?;
    let login = server.login()?;
    let began = Instant::now();
    let end = began + Duration::from_secs(SECONDS);
    let mut tasks = Vec::new();
    for _ in 0..CONNECTIONS {
        let (login, http) = (login.clone(), server.http()?);
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
    let rate = tokens as f64 / began.elapsed().as_secs_f64();
    println!(
        "token: {rate:.0} tokens/s on one core, {raw:.0} raw RS256 signatures/s: {:.0} % (target >= 70 %)",
        rate / raw * 100.0
    );
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
