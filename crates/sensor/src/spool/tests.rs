use super::*;

fn waiting_bodies(spool: &mut Spool) -> Vec<Vec<u8>> {
    let mut bodies = Vec::new();
    while let Some(batch) = spool.front() {
        bodies.push(batch.body.to_vec());
        spool.acknowledge(batch.number).unwrap();
    }
    bodies
}

#[test]
fn batches_survive_a_restart_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(folder.path(), 1 << 20).unwrap();
    for number in 1..=5u8 {
        assert_eq!(spool.append(1, &[number; 10]).unwrap(), u64::from(number));
    }
    spool.acknowledge(2).unwrap();
    drop(spool);
    let mut spool = Spool::open(folder.path(), 1 << 20).unwrap();
    assert_eq!(spool.waiting(), 3);
    assert_eq!(waiting_bodies(&mut spool), [[3; 10], [4; 10], [5; 10]]);
    assert_eq!(spool.append(1, b"next").unwrap(), 6);
}

#[test]
fn a_record_cut_by_a_crash_is_left_out_and_its_number_used_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(folder.path(), 1 << 20).unwrap();
    spool.append(1, b"whole").unwrap();
    spool.append(1, b"torn by power loss").unwrap();
    let path = spool.segments[0].path.clone();
    let size = spool.segments[0].bytes;
    drop(spool);
    for cut in [1, 10, 18, 30] {
        OpenOptions::new().write(true).open(&path).unwrap().set_len(size - cut).unwrap();
        let mut spool = Spool::open(folder.path(), 1 << 20).unwrap();
        assert_eq!(spool.waiting(), 1, "cut by {cut}");
        assert_eq!(spool.append(1, b"torn by power loss").unwrap(), 2);
    }
}

#[test]
fn a_flipped_bit_ends_the_segment_but_not_the_spool() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(folder.path(), 1 << 20).unwrap();
    spool.append(1, b"first").unwrap();
    spool.append(1, b"second").unwrap();
    let path = spool.segments[0].path.clone();
    drop(spool);
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let mut spool = Spool::open(folder.path(), 1 << 20).unwrap();
    assert_eq!(waiting_bodies(&mut spool), [b"first"]);
}

#[test]
fn a_full_spool_drops_the_oldest_and_counts_the_events() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(folder.path(), 3 * SEGMENT_BYTES).unwrap();
    let body = vec![7; SEGMENT_BYTES as usize];
    for _ in 0..5 {
        spool.append(10, &body).unwrap();
    }
    assert_eq!(spool.front().unwrap().number, 4);
    assert_eq!(spool.dropped_events(), 30);
    let on_disk: u64 = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(on_disk <= 3 * SEGMENT_BYTES);
}

#[test]
fn acknowledged_segments_leave_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(folder.path(), 64 * SEGMENT_BYTES).unwrap();
    let body = vec![7; SEGMENT_BYTES as usize];
    for _ in 0..4 {
        spool.append(1, &body).unwrap();
    }
    spool.acknowledge(4).unwrap();
    let segments = std::fs::read_dir(folder.path())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|e| e == "segment"))
        .count();
    assert_eq!(segments, 0);
    drop(spool);
    assert_eq!(Spool::open(folder.path(), 1 << 20).unwrap().append(1, b"x").unwrap(), 5);
}

#[test]
fn a_lost_spool_continues_after_what_the_server_knows() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(folder.path(), 1 << 20).unwrap();
    spool.append(1, b"new").unwrap();
    assert_eq!(spool.wire_sequence(1), 1);
    spool.shift_beyond(40).unwrap();
    assert_eq!(spool.wire_sequence(1), 41);
    drop(spool);
    let spool = Spool::open(folder.path(), 1 << 20).unwrap();
    assert_eq!(spool.last_wire_sequence(), 41);
}
