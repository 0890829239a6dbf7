//! The newcomer's walk is a script that a person can read and run too.

use crate::support::VIGIE;
use std::process::Command;

#[test]
fn a_newcomer_walks_from_the_start_to_an_isolated_host() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/acceptance");
    let namespaces = concat!(env!("CARGO_MANIFEST_DIR"), "/../sensor/tests/netns.sh");
    let mut walk = Command::new(format!("{folder}/walk.sh"));
    walk.arg(VIGIE).arg(namespaces).env_remove("RUST_LOG");
    println!("{}", crate::support::output(&mut walk));
}
