//! The sign-in pages in a real browser.

use crate::support::{Up, VIGIE, output};
use std::path::Path;
use std::process::Command;

/// Pictures of every page are left in `target/screenshots`.
// CHECKLIST 60, 61, 62, 92
#[test]
fn pages_work_in_a_browser_on_a_desktop_a_phone_and_without_scripts() {
    let variable = |name: &str| std::env::var(name).ok();
    let (Some(python), Some(chromium), Some(modules)) = (
        variable("VIGIE_TEST_PYTHON"),
        variable("VIGIE_TEST_CHROMIUM"),
        variable("VIGIE_TEST_NODE_MODULES"),
    ) else {
        println!("left out: no Chromium, Python or axe-core is named by VIGIE_TEST_…");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let server = Up::on(folder.path(), &[]);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/acceptance/pages.py");
    let target = Path::new(VIGIE).parent().and_then(Path::parent).unwrap();
    let mut run = Command::new(python);
    run.args([script, &server.url(), &server.value("tenant"), VIGIE, &chromium])
        .arg(Path::new(&modules).join("axe-core/axe.min.js"))
        .arg(target.join("screenshots"))
        .env("VIGIE_DATA", folder.path().join("data"))
        .env("REQUESTS_CA_BUNDLE", server.value("certificate"));
    println!("{}", output(&mut run));
}
