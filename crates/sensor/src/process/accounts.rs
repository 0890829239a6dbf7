//! Names of local accounts, from `/etc/passwd`.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::SystemTime;

/// Read again whenever the file changes. Accounts of a directory service (NSS) are not asked for:
/// that may block on the network; they appear as their number.
#[derive(Default)]
pub struct Accounts(Mutex<(Option<SystemTime>, HashMap<u32, String>)>);

impl Accounts {
    pub fn name(&self, uid: u32) -> String {
        let mut names = self.0.lock();
        if let Some(name) = names.1.get(&uid) {
            return name.clone();
        }
        let changed = std::fs::metadata("/etc/passwd").and_then(|data| data.modified()).ok();
        if changed.is_some() && names.0 != changed {
            let text = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
            *names = (changed, parse(&text));
        }
        names.1.get(&uid).cloned().unwrap_or_else(|| uid.to_string())
    }
}

fn parse(passwd: &str) -> HashMap<u32, String> {
    let mut names = HashMap::new();
    for line in passwd.lines() {
        let mut fields = line.split(':');
        if let (Some(name), Some(uid)) = (fields.next(), fields.nth(1))
            && let Ok(uid) = uid.parse()
        {
            // The first name of a number is the one that programs show.
            names.entry(uid).or_insert_with(|| name.to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    #[test]
    fn first_name_of_a_number_wins_and_bad_lines_are_passed_over() {
        let names = super::parse("root:x:0:0::/root:/bin/sh\ntoor:x:0:0::/:/bin/sh\nbad\nx:y:z\n");
        assert_eq!(names.len(), 1);
        assert_eq!(names[&0], "root");
    }
}
