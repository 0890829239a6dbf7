//! YARA rules: one of ours, those of a folder on this machine, those of the tenant.

use boreal::compiler::{CompilerBuilder, CompilerParams};
use boreal::scanner::ScanParams;
use boreal::{Compiler, Scanner};
use std::path::Path;
use std::time::Duration;

/// The test file of the European Institute for Computer Antivirus Research; its text is written in
/// hexadecimal digits, so that this source is none itself.
const EICAR: &str = "
rule EICAR_Test_File {
    strings:
        $text = { 58 35 4F 21 50 25 40 41 50 5B 34 5C 50 5A 58 35 34 28 50 5E 29 37 43 43 29 37 7D
                  24 45 49 43 41 52 2D 53 54 41 4E 44 41 52 44 2D 41 4E 54 49 56 49 52 55 53 2D 54
                  45 53 54 2D 46 49 4C 45 21 24 48 2B 48 2A }
    condition:
        $text at 0
}
";
/// One file may take this long; the rest of the scan should not suffer from one bad rule.
const LONGEST_FILE: Duration = Duration::from_secs(20);
/// Files of rules that are larger are none, in bytes.
const LARGEST_FILE: u64 = 32 << 20;

/// A scanner of all rules that are right, and what is wrong with the others.
pub fn compile(folder: Option<&Path>, texts: &[(String, String)]) -> (Scanner, Vec<String>) {
    let mut compiler = CompilerBuilder::new().build();
    // Rules come from a server: they may not read files of this machine.
    compiler.set_params(CompilerParams::default().disable_includes(true));
    let mut problems = Vec::new();
    add(&mut compiler, "vigie", EICAR, &mut problems);
    for (name, text) in texts {
        add(&mut compiler, name, text, &mut problems);
    }
    let mut local: Vec<_> = (folder.and_then(|folder| std::fs::read_dir(folder).ok()))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let extension = path.extension().and_then(|extension| extension.to_str());
            matches!(extension, Some("yar" | "yara"))
        })
        .collect();
    local.sort();
    for path in local {
        let small = std::fs::metadata(&path).is_ok_and(|data| data.len() <= LARGEST_FILE);
        let name = path.display().to_string();
        match std::fs::read_to_string(&path).ok().filter(|_| small) {
            Some(text) => add(&mut compiler, &name, &text, &mut problems),
            None => problems.push(format!("{name} cannot be read as rules")),
        }
    }
    let mut scanner = compiler.finalize();
    let params = ScanParams::default().timeout_duration(Some(LONGEST_FILE));
    scanner.set_scan_params(params);
    (scanner, problems)
}

/// Each file is a namespace of its own, since files of different authors use the same names.
fn add(compiler: &mut Compiler, name: &str, text: &str, problems: &mut Vec<String>) {
    if let Err(error) = compiler.add_rules_str_in_namespace(text, name) {
        let error = error.to_string();
        problems.push(format!("rules {name}: {}", error.lines().next().unwrap_or_default()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eicar() -> Vec<u8> {
        let (head, tail) =
            ("X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR", "-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*");
        [head, tail].concat().into_bytes()
    }

    #[test]
    fn the_test_file_is_found_and_right_rules_survive_wrong_ones() {
        let folder = tempfile::tempdir().unwrap();
        let rule =
            |name: &str| format!("rule {name} {{ strings: $a = \"{name}-text\" condition: $a }}");
        std::fs::write(folder.path().join("local.yar"), rule("local")).unwrap();
        std::fs::write(folder.path().join("notes.txt"), "no rule").unwrap();
        let texts = [
            ("tenant.yar".to_owned(), rule("tenant")),
            ("same.yar".to_owned(), rule("tenant")),
            ("bad.yar".to_owned(), "rule x {".to_owned()),
            ("thief.yar".to_owned(), "include \"/etc/passwd\"".to_owned()),
        ];
        let (scanner, problems) = compile(Some(folder.path()), &texts);
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].contains("bad.yar") && problems[1].contains("thief.yar"));
        let names = |bytes: &[u8]| -> Vec<String> {
            let result = scanner.scan_mem(bytes).unwrap();
            result.rules.iter().map(|rule| rule.name.to_owned()).collect()
        };
        assert_eq!(names(&eicar()), ["EICAR_Test_File"]);
        assert_eq!(names(b"a local-text"), ["local"]);
        assert_eq!(names(b"a tenant-text"), ["tenant", "tenant"]);
        assert!(names(b"nothing").is_empty());
    }
}
