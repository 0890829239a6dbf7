//! Ends a program right before its n-th step.
//!
//! A step is what changes something that outlives the program: a file takes another's place or is
//! removed, a program is started. Killed at any moment, a program leaves what it left before the next
//! of its steps, so killing it before each of them tries them all. The kernel stops the program at
//! these calls and asks this process (seccomp_unotify(2)).

use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use std::fs::File;
use std::io::{Error, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};

// linux/seccomp.h: _IOWR('!', 0, struct seccomp_notif) and _IOWR('!', 1, struct seccomp_notif_resp).
const RECEIVE: libc::Ioctl = 0xc050_2100_u32 as libc::Ioctl;
const SEND: libc::Ioctl = 0xc018_2101_u32 as libc::Ioctl;

/// Calls that are steps, with the argument that is the path; the last one says what it is.
const CALLS: &[(libc::c_long, usize, &str)] = &[
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_rename, 1, "replace"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_unlink, 0, "remove"),
    (libc::SYS_renameat, 3, "replace"),
    (libc::SYS_renameat2, 3, "replace"),
    (libc::SYS_unlinkat, 1, "remove"),
    (libc::SYS_execve, 0, "start"),
];
/// What only reads, and telemetry, which has a test of its own.
const PASSED_OVER: &[&str] =
    &["/spool/", "journalctl", "systemctl", "dpkg-query", "/rpm", "/last", "/ip", "findmnt"];

#[derive(Default)]
struct Shared {
    pid: u32,
    /// Steps until the end; 0 for never.
    left: usize,
    ended_before: Option<String>,
}

/// The steps of one program.
pub struct Steps(Arc<Mutex<Shared>>);

impl Steps {
    /// Starts a program whose steps are looked at; it goes on undisturbed.
    pub fn spawn(command: &mut Command) -> std::io::Result<(Child, Steps)> {
        let (ours, theirs) = UnixStream::pair()?;
        let shared = Arc::new(Mutex::new(Shared::default()));
        std::thread::spawn({
            let shared = shared.clone();
            move || {
                if let Some(listener) = receive(&ours) {
                    watch(&listener, &shared);
                }
            }
        });
        let program = filter();
        // SAFETY: between fork and exec only calls of the kernel are made; nothing is allocated.
        unsafe {
            command.pre_exec(move || {
                let listener = listen(&program)?;
                send(&theirs, &listener)
            });
        }
        let child = command.spawn()?;
        shared.lock().unwrap().pid = child.id();
        Ok((child, Steps(shared)))
    }

    /// The program is to end before its `number`-th step from now on.
    pub fn end_before(&self, number: usize) {
        self.0.lock().unwrap().left = number;
    }

    /// The step before which the program was ended.
    pub fn ended_before(&self) -> Option<String> {
        self.0.lock().unwrap().ended_before.clone()
    }
}

/// A filter that lets everything through but asks about the steps.
fn filter() -> Vec<libc::sock_filter> {
    let line =
        |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let end = libc::BPF_RET | libc::BPF_K;
    let mut program = vec![line(load, 0, 0, 0)];
    for (place, (call, ..)) in CALLS.iter().enumerate() {
        let to_end = (CALLS.len() - place) as u8;
        program.push(line(equal, to_end, 0, *call as u32));
    }
    program.push(line(end, 0, 0, libc::SECCOMP_RET_ALLOW));
    program.push(line(end, 0, 0, libc::SECCOMP_RET_USER_NOTIF));
    program
}

fn listen(program: &[libc::sock_filter]) -> std::io::Result<OwnedFd> {
    let program =
        libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    // SAFETY: the filter outlives the call; the descriptor that it returns belongs to nobody else.
    unsafe {
        if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 {
            return Err(Error::last_os_error());
        }
        let (mode, flags) = (libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER);
        let listener = libc::syscall(libc::SYS_seccomp, mode, flags, &program);
        if listener < 0 {
            return Err(Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(listener as i32))
    }
}

fn send(socket: &UnixStream, descriptor: &OwnedFd) -> std::io::Result<()> {
    // SAFETY: it is open for the time of this function.
    let borrowed = [unsafe { BorrowedFd::borrow_raw(descriptor.as_raw_fd()) }];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&borrowed));
    sendmsg(socket, &[IoSlice::new(&[0])], &mut control, SendFlags::empty())?;
    Ok(())
}

fn receive(socket: &UnixStream) -> Option<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::empty()).ok()?;
    let mut descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(rights) => Some(rights),
        _ => None,
    });
    descriptors.next()?.next()
}

/// Answers the kernel until the program and all that it started are gone.
fn watch(listener: &OwnedFd, shared: &Mutex<Shared>) {
    use rustix::event::{PollFd, PollFlags, poll};
    loop {
        let mut waiting = [PollFd::new(listener, PollFlags::IN)];
        if poll(&mut waiting, None).is_ok() && waiting[0].revents().contains(PollFlags::HUP) {
            return;
        }
        // SAFETY: both structures are the kernel's own, of its size, and zero is a value of them.
        unsafe {
            let mut asked: libc::seccomp_notif = std::mem::zeroed();
            if libc::ioctl(listener.as_raw_fd(), RECEIVE, &mut asked) != 0 {
                continue;
            }
            if step(&asked, shared) {
                // The thread ends in this call; an answer could still let it go on.
                continue;
            }
            let mut answer: libc::seccomp_notif_resp = std::mem::zeroed();
            answer.id = asked.id;
            answer.flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32;
            // Fails where the asking thread was ended meanwhile.
            libc::ioctl(listener.as_raw_fd(), SEND, &mut answer);
        }
    }
}

/// Counts a step, and ends the program before it if it is the one; whether this very thread ends.
fn step(asked: &libc::seccomp_notif, shared: &Mutex<Shared>) -> bool {
    let mut shared = shared.lock().unwrap();
    let (process, parent) = family(asked.pid);
    // Its own threads, and a child that is about to become another program.
    let own = process == Some(shared.pid);
    if shared.left == 0 || !(own || parent == Some(shared.pid)) {
        return false;
    }
    let call = CALLS.iter().find(|(call, ..)| *call == libc::c_long::from(asked.data.nr));
    let Some((_, argument, what)) = call else { return false };
    let path = text(asked.pid, asked.data.args[*argument]);
    if PASSED_OVER.iter().any(|part| path.contains(part)) {
        return false;
    }
    shared.left -= 1;
    if shared.left > 0 {
        return false;
    }
    // SAFETY: the program is a child of this process that nobody has waited for.
    unsafe { libc::kill(shared.pid as i32, libc::SIGKILL) };
    shared.ended_before = Some(format!("{what} {path}"));
    own
}

/// The process of a thread, and that one's parent.
fn family(thread: u32) -> (Option<u32>, Option<u32>) {
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
    let field = |name: &str| -> Option<u32> {
        status.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok()
    };
    (field("Tgid:"), field("PPid:"))
}

/// A text of another process, up to its zero.
fn text(thread: u32, address: u64) -> String {
    let mut bytes = [0; 512];
    let memory = File::open(format!("/proc/{thread}/mem"));
    let read = memory.and_then(|memory| memory.read_at(&mut bytes, address)).unwrap_or(0);
    let end = bytes[..read].iter().position(|byte| *byte == 0).unwrap_or(read);
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
