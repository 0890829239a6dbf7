//! Which test covers which number of the checklist: read from the comments `CHECKLIST n, m` above
//! tests, and written to `docs/oauth-coverage.md`.

use std::collections::BTreeMap;
use std::path::Path;

const CHECKLIST: &str = include_str!("checklist.txt");
/// Folders whose tests name numbers, from the repository's root.
const FOLDERS: &[&str] =
    &["crates/identity/tests/oauth", "crates/server/tests/api", "crates/cli/tests/acceptance"];

/// Number → tests, as `file::function`.
fn covered(root: &Path) -> BTreeMap<u32, Vec<String>> {
    let mut covered: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for folder in FOLDERS {
        let mut files: Vec<_> = std::fs::read_dir(root.join(folder))
            .expect("a folder of tests")
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.extension().is_some_and(|end| end == "rs"))
            .collect();
        files.sort();
        for file in files {
            let text = std::fs::read_to_string(&file).expect("read");
            let module = file.file_stem().and_then(|stem| stem.to_str()).expect("a name");
            let mut numbers: Vec<u32> = Vec::new();
            for line in text.lines() {
                if let Some(list) = line.trim().strip_prefix("// CHECKLIST ") {
                    let parse =
                        |n: &str| n.trim().parse::<u32>().expect("a number of the checklist");
                    numbers.extend(list.split(',').map(parse));
                } else if let Some(rest) = line.trim().split_once("fn ").map(|(_, rest)| rest)
                    && !numbers.is_empty()
                {
                    let name = rest.split('(').next().unwrap_or_default();
                    for number in numbers.drain(..) {
                        let krate = folder.split('/').nth(1).unwrap_or_default();
                        covered
                            .entry(number)
                            .or_default()
                            .push(format!("{krate}: {module}::{name}"));
                    }
                }
            }
        }
    }
    covered
}

#[test]
fn every_must_has_a_test_and_every_should_one_or_a_reason() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let covered = covered(&root);
    let deviations = std::fs::read_to_string(root.join("docs/deviations.md")).expect("read");
    let mut page = String::from(
        "# Coverage of the authorization server's checklist\n\n\
         Written by the test `coverage` of `vigie-identity` (`VIGIE_UPDATE=1` writes it anew). The numbers \
         are those of the\nproject's checklist for an authorization server, drawn from RFC 6749, 6750, \
         7009, 7521, 7523, 7636,\n7662, 8252, 8628, 8725, 9068, 9207, 9700, OpenID Connect and \
         observed clients.\n\n| # | level | what | tests |\n|---|---|---|---|\n",
    );
    let mut missing = Vec::new();
    for line in CHECKLIST.lines() {
        let parts: Vec<&str> = line.split('|').collect();
        let [number, level, what] = parts[..] else { panic!("{line}") };
        let number: u32 = number.parse().expect("a number");
        let tests = covered.get(&number).map(|tests| tests.join("<br>"));
        let deviation = deviations.contains(&format!("(checklist {number})"));
        let told = match (tests, deviation) {
            (Some(tests), _) => tests,
            (None, true) if level == "should" => "see [deviations](deviations.md)".to_owned(),
            (None, _) => {
                missing.push(number);
                "–".to_owned()
            }
        };
        page.push_str(&format!("| {number} | {level} | {what} | {told} |\n"));
    }
    let file = root.join("docs/oauth-coverage.md");
    if std::env::var_os("VIGIE_UPDATE").is_some() {
        std::fs::write(&file, &page).expect("written");
    }
    assert!(missing.is_empty(), "no test names {missing:?}");
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(written == page, "docs/oauth-coverage.md is old: VIGIE_UPDATE=1 writes it anew");
}
