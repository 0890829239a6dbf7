//! What files are compared with: the antivirus test file, and YARA rules.

use super::yara::Engine;
use std::path::Path;

/// The test file of the European Institute for Computer Antivirus Research, in two parts, so that
/// this source is none itself.
const TEST_FILE: [&[u8]; 2] =
    [b"X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR", b"-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"];
/// Files of rules that are larger are none, in bytes.
const LARGEST_FILE: u64 = 32 << 20;

/// A file of rules.
pub struct Text {
    pub name: String,
    pub rules: String,
}

pub struct Rules {
    engine: Engine,
}

impl Rules {
    /// Makes rules ready. What cannot be used is added to the problems.
    pub fn new(texts: &[Text], problems: &mut Vec<String>) -> Rules {
        Rules { engine: Engine::new(texts, problems) }
    }

    /// Names of what a file's bytes are.
    pub fn matches(&self, bytes: &[u8]) -> Vec<String> {
        let mut names = Vec::new();
        let rest = bytes.strip_prefix(TEST_FILE[0]);
        if rest.is_some_and(|rest| rest.starts_with(TEST_FILE[1])) {
            names.push("EICAR_Test_File".to_owned());
        }
        names.extend(self.engine.matches(bytes));
        names
    }
}

/// The rules of a folder of this machine. Files that cannot be read are added to the problems.
pub fn local(folder: Option<&Path>, problems: &mut Vec<String>) -> Vec<Text> {
    let entries = folder.map(std::fs::read_dir).into_iter().flatten().flatten().flatten();
    let mut paths: Vec<_> = entries
        .map(|entry| entry.path())
        .filter(|path| {
            let extension = path.extension().and_then(|extension| extension.to_str());
            matches!(extension, Some("yar" | "yara"))
        })
        .collect();
    paths.sort();
    let mut texts = Vec::new();
    for path in paths {
        let small = std::fs::metadata(&path).is_ok_and(|data| data.len() <= LARGEST_FILE);
        let name = path.display().to_string();
        match std::fs::read_to_string(&path).ok().filter(|_| small) {
            Some(rules) => texts.push(Text { name, rules }),
            None => problems.push(format!("{name} cannot be read as rules")),
        }
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_file_is_found_at_the_beginning_only() {
        let folder = tempfile::tempdir().unwrap();
        let rule = "rule local { strings: $a = \"local-text\" condition: $a }";
        std::fs::write(folder.path().join("local.yar"), rule).unwrap();
        std::fs::write(folder.path().join("broken.yara"), [0xff, 0xfe]).unwrap();
        std::fs::write(folder.path().join("notes.txt"), "no rule").unwrap();
        let mut problems = Vec::new();
        let texts = local(Some(folder.path()), &mut problems);
        let rules = Rules::new(&texts, &mut problems);
        assert!(problems[0].contains("broken.yara"), "{problems:?}");
        assert_eq!(rules.matches(&TEST_FILE.concat()), ["EICAR_Test_File"]);
        assert!(rules.matches(&[b"x".as_slice(), TEST_FILE[0], TEST_FILE[1]].concat()).is_empty());
        assert_eq!(rules.matches(b"a local-text"), ["local"]);
    }
}
