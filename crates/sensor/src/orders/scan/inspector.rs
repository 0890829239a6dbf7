//! The thread that compares files with rules, confined to what it is handed: rules as texts, files
//! as open descriptors.

use super::rules::{Rules, Text};
use crate::confinement::{Reach, confine};
use anyhow::{Context, Result, anyhow};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};
use tokio_util::sync::CancellationToken;

/// Files that may wait, open, for their turn.
const WAITING: usize = 16;

/// What became of one file.
pub struct Looked {
    pub path: PathBuf,
    /// Its size in bytes and the names of what it is.
    pub outcome: std::io::Result<(u64, Vec<String>)>,
}

pub struct Inspector<'scope> {
    files: SyncSender<(File, PathBuf)>,
    looked: Receiver<Looked>,
    thread: ScopedJoinHandle<'scope, Vec<String>>,
}

impl<'scope> Inspector<'scope> {
    /// Starts the thread, which makes the rules ready first.
    pub fn start<'env>(
        scope: &'scope Scope<'scope, 'env>,
        texts: Vec<Text>,
        largest: u64,
        stop: CancellationToken,
    ) -> Inspector<'scope> {
        let (files, waiting) = sync_channel(WAITING);
        let (sender, looked) = channel();
        let thread = scope.spawn(move || {
            lower_priority();
            confine(Reach::Handed);
            let mut problems = Vec::new();
            let rules = Rules::new(&texts, &mut problems);
            drop(texts);
            inspect(&rules, &waiting, &sender, largest, &stop);
            problems
        });
        Inspector { files, looked, thread }
    }

    /// Hands over a file and takes what is known of earlier ones.
    pub fn look(&mut self, file: File, path: &Path) -> Vec<Looked> {
        // A thread that has failed takes nothing more; `finish` tells.
        let _ = self.files.send((file, path.to_owned()));
        self.looked.try_iter().collect()
    }

    /// Waits for what is left; returns it, and what is wrong with the rules.
    pub fn finish(self) -> Result<(Vec<Looked>, Vec<String>)> {
        drop(self.files);
        let looked = self.looked.iter().collect();
        let problems = self.thread.join().map_err(|_| anyhow!("the thread that reads files"));
        Ok((looked, problems.context("it failed internally")?))
    }
}

/// The thread waits for everything else that wants the processor or the disk.
pub fn lower_priority() {
    // linux/ioprio.h: class "idle", for this thread.
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    const IDLE: libc::c_int = 3 << 13;
    // SAFETY: both calls take numbers alone; 0 is the calling thread.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, 19);
        libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IDLE);
    }
}

fn inspect(
    rules: &Rules,
    files: &Receiver<(File, PathBuf)>,
    looked: &Sender<Looked>,
    largest: u64,
    stop: &CancellationToken,
) {
    let mut bytes = Vec::new();
    for (file, path) in files {
        if stop.is_cancelled() {
            return;
        }
        bytes.clear();
        // A file may have grown since it was opened.
        let read = file.take(largest).read_to_end(&mut bytes);
        let outcome = read.map(|read| (read as u64, rules.matches(&bytes)));
        if looked.send(Looked { path, outcome }).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_compared_in_order_and_wrong_rules_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let rule = "rule marked { strings: $a = \"mark-of-this-test\" condition: $a }";
        let text = |name: &str, rules: &str| Text { name: name.into(), rules: rules.into() };
        let texts = vec![text("right", rule), text("wrong", "rule {")];
        let mut found = Vec::new();
        let problems = std::thread::scope(|scope| {
            let mut inspector = Inspector::start(scope, texts, 1 << 20, CancellationToken::new());
            for number in 0..100 {
                let path = folder.path().join(number.to_string());
                let content = if number % 10 == 0 { "a mark-of-this-test" } else { "nothing" };
                std::fs::write(&path, content).unwrap();
                found.extend(inspector.look(File::open(&path).unwrap(), &path));
            }
            let (rest, problems) = inspector.finish().unwrap();
            found.extend(rest);
            problems
        });
        assert!(problems.len() == 1 && problems[0].contains("wrong"), "{problems:?}");
        for (number, looked) in found.iter().enumerate() {
            assert!(looked.path.ends_with(number.to_string()));
            let (_, names) = looked.outcome.as_ref().unwrap();
            assert_eq!(names.len(), usize::from(number % 10 == 0));
        }
        assert_eq!(found.len(), 100);
    }
}
