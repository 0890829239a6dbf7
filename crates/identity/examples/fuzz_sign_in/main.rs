//! Sends the authorization server what nobody should send: damaged forms, assertions, redirect URIs,
//! Basic headers, access tokens, page forms and paths.
//!
//! `cargo xtask fuzz sign-in MINUTES [SEED]`. A panic, an answer of 5xx, a slow or misshapen answer, a
//! token for a credential that is not exactly the right one, or a redirect to an address that is not
//! registered, is a finding: it is printed with its request, and the exit code is 1. A finding that
//! was mended becomes a test.

mod assertions;
mod damage;
mod exchange;
mod forms;
mod redirects;
mod rest;
mod scene;
// What the tests share with this program is more than it uses.
#[allow(dead_code)]
#[path = "../../tests/oauth/signer.rs"]
mod signer;
#[allow(dead_code)]
#[path = "../../tests/oauth/support.rs"]
mod support;

use damage::Random;
use exchange::Finding;
use scene::Scene;
use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

/// No answer may cost more processor time, of a build without optimisation too.
const SLOW: Duration = Duration::from_secs(2);
/// No answer may take longer, on a busy machine too.
const STUCK: Duration = Duration::from_secs(120);
/// Trials in one directory: a new one keeps the audit log short.
const TRIALS: u64 = 20_000;
/// Redirect URIs of the application that the redirects are tried with, by platform.
const WEB: &[&str] = &["https://client.example/cb", "https://client.example/q?fixed=1"];
const SPA: &[&str] = &["https://spa.example/", "http://localhost/spa"];
const NATIVE: &[&str] =
    &["http://localhost", "http://127.0.0.1/cb", "http://[::1]/x", "app.client://done"];

impl Scene {
    async fn trial(&mut self, random: &mut Random) -> Result<String, Finding> {
        match random.below(14) {
            0..=3 => self.try_form(random).await,
            4..=6 => self.try_assertion(random).await,
            7..=9 => self.try_redirect(random).await,
            10 => self.try_basic(random).await,
            11 => self.try_bearer(random).await,
            12 => self.try_page(random).await,
            _ => self.try_path(random).await,
        }
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let minutes: f64 = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(1.0);
    let seed: u64 = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.unwrap_or_else(|error| panic!("no runtime: {error}"));
    let end = Instant::now() + Duration::from_secs_f64(minutes * 60.0);
    let mut random = Random(fastrand::Rng::with_seed(seed));
    let mut tally: BTreeMap<String, u64> = BTreeMap::new();
    let mut findings: HashSet<String> = HashSet::new();
    let mut trials = 0_u64;
    while Instant::now() < end {
        runtime.block_on(async {
            let mut scene = Scene::new().await;
            for _ in 0..TRIALS {
                if Instant::now() >= end {
                    break;
                }
                trials += 1;
                match scene.trial(&mut random).await {
                    Ok(outcome) => *tally.entry(outcome).or_default() += 1,
                    Err(Finding { kind, request }) => {
                        // One of each kind is enough.
                        let short: String =
                            kind.chars().filter(|c| !c.is_ascii_digit()).take(60).collect();
                        if findings.insert(short) {
                            println!("FINDING {kind}\n{request}\n");
                        }
                    }
                }
            }
        });
    }
    for (outcome, count) in &tally {
        println!("{count:>9} {outcome}");
    }
    println!("seed {seed}: {trials} trials, {} findings", findings.len());
    std::process::exit(i32::from(!findings.is_empty()));
}
