//! Process events from the kernel's proc connector (`linux/cn_proc.h`): fork, exec, exit.
//!
//! The event of an exec carries a process number only, so everything else is read from `/proc`. A
//! program like `true` ends half a millisecond later; therefore one thread of high priority does
//! nothing but receive and read, and a second one hashes files and makes rows.

use super::netlink::{Netlink, Received, u32_at};
use super::{Context, TICK};
use crate::process::{Image, read_image};
use crate::rows::Row;
use chrono::{DateTime, Utc};
use serde_json::json;
use std::collections::HashMap;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

const NETLINK_CONNECTOR: isize = 11;
/// `CN_IDX_PROC` and `CN_VAL_PROC`: both 1; the multicast group has the index's number.
const PROC: u32 = 1;
const PROC_CN_MCAST_LISTEN: u32 = 1;
const NLMSG_DONE: u16 = 3;
/// Bytes of `struct cn_msg` before its data.
const CN_BYTES: usize = 20;

const EVENT_FORK: u32 = 0x1;
const EVENT_EXEC: u32 = 0x2;
const EVENT_EXIT: u32 = 0x8000_0000;

/// Images that may wait for their rows.
const QUEUE: usize = 16 * 1024;

pub struct Connector {
    netlink: Netlink,
}

/// What the first thread tells the second, in the kernel's order.
enum Step {
    Fork {
        parent: u32,
        child: u32,
        at: DateTime<Utc>,
    },
    /// No image: the process was gone before it could be read.
    Exec {
        pid: u32,
        at: DateTime<Utc>,
        image: Option<Box<Image>>,
    },
    Exit {
        pid: u32,
    },
}

/// A proc connector message.
#[derive(Debug, PartialEq)]
enum Event {
    Fork { parent: u32, child: u32 },
    Exec { pid: u32 },
    Exit { pid: u32 },
    Other,
}

impl Connector {
    pub fn open() -> Result<Connector, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("needs root".to_owned());
        }
        let mut netlink = Netlink::open(NETLINK_CONNECTOR, PROC)
            .map_err(|error| format!("no netlink connector: {error}"))?;
        netlink.set_receive_buffer(16 * 1024 * 1024);
        let mut body = Vec::new();
        for number in [PROC, PROC, 0, 0] {
            body.extend(number.to_ne_bytes());
        }
        body.extend(4u16.to_ne_bytes());
        body.extend(0u16.to_ne_bytes());
        body.extend(PROC_CN_MCAST_LISTEN.to_ne_bytes());
        netlink.send(NLMSG_DONE, 0, &body).map_err(|error| format!("cannot listen: {error}"))?;
        // The kernel confirms to those it lets listen (not outside the first user and process
        // namespaces).
        match netlink.receive(TICK) {
            Ok(Received::Bytes(_) | Received::Overrun) => Ok(Connector { netlink }),
            Ok(Received::Nothing) => {
                Err("the kernel does not answer (inside a process or user namespace)".to_owned())
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// Numbers of the processes that began a program since the last call; waits a little for one.
    pub fn execs(&mut self, patience: Duration) -> Vec<u32> {
        let Ok(Received::Bytes(length)) = self.netlink.receive(patience) else {
            return Vec::new();
        };
        let messages = self.netlink.messages(length).filter_map(|(_, body)| parse(body));
        let execs = messages.filter_map(|message| match message.event {
            Event::Exec { pid } => Some(pid),
            _ => None,
        });
        execs.collect()
    }

    fn run(mut self, context: &Context, steps: &SyncSender<Step>) {
        raise_priority();
        let mut counters = HashMap::new();
        while !context.stop.is_cancelled() {
            match self.netlink.receive(TICK) {
                Ok(Received::Bytes(length)) => {
                    for (_, body) in self.netlink.messages(length) {
                        let Some(message) = parse(body) else { continue };
                        context.sink.lost("process", gap(&mut counters, &message));
                        if let Some(step) = step_of(context, &message.event)
                            && let Err(TrySendError::Full(_)) = steps.try_send(step)
                        {
                            context.sink.lost("process", 1);
                        }
                    }
                }
                // How many were dropped shows in the next message's number.
                Ok(Received::Nothing | Received::Overrun) => {}
                Err(error) => {
                    tracing::error!(%error, "proc connector failed, no more process events");
                    return;
                }
            }
        }
    }
}

/// The two threads of this source.
pub fn pipeline(
    context: Context,
    connector: Connector,
) -> (impl FnOnce() + Send, impl FnOnce() + Send) {
    let (sender, receiver) = sync_channel(QUEUE);
    let second = context.clone();
    (move || connector.run(&context, &sender), move || make_rows(&second, receiver))
}

struct Message {
    cpu: u32,
    counter: u32,
    event: Event,
}

fn parse(body: &[u8]) -> Option<Message> {
    if (u32_at(body, 0)?, u32_at(body, 4)?) != (PROC, PROC) {
        return None;
    }
    let counter = u32_at(body, 8)?;
    let event = body.get(CN_BYTES..)?;
    let (what, cpu) = (u32_at(event, 0)?, u32_at(event, 4)?);
    // 8 bytes of time follow; then numbers of the event's own.
    let number = |index: usize| u32_at(event, 16 + index * 4);
    let event = match what {
        // parent thread, parent process, child thread, child process
        EVENT_FORK if number(2)? == number(3)? => {
            Event::Fork { parent: number(1)?, child: number(3)? }
        }
        EVENT_EXEC => Event::Exec { pid: number(1)? },
        // Threads end too; only the end of the leader is the process's.
        EVENT_EXIT if number(0)? == number(1)? => Event::Exit { pid: number(1)? },
        _ => Event::Other,
    };
    Some(Message { cpu, counter, event })
}

/// How many messages of this processor were lost before this one: the kernel numbers them by
/// processor.
fn gap(counters: &mut HashMap<u32, u32>, message: &Message) -> u64 {
    match counters.insert(message.cpu, message.counter) {
        Some(before) => u64::from(message.counter.wrapping_sub(before).wrapping_sub(1)),
        None => 0,
    }
}

fn step_of(context: &Context, event: &Event) -> Option<Step> {
    let at = context.clock.now();
    Some(match *event {
        Event::Fork { parent, child } => Step::Fork { parent, child, at },
        Event::Exec { pid } => Step::Exec { pid, at, image: read_image(pid).map(Box::new) },
        Event::Exit { pid } => Step::Exit { pid },
        Event::Other => return None,
    })
}

fn make_rows(context: &Context, steps: Receiver<Step>) {
    while let Ok(step) = steps.recv() {
        match step {
            Step::Fork { parent, child, at } => context.processes.forked(parent, child, at),
            Step::Exec { pid, at, image } => executed(context, pid, at, image),
            Step::Exit { pid } => context.processes.ended(pid),
        }
    }
}

/// Makes the row of a started program.
fn executed(context: &Context, pid: u32, at: DateTime<Utc>, image: Option<Box<Image>>) {
    let processes = &context.processes;
    let mut row = Row::new(at, "ProcessCreated");
    match image {
        Some(image) => {
            // The image before exec is the one that started the program where a process replaces
            // itself; in all other cases it equals the parent's.
            let complete = !image.path.is_empty();
            let process = processes.learn(pid, *image);
            processes.describe(&mut row, &process);
            row.json("AdditionalFields", &super::additional_fields(&process.image, complete));
            if let Some(parent) = processes.find(process.parent_pid) {
                processes.describe_initiating(&mut row, &parent);
            }
        }
        None => {
            // Gone before it could be read: number, time and parent are still worth knowing.
            row.number("ProcessId", pid);
            row.json("AdditionalFields", &json!({ "Incomplete": true }));
            let parent = processes.known(pid).and_then(|known| processes.known(known.parent_pid));
            if let Some(parent) = parent {
                processes.describe_initiating(&mut row, &parent);
            }
        }
    }
    context.sink.put("process", "DeviceProcessEvents", row);
}

/// Reading must win the race against programs that end at once.
pub fn raise_priority() {
    let parameters = libc::sched_param { sched_priority: 1 };
    // SAFETY: sets the scheduling of the calling thread alone, from a valid structure.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_RR, &raw const parameters) };
    if result != 0 {
        let error = std::io::Error::last_os_error();
        tracing::debug!(%error, "no real-time priority for the exec thread");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(counter: u32, what: u32, cpu: u32, numbers: [u32; 4]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for number in [PROC, PROC, counter, 0, 40, what, cpu, 0, 0] {
            bytes.extend(u32::to_ne_bytes(number));
        }
        numbers.iter().for_each(|number| bytes.extend(number.to_ne_bytes()));
        bytes
    }

    #[test]
    fn events_are_told_apart() {
        let cases = [
            (message(0, EVENT_FORK, 0, [9, 8, 70, 70]), Event::Fork { parent: 8, child: 70 }),
            // A new thread, and a thread's end, are no process events.
            (message(0, EVENT_FORK, 0, [9, 8, 71, 70]), Event::Other),
            (message(0, EVENT_EXIT, 0, [71, 70, 0, 0]), Event::Other),
            (message(0, EVENT_EXEC, 0, [70, 70, 0, 0]), Event::Exec { pid: 70 }),
            (message(0, EVENT_EXIT, 0, [70, 70, 0, 17]), Event::Exit { pid: 70 }),
        ];
        for (bytes, event) in cases {
            assert_eq!(parse(&bytes).unwrap().event, event);
        }
        assert!(parse(&[0; 3]).is_none());
    }

    #[test]
    fn lost_messages_show_in_the_counter_of_each_processor() {
        let mut counters = HashMap::new();
        let mut lost = |cpu, counter| {
            gap(&mut counters, &parse(&message(counter, EVENT_EXEC, cpu, [1; 4])).unwrap())
        };
        assert_eq!([lost(0, 5), lost(1, 9), lost(0, 6), lost(0, 10), lost(1, 10)], [0, 0, 0, 3, 0]);
        assert_eq!([lost(2, u32::MAX), lost(2, 0)], [0, 0]);
    }
}
