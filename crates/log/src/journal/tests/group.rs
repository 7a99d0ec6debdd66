//! Group commit with real threads: every acknowledged entry is durable, in order, and failures reach everybody.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use parking_lot::Mutex;
use taccola_base::Uuid;

use super::super::{
    CommitError, GroupCommit, Journal, JournalError, JournalWriter, StageError, format_device, open_device,
};
use super::sim_disk::{Fault, SimDisk};
use super::{entry, identity};

fn started(disk: &SimDisk) -> (GroupCommit, JournalWriter) {
    format_device(&mut disk.clone(), &identity()).unwrap();
    let Journal { staging, writer } =
        open_device(disk.boxed(), 1 << 20, identity()).unwrap().start(Uuid::from_u128(1 << 64)).unwrap();
    (GroupCommit::new(staging, writer.tail()), writer)
}

/// All partitions' base offsets as replay gives them, checked to be in order.
fn replayed(disk: &SimDisk, partitions: usize) -> Vec<i64> {
    let mut recovery = open_device(disk.boxed(), 1 << 20, identity()).unwrap();
    assert_eq!(recovery.damage(), None);
    let mut next = vec![0i64; partitions];
    while let Some(frame) = recovery.next_frame().unwrap() {
        for e in frame.entries {
            assert_eq!(e.base_offset, next[e.partition as usize]);
            next[e.partition as usize] = e.next_offset;
        }
    }
    next
}

#[test]
fn leaders_flush_for_followers() {
    let disk = SimDisk::new(8192 + 4096 * 4096);
    let (group, writer) = started(&disk);
    let writer = Mutex::new(writer);
    let flushes = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for partition in 0..8 {
            let (group, writer, flushes) = (&group, &writer, &flushes);
            scope.spawn(move || {
                for offset in 0..200 {
                    let ticket = group.stage(&entry(partition, offset, offset + 1), b"records").unwrap();
                    group
                        .commit_inline(ticket, |frame| {
                            flushes.fetch_add(1, Ordering::Relaxed);
                            writer.lock().write(frame)
                        })
                        .unwrap();
                    assert!(group.tail().durable() >= ticket);
                }
            });
        }
    });
    assert!(flushes.load(Ordering::Relaxed) <= 1600);
    assert_eq!(replayed(&disk, 8), [200; 8]);
}

#[test]
fn a_flusher_serves_all_and_checkpoints_when_full() {
    // A ring of 64 blocks: many laps.
    let disk = SimDisk::new(8192 + 64 * 4096);
    let (group, mut writer) = started(&disk);
    let group = Arc::new(group);
    std::thread::scope(|scope| {
        let flusher = scope.spawn({
            let group = Arc::clone(&group);
            move || {
                while let Some(mut frame) = group.wait_frame() {
                    let outcome = loop {
                        match writer.write(&mut frame) {
                            Err(e) if e.is_full() => group.tail().release(group.tail().durable()),
                            other => break other,
                        }
                    };
                    group.complete(frame, &outcome);
                }
                writer
            }
        });
        let producers: Vec<_> = (0..8)
            .map(|partition| {
                let group = Arc::clone(&group);
                scope.spawn(move || {
                    for offset in 0..100 {
                        let header = entry(partition, offset, offset + 1);
                        let ticket = group.stage_blocking(&header, &[3; 20_000]).unwrap();
                        if offset % 3 == 0 {
                            group.wait(ticket).unwrap();
                        }
                    }
                })
            })
            .collect();
        producers.into_iter().for_each(|p| p.join().unwrap());
        group.close();
        assert!(matches!(group.stage(&entry(0, 0, 1), b"x"), Err(CommitError::Closed)));
        let writer = flusher.join().unwrap();
        let tail = writer.tail();
        tail.release(tail.durable());
        writer.close_clean().unwrap();
    });
    assert!(open_device(disk.boxed(), 1 << 20, identity()).unwrap().was_clean());
}

/// Counts how often it was woken.
#[derive(Default)]
struct Bell(AtomicU64);

impl std::task::Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn tasks_are_woken_by_the_flush_that_concerns_them() {
    let disk = SimDisk::new(8192 + 64 * 4096);
    let (group, mut writer) = started(&disk);
    let first_bell = Arc::new(Bell::default());
    let second_bell = Arc::new(Bell::default());
    let mut first = std::pin::pin!(group.durable(group.stage(&entry(0, 0, 1), b"a").unwrap()));
    let mut frame = group.take_frame().unwrap();
    let mut second = std::pin::pin!(group.durable(group.stage(&entry(0, 1, 2), b"b").unwrap()));
    let first_waker = Arc::clone(&first_bell).into();
    let second_waker = Arc::clone(&second_bell).into();
    for _ in 0..3 {
        assert!(first.as_mut().poll(&mut Context::from_waker(&first_waker)).is_pending());
        assert!(second.as_mut().poll(&mut Context::from_waker(&second_waker)).is_pending());
    }
    let outcome = writer.write(&mut frame);
    group.complete(frame, &outcome);
    assert_eq!((first_bell.0.load(Ordering::Relaxed), second_bell.0.load(Ordering::Relaxed)), (1, 0));
    assert!(matches!(first.as_mut().poll(&mut Context::from_waker(&first_waker)), Poll::Ready(Ok(()))));
    assert!(second.as_mut().poll(&mut Context::from_waker(&second_waker)).is_pending());
    group.fail("gone");
    assert_eq!((first_bell.0.load(Ordering::Relaxed), second_bell.0.load(Ordering::Relaxed)), (1, 1));
    let failed = second.as_mut().poll(&mut Context::from_waker(&second_waker));
    assert!(matches!(failed, Poll::Ready(Err(CommitError::Failed { .. }))));
}

#[test]
fn a_failed_flush_fails_everybody_who_waits() {
    let disk = SimDisk::new(8192 + 64 * 4096);
    let (group, mut writer) = started(&disk);
    let first = group.stage(&entry(0, 0, 1), b"a").unwrap();
    let mut frame = group.take_frame().unwrap();
    let second = group.stage(&entry(0, 1, 2), b"b").unwrap();
    assert_ne!(first, second);
    assert!(group.take_frame().is_none(), "one flush at a time");
    let writes = disk.0.lock().writes;
    disk.0.lock().fault = Some((writes, Fault::Eio { done: false }));
    let outcome = writer.write(&mut frame);
    assert!(matches!(outcome, Err(JournalError::Poisoned { .. })));
    group.complete(frame, &outcome);
    for ticket in [first, second] {
        assert!(matches!(group.wait(ticket), Err(CommitError::Failed { .. })));
    }
    assert!(matches!(group.stage(&entry(0, 2, 3), b"c"), Err(CommitError::Failed { .. })));
    assert!(group.wait_frame().is_none());
}

#[test]
fn a_full_frame_is_reported_until_it_is_taken() {
    let disk = SimDisk::new(8192 + 64 * 4096);
    let (group, mut writer) = started(&disk);
    let large = vec![1; 60_000];
    group.stage(&entry(0, 0, 1), &large).unwrap();
    assert!(matches!(group.stage(&entry(0, 1, 2), &large), Err(CommitError::Stage(StageError::Full))));
    let mut frame = group.take_frame().unwrap();
    let next = group.stage(&entry(0, 1, 2), &large).unwrap();
    let outcome = writer.write(&mut frame);
    group.complete(frame, &outcome);
    assert_eq!(group.tail().durable().0 + 1, next.0);
    group.fail("the log directory went offline");
    assert!(matches!(group.wait(next), Err(CommitError::Failed { .. })));
}
