//! Threads that read what strangers made (files of a scan, rules, package databases), with little
//! power: whatever goes wrong in a parser there, it can change no file, start no program and speak to
//! nobody.
//!
//! The kernel holds the bounds twice: Landlock (landlock(7)) for files and ports, seccomp (seccomp(2))
//! for calls, of which only those that reading needs are let through; the others fail with `EPERM`. A
//! thread cannot get out of either again, so the work gets a thread of its own. The memory is the
//! sensor's: this bounds what code does that is led astray, not one that runs an attacker's machine
//! code, against which the parsers are written in safe Rust.

use anyhow::{Result, anyhow};
use landlock::{
    ABI, Access, AccessFs, AccessNet, RestrictionStatus, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, RulesetStatus, Scope, path_beneath_rules,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};
use std::collections::BTreeMap;
use std::sync::Once;

/// The newest rules that are asked for; a kernel that knows fewer enforces those.
const LANDLOCK: ABI = ABI::V6;

/// What a confined thread can get hold of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The files that it is handed, opened by others.
    Handed,
    /// All files that the sensor may read.
    Reading,
}

/// Runs work on a thread of its own that is confined before it begins, and waits for it.
pub fn run<T: Send>(reach: Reach, work: impl FnOnce() -> T + Send) -> Result<T> {
    let confined = || {
        confine(reach);
        work()
    };
    std::thread::scope(|scope| scope.spawn(confined).join())
        .map_err(|_| anyhow!("a confined thread failed"))
}

/// Confines the calling thread for the rest of its life. What the kernel lacks is told in the log,
/// once for each of the two, and the work goes on without it.
pub fn confine(reach: Reach) {
    static TOLD_OF_LANDLOCK: Once = Once::new();
    static TOLD_OF_SECCOMP: Once = Once::new();
    let landlock = files_and_ports(reach);
    // Told before the calls are bounded: afterwards this thread cannot write to the log.
    match &landlock {
        Ok(RestrictionStatus { ruleset: RulesetStatus::FullyEnforced, .. }) => {}
        Ok(status) => TOLD_OF_LANDLOCK.call_once(|| {
            let enforced = &status.ruleset;
            tracing::warn!(?enforced, "this kernel bounds parsers with Landlock in part or not");
        }),
        Err(error) => TOLD_OF_LANDLOCK.call_once(|| {
            tracing::warn!(%error, "parsers run without the bounds of Landlock");
        }),
    }
    let filtered = filter(reach).and_then(|filter| Ok(seccompiler::apply_filter(&filter)?));
    if let Err(error) = filtered {
        TOLD_OF_SECCOMP.call_once(|| {
            tracing::warn!(%error, "parsers run without the bounds of seccomp");
        });
    }
}

fn files_and_ports(reach: Reach) -> Result<RestrictionStatus, RulesetError> {
    let ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(LANDLOCK))?
        .handle_access(AccessNet::from_all(LANDLOCK))?
        .scope(Scope::from_all(LANDLOCK))?
        .create()?;
    let readable: &[&str] = match reach {
        Reach::Handed => &[],
        Reach::Reading => &["/"],
    };
    let reading = AccessFs::ReadFile | AccessFs::ReadDir;
    ruleset.add_rules(path_beneath_rules(readable, reading))?.restrict_self()
}

/// Calls of a thread that computes with what it has: memory, waiting, reading, its own end.
const ALWAYS: &[libc::c_long] = &[
    libc::SYS_read,
    libc::SYS_pread64,
    libc::SYS_readv,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_statx,
    libc::SYS_fcntl,
    libc::SYS_close,
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_membarrier,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
];

/// Calls that find and open files; opening for anything but reading is refused by its flags.
const READING: &[libc::c_long] = &[
    libc::SYS_getdents64,
    libc::SYS_newfstatat,
    libc::SYS_readlinkat,
    libc::SYS_faccessat,
    libc::SYS_fstatfs,
    libc::SYS_statfs,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lstat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
];

fn filter(reach: Reach) -> Result<BpfProgram> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALWAYS.iter().map(|call| (*call, Vec::new())).collect();
    if reach == Reach::Reading {
        rules.extend(READING.iter().map(|call| (*call, Vec::new())));
        rules.insert(libc::SYS_openat, vec![for_reading()?]);
    }
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    let architecture = std::env::consts::ARCH.try_into()?;
    let filter = SeccompFilter::new(rules, refused, SeccompAction::Allow, architecture)?;
    Ok(filter.try_into()?)
}

/// `openat` with flags that change nothing.
fn for_reading() -> Result<SeccompRule> {
    let changing = libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC;
    let masked = SeccompCmpOp::MaskedEq(changing as u64);
    let reads = SeccompCondition::new(2, SeccompCmpArgLen::Dword, masked, libc::O_RDONLY as u64)?;
    Ok(SeccompRule::new(vec![reads])?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{ErrorKind, Read, Write};
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::process::Command;

    fn denied<T>(outcome: std::io::Result<T>, what: &str) {
        match outcome {
            Ok(_) => panic!("{what} is possible"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{what}: {error}"),
        }
    }

    #[test]
    fn a_parser_can_read_and_do_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let (known, new) = (folder.path().join("known"), folder.path().join("new"));
        std::fs::write(&known, "content").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut written = File::options().append(true).open(&known).unwrap();
        for reach in [Reach::Handed, Reach::Reading] {
            let mut handed = File::open(&known).unwrap();
            run(reach, || {
                let mut text = String::new();
                handed.read_to_string(&mut text).unwrap();
                assert_eq!(text, "content");
                let opened = File::open(&known);
                match reach {
                    Reach::Handed => denied(opened, "opening a file"),
                    Reach::Reading => drop(opened.unwrap()),
                }
                denied(std::fs::write(&new, "x"), "making a file");
                denied(File::options().write(true).open(&known), "opening a file for writing");
                denied(std::fs::remove_file(&known), "removing a file");
                denied(std::fs::rename(&known, &new), "moving a file");
                denied(std::fs::create_dir(&new), "making a folder");
                denied(TcpStream::connect(address), "a connection");
                denied(UdpSocket::bind("127.0.0.1:0"), "a socket");
                denied(Command::new("/bin/true").spawn(), "a program");
                denied(written.write(b"x"), "writing to what is open already");
                // SAFETY: signal 0 of the sensor's own process does nothing.
                assert_eq!(unsafe { libc::kill(libc::getpid(), 0) }, -1, "signals are possible");
            })
            .expect("nothing else may fail");
        }
        assert_eq!(std::fs::read_to_string(&known).unwrap(), "content");
        // Other threads have all that they had.
        std::fs::write(&new, "x").unwrap();
        TcpStream::connect(address).unwrap();
    }

    #[test]
    fn memory_and_channels_work_under_confinement() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let sum = run(Reach::Handed, || {
            let numbers: Vec<u64> = (0..4_000_000).collect();
            sender.send(numbers.len()).unwrap();
            numbers.iter().sum::<u64>()
        });
        assert_eq!((receiver.recv().unwrap(), sum.unwrap()), (4_000_000, 7_999_998_000_000));
        assert!(run(Reach::Handed, || panic!("a parser's error")).is_err());
    }
}
