//! Process events without privileges: `/proc/loadavg` tells the number given to the last process,
//! so a look costs microseconds while nothing starts. Programs that end between two looks are missed.

use super::Context;
use crate::process::{self, Image, read_image, thread_group_of};
use crate::rows::Row;
use std::collections::HashMap;
use std::time::{Duration, Instant};

const LOOK_EVERY: Duration = Duration::from_millis(10);
/// A new process is watched this long for the program that it will execute.
const AWAIT_EXEC: Duration = Duration::from_secs(2);
/// Ends are noticed this often.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// More new numbers than this at once are found by listing `/proc`.
const LONGEST_STEP: u32 = 4096;

pub fn run(context: &Context) {
    let mut last = last_pid().unwrap_or(0);
    let mut forked: HashMap<u32, (Instant, Image)> = HashMap::new();
    let mut swept = Instant::now();
    while !context.stop.is_cancelled() {
        std::thread::sleep(LOOK_EVERY);
        let newest = last_pid().unwrap_or(last);
        for pid in new_numbers(last, newest) {
            let Some(image) = read_image(pid) else { continue };
            let known = context
                .processes
                .known(pid)
                .is_some_and(|known| known.image.start_milliseconds == image.start_milliseconds);
            // Threads have numbers too.
            if !known && thread_group_of(pid) == Some(pid) {
                started(context, &mut forked, pid, image);
            }
        }
        last = newest;
        forked.retain(|&pid, (since, before)| match read_image(pid) {
            None => false,
            Some(image) if is_other_program(&image, before) => {
                emit(context, pid, image);
                false
            }
            Some(_) => since.elapsed() < AWAIT_EXEC,
        });
        if swept.elapsed() >= SWEEP_EVERY {
            swept = Instant::now();
            context.processes.end_all_but(&process::pids());
        }
    }
}

/// A new process: with a program of its own, or still with its parent's, which it may exchange soon.
fn started(context: &Context, forked: &mut HashMap<u32, (Instant, Image)>, pid: u32, image: Image) {
    let parent = context.processes.find(image.parent_pid);
    match parent.filter(|parent| !is_other_program(&image, &parent.image)) {
        Some(_) => {
            context.processes.learn(pid, image.clone());
            forked.insert(pid, (Instant::now(), image));
        }
        None => emit(context, pid, image),
    }
}

fn is_other_program(image: &Image, before: &Image) -> bool {
    image.file != before.file || image.command_line != before.command_line
}

fn emit(context: &Context, pid: u32, image: Image) {
    let processes = &context.processes;
    let complete = !image.path.is_empty();
    let process = processes.learn(pid, image);
    let mut row = Row::new(context.clock.now(), "ProcessCreated");
    processes.describe(&mut row, &process);
    row.json("AdditionalFields", &super::additional_fields(&process.image, complete));
    if let Some(parent) = processes.find(process.parent_pid) {
        processes.describe_initiating(&mut row, &parent);
    }
    context.sink.put("process", "DeviceProcessEvents", row);
}

/// The last field of `/proc/loadavg`.
fn last_pid() -> Option<u32> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split_ascii_whitespace().last()?.parse().ok()
}

/// Numbers given out since the last look; after a wrap or a burst, all there are.
fn new_numbers(last: u32, newest: u32) -> Vec<u32> {
    if newest == last {
        Vec::new()
    } else if newest > last && newest - last <= LONGEST_STEP {
        (last + 1..=newest).collect()
    } else {
        process::pids()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_new_numbers_are_looked_at() {
        assert!(new_numbers(7, 7).is_empty());
        assert_eq!(new_numbers(7, 9), [8, 9]);
        assert!(new_numbers(30_000, 12).contains(&std::process::id()));
    }
}
