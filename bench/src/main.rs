//! Benchmarks of the running product; `bench/README.md` says what each measures.

mod api;
mod filter;
mod hunt;
mod idle;
mod indicators;
mod ingest;
mod orders;
mod response;
mod server;
mod start;
mod statistics;
mod token;

use clap::{Parser, ValueEnum};

/// Measures the program `vigie` beside this one.
#[derive(Parser)]
struct Arguments {
    #[arg(value_enum, default_value_t = Benchmark::All)]
    benchmark: Benchmark,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Benchmark {
    All,
    Start,
    Ingest,
    Filter,
    Hunt,
    Idle,
    Orders,
    Scan,
    Package,
    Token,
    Api,
    Statistics,
    Indicators,
}

fn main() -> anyhow::Result<()> {
    let wanted = Arguments::parse().benchmark;
    let chosen = |one| wanted == Benchmark::All || wanted == one;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if chosen(Benchmark::Start) {
        runtime.block_on(start::run())?;
    }
    if chosen(Benchmark::Ingest) {
        runtime.block_on(ingest::run())?;
    }
    if chosen(Benchmark::Filter) {
        runtime.block_on(filter::run())?;
    }
    if chosen(Benchmark::Hunt) {
        hunt::run()?;
    }
    if chosen(Benchmark::Idle) {
        idle::run()?;
    }
    if chosen(Benchmark::Orders) {
        runtime.block_on(orders::run())?;
    }
    if chosen(Benchmark::Scan) {
        runtime.block_on(response::scan())?;
    }
    if chosen(Benchmark::Package) {
        runtime.block_on(response::package())?;
    }
    if chosen(Benchmark::Token) {
        runtime.block_on(token::run())?;
    }
    if chosen(Benchmark::Api) {
        runtime.block_on(api::run())?;
    }
    if chosen(Benchmark::Statistics) {
        runtime.block_on(statistics::run())?;
    }
    if chosen(Benchmark::Indicators) {
        runtime.block_on(indicators::run())?;
    }
    Ok(())
}

/// The middle value.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
