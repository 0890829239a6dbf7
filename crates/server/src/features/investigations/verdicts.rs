//! What is thought of a finding, and what may be done about it without asking.

use vigie_contract::sensor::Finding;
use vigie_contract::service::AutomationLevel;

/// The verdicts of the documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Malicious,
    Suspicious,
    NoThreatsFound,
}

impl Verdict {
    pub const fn name(self) -> &'static str {
        match self {
            Verdict::Malicious => "Malicious",
            Verdict::Suspicious => "Suspicious",
            Verdict::NoThreatsFound => "NoThreatsFound",
        }
    }
}

/// What the tenant knows of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reputation {
    /// An indicator allows it.
    pub allowed: bool,
    /// A scan found it, or an indicator blocks it.
    pub bad: bool,
}

/// A file that the tenant allows is clean, whatever a scan took it for; one that is known to be bad is
/// malicious; one of a package is what the package brought; and whatever else an alert names is
/// suspicious.
pub fn verdict(finding: &Finding, reputation: Reputation) -> Verdict {
    match (reputation.allowed, reputation.bad, finding.package.is_some()) {
        (true, ..) | (_, false, true) => Verdict::NoThreatsFound,
        (false, true, _) => Verdict::Malicious,
        (false, false, false) => Verdict::Suspicious,
    }
}

/// Whether a file is removed without asking (documentation of the automation levels).
pub fn is_removed_at_once(level: AutomationLevel, verdict: Verdict, path: Option<&str>) -> bool {
    verdict == Verdict::Malicious
        && match level {
            AutomationLevel::NoAutomatedResponse
            | AutomationLevel::SemiRequireApprovalForAllFolders => false,
            AutomationLevel::SemiRequireApprovalForCoreFolders => {
                path.is_some_and(|path| !is_core(path))
            }
            AutomationLevel::SemiRequireApprovalForNonTempFolders => path.is_some_and(is_temporary),
            AutomationLevel::Full => true,
        }
}

/// Folders of the operating system and of installed programs, on Linux and on Windows.
fn is_core(path: &str) -> bool {
    const LINUX: &[&str] =
        &["/bin/", "/boot/", "/etc/", "/lib", "/opt/", "/sbin/", "/snap/", "/usr/", "/var/lib/"];
    const WINDOWS: &[&str] = &[":\\windows\\", ":\\program files"];
    let lower = path.to_lowercase();
    let own = lower.starts_with("/usr/local/");
    (LINUX.iter().any(|folder| path.starts_with(folder)) && !own)
        || WINDOWS.iter().any(|folder| lower.contains(folder))
}

/// Folders for temporary files and downloads.
fn is_temporary(path: &str) -> bool {
    const BEGINNINGS: &[&str] = &["/tmp/", "/var/tmp/", "/dev/shm/", "/run/user/"];
    const PARTS: &[&str] = &["/downloads/", "/.cache/", "\\temp\\", "\\downloads\\"];
    let lower = path.to_lowercase();
    BEGINNINGS.iter().any(|folder| path.starts_with(folder))
        || PARTS.iter().any(|part| lower.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(package: Option<&str>) -> Finding {
        Finding {
            kind: "File".to_owned(),
            entity: String::new(),
            place: String::new(),
            sha1: None,
            path: None,
            package: package.map(str::to_owned),
        }
    }

    #[test]
    fn packages_are_clean_unless_the_tenant_knows_better() {
        let (unknown, bad) = (Reputation::default(), Reputation { bad: true, allowed: false });
        assert_eq!(verdict(&finding(None), unknown), Verdict::Suspicious);
        assert_eq!(verdict(&finding(Some("tools")), unknown), Verdict::NoThreatsFound);
        assert_eq!(verdict(&finding(Some("tools")), bad), Verdict::Malicious);
        assert_eq!(verdict(&finding(None), bad), Verdict::Malicious);
        let allowed = Reputation { bad: false, allowed: true };
        assert_eq!(verdict(&finding(None), allowed), Verdict::NoThreatsFound);
        // An exception that the tenant made after a scan had found the file.
        let both = Reputation { bad: true, allowed: true };
        assert_eq!(verdict(&finding(None), both), Verdict::NoThreatsFound);
    }

    #[test]
    fn levels_remove_what_the_documentation_says() {
        use AutomationLevel::*;
        let cases = [
            ("/tmp/x", [false, false, true, true, true]),
            ("/home/mira/Downloads/x", [false, false, true, true, true]),
            ("/home/mira/x", [false, false, true, false, true]),
            ("/usr/local/bin/x", [false, false, true, false, true]),
            ("/usr/bin/x", [false, false, false, false, true]),
            ("C:\\Windows\\System32\\x.exe", [false, false, false, false, true]),
            ("C:\\Users\\m\\AppData\\Local\\Temp\\x.exe", [false, false, true, true, true]),
        ];
        let levels = [
            NoAutomatedResponse,
            SemiRequireApprovalForAllFolders,
            SemiRequireApprovalForCoreFolders,
            SemiRequireApprovalForNonTempFolders,
            Full,
        ];
        for (path, expected) in cases {
            for (level, removed) in levels.into_iter().zip(expected) {
                let found = is_removed_at_once(level, Verdict::Malicious, Some(path));
                assert_eq!(found, removed, "{level:?} {path}");
                assert!(!is_removed_at_once(level, Verdict::Suspicious, Some(path)));
            }
        }
    }
}
