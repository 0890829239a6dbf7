//! From the start of the process to the first answered token.

use crate::median;
use crate::server::Server;
use anyhow::Result;
use std::time::Instant;

pub async fn run() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let first = Server::start(folder.path(), false, &[])?;
    let mut login = first.login()?;
    drop(first);
    let mut times = Vec::new();
    for _ in 0..10 {
        let began = Instant::now();
        let server = Server::start(folder.path(), false, &[])?;
        login.url = server.url()?;
        login.token(&server.http()?).await?;
        times.push(began.elapsed().as_secs_f64());
    }
    println!("start: {:.0} ms to the first token (target < 1000 ms)", median(times) * 1000.0);
    Ok(())
}
