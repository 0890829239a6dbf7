//! YARA rules of a folder on this machine and of the tenant.

use super::rules::Text;
use boreal::compiler::{CompilerBuilder, CompilerParams};
use boreal::scanner::ScanParams;
use std::time::Duration;

/// One file may take this long; the rest of the scan should not suffer from one bad rule.
const LONGEST_FILE: Duration = Duration::from_secs(20);

pub struct Engine(boreal::Scanner);

impl Engine {
    /// An engine of all rules that are right, and what is wrong with the others. Each file is a
    /// namespace of its own, since files of different authors use the same names.
    pub fn new(texts: &[Text], problems: &mut Vec<String>) -> Engine {
        let mut compiler = CompilerBuilder::new().build();
        // Rules come from a server: they may not read files of this machine.
        compiler.set_params(CompilerParams::default().disable_includes(true));
        for text in texts {
            if let Err(error) = compiler.add_rules_str_in_namespace(&text.rules, &text.name) {
                let error = error.to_string();
                let error = error.lines().next().unwrap_or_default();
                problems.push(format!("rules {}: {error}", text.name));
            }
        }
        let mut scanner = compiler.finalize();
        scanner.set_scan_params(ScanParams::default().timeout_duration(Some(LONGEST_FILE)));
        Engine(scanner)
    }

    /// Names of the rules that a file's bytes fulfil.
    pub fn matches(&self, bytes: &[u8]) -> Vec<String> {
        // What was found before a time limit counts.
        let result = self.0.scan_mem(bytes).unwrap_or_else(|(_, found)| found);
        result.rules.iter().map(|rule| rule.name.to_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn right_rules_survive_wrong_ones() {
        let text =
            |name: &str, rules: &str| Text { name: name.to_owned(), rules: rules.to_owned() };
        let rule = "rule tenant { strings: $a = \"tenant-text\" condition: $a }";
        let texts = [
            text("tenant.yar", rule),
            text("same.yar", rule),
            text("bad.yar", "rule x {"),
            text("thief.yar", "include \"/etc/passwd\""),
        ];
        let mut problems = Vec::new();
        let engine = Engine::new(&texts, &mut problems);
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].contains("bad.yar") && problems[1].contains("thief.yar"));
        assert_eq!(engine.matches(b"a tenant-text"), ["tenant", "tenant"]);
        assert!(engine.matches(b"nothing").is_empty());
    }
}
