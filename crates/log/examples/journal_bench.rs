//! Measures the shared journal on this machine: what one durable write costs, and how many acknowledgements group commit
//! gives with and without a flusher thread. Producers run closed loop: stage one record, wait until it is durable, again.
//!
//! `cargo run --release -p taccola-log --example journal_bench -- [directory] [seconds per run] [record bytes] [rounds]`
//!
//! CPU is the whole process, producers included, user and system.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use taccola_base::Uuid;
use taccola_log::journal::{
    DirectIo, EntryHeader, EntryKind, FrameSeq, GroupCommit, Journal, JournalConfig, JournalError, JournalIdentity,
    JournalWriter, StagedFrame, open,
};

struct Figures {
    acks: usize,
    seconds: f64,
    cpu_seconds: f64,
    flushes: u64,
    p50_us: f64,
    p99_us: f64,
}

fn main() {
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(args.next().unwrap_or_else(|| ".".into())).join("journal-bench");
    let seconds: f64 = args.next().map_or(1.0, |s| s.parse().unwrap());
    let record_bytes: usize = args.next().map_or(200, |s| s.parse().unwrap());
    let rounds: usize = args.next().map_or(5, |s| s.parse().unwrap());
    std::fs::create_dir_all(&dir).unwrap();
    for direct_io in [DirectIo::Auto, DirectIo::Off] {
        for bytes in [200, 4_000, 65_000, 1_000_000] {
            single_writes(&dir, direct_io, bytes);
        }
    }
    let mut results: Vec<(String, Vec<Figures>)> = Vec::new();
    for _ in 0..rounds {
        let mut at = 0;
        for direct_io in [DirectIo::Auto, DirectIo::Off] {
            for producers in [1, 8, 64] {
                for dedicated in [false, true] {
                    let figures = group_commit(&dir, direct_io, producers, dedicated, seconds, record_bytes);
                    if results.len() == at {
                        let who = if dedicated { "flusher" } else { "inline" };
                        results.push((format!("{direct_io:?} {producers:2} producers, {who:7}"), Vec::new()));
                    }
                    results[at].1.push(figures);
                    at += 1;
                }
            }
        }
    }
    println!("medians of {rounds} interleaved runs of {seconds} s; in brackets the best");
    for (name, runs) in &results {
        report(name, runs);
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

fn report(name: &str, runs: &[Figures]) {
    let sorted = |figure: fn(&Figures) -> f64| {
        let mut all: Vec<f64> = runs.iter().map(figure).collect();
        all.sort_by(f64::total_cmp);
        all
    };
    let median = |figure| sorted(figure)[runs.len() / 2];
    let rate: fn(&Figures) -> f64 = |f| f.acks as f64 / f.seconds;
    let cpu: fn(&Figures) -> f64 = |f| f.cpu_seconds * 1e6 / f.acks as f64;
    println!(
        "{name} {:8.0} ({:8.0}) acks/s {:5.1} acks/flush  p50 {:6.0} ({:5.0}) p99 {:6.0} ({:5.0}) us  cpu {:5.1} ({:4.1}) us/ack",
        median(rate),
        sorted(rate)[runs.len() - 1],
        median(|f| f.acks as f64 / f.flushes as f64),
        median(|f| f.p50_us),
        sorted(|f| f.p50_us)[0],
        median(|f| f.p99_us),
        sorted(|f| f.p99_us)[0],
        median(cpu),
        sorted(cpu)[0],
    );
}

fn journal(dir: &Path, direct_io: DirectIo) -> Journal {
    let identity = JournalIdentity { cluster_id: "bench".into(), node_id: 1, directory_id: Uuid::from_u128(1 << 100) };
    let config = JournalConfig::in_log_dir(dir).direct_io(direct_io);
    let _ = std::fs::remove_file(dir.join(taccola_log::journal::JOURNAL_FILE));
    let started = Instant::now();
    let journal = open(config, identity).unwrap().start(Uuid::random()).unwrap();
    let ms = started.elapsed().as_secs_f64() * 1e3;
    if ms > 500.0 {
        println!("(creating the journal took {ms:.0} ms)");
    }
    journal
}

/// Checkpoints by word alone: there are no segments here.
fn write(writer: &mut JournalWriter, frame: &mut StagedFrame) -> Result<FrameSeq, JournalError> {
    match writer.write(frame) {
        Err(e) if e.is_full() => {
            let tail = writer.tail();
            tail.release(tail.durable());
            writer.write(frame)
        }
        other => other,
    }
}

fn header(partition: i32, offset: i64) -> EntryHeader<'static> {
    EntryHeader {
        kind: EntryKind::Append,
        topic_id: Uuid::from_u128(1 << 90),
        topic: "bench",
        partition,
        base_offset: offset,
        next_offset: offset + 1,
    }
}

fn single_writes(dir: &Path, direct_io: DirectIo, bytes: usize) {
    let started = Instant::now();
    let Journal { mut staging, mut writer } = journal(dir, direct_io);
    let created = started.elapsed();
    let n = if bytes > 100_000 { 300 } else { 2_000 };
    let records = vec![0x5a; bytes];
    let mut latencies = Vec::with_capacity(n);
    let cpu = cpu_seconds();
    for i in 0..n {
        let begin = Instant::now();
        staging.stage(&header(0, i as i64), &records).unwrap();
        let mut frame = staging.take().unwrap();
        write(&mut writer, &mut frame).unwrap();
        staging.give_back(frame);
        latencies.push(begin.elapsed());
    }
    let cpu = (cpu_seconds() - cpu) * 1e6 / n as f64;
    let (p50, p99, max) = quantiles(&mut latencies);
    println!(
        "single writes {:?} {bytes:8} bytes  p50 {p50:6.0} p99 {p99:6.0} max {max:6.0} us  cpu {cpu:5.1} us  (created in {:.0} ms)",
        writer.mode(),
        created.as_secs_f64() * 1e3
    );
}

fn group_commit(
    dir: &Path,
    direct_io: DirectIo,
    producers: usize,
    dedicated: bool,
    seconds: f64,
    record_bytes: usize,
) -> Figures {
    let Journal { staging, writer } = journal(dir, direct_io);
    let group = Arc::new(GroupCommit::new(staging, writer.tail()));
    let writer = Arc::new(Mutex::new(writer));
    let stop = Arc::new(AtomicBool::new(false));
    let barrier = Arc::new(Barrier::new(producers + 1));
    let flusher = dedicated.then(|| {
        let (group, writer) = (Arc::clone(&group), Arc::clone(&writer));
        std::thread::spawn(move || {
            let mut writer = writer.lock();
            while let Some(mut frame) = group.wait_frame() {
                let outcome = write(&mut writer, &mut frame);
                group.complete(frame, &outcome);
            }
        })
    });
    let threads: Vec<_> = (0..producers)
        .map(|partition| {
            let (group, writer) = (Arc::clone(&group), Arc::clone(&writer));
            let (stop, barrier) = (Arc::clone(&stop), Arc::clone(&barrier));
            std::thread::spawn(move || {
                let records = vec![0x5a; record_bytes];
                let mut latencies = Vec::with_capacity(1 << 16);
                barrier.wait();
                let mut offset = 0;
                while !stop.load(Ordering::Relaxed) {
                    let begin = Instant::now();
                    let ticket = group.stage(&header(partition as i32, offset), &records).unwrap();
                    if dedicated {
                        group.wait(ticket).unwrap();
                    } else {
                        group.commit_inline(ticket, |frame| write(&mut writer.lock(), frame)).unwrap();
                    }
                    latencies.push(begin.elapsed());
                    offset += 1;
                }
                latencies
            })
        })
        .collect();
    let cpu = cpu_seconds();
    barrier.wait();
    let begin = Instant::now();
    std::thread::sleep(Duration::from_secs_f64(seconds));
    stop.store(true, Ordering::Relaxed);
    let mut latencies: Vec<Duration> = threads.into_iter().flat_map(|t| t.join().unwrap()).collect();
    let elapsed = begin.elapsed().as_secs_f64();
    let cpu_used = cpu_seconds() - cpu;
    group.close();
    if let Some(flusher) = flusher {
        flusher.join().unwrap();
    }
    let (p50_us, p99_us, _) = quantiles(&mut latencies);
    Figures {
        acks: latencies.len(),
        seconds: elapsed,
        cpu_seconds: cpu_used,
        flushes: group.tail().durable().0,
        p50_us,
        p99_us,
    }
}

/// Median, 99th percentile and maximum, in microseconds.
fn quantiles(latencies: &mut [Duration]) -> (f64, f64, f64) {
    latencies.sort_unstable();
    let at = |i: usize| latencies[i.min(latencies.len() - 1)].as_secs_f64() * 1e6;
    (at(latencies.len() / 2), at(latencies.len() * 99 / 100), at(usize::MAX))
}

/// CPU time of this process so far, user and system; 0 where the system does not tell this way.
fn cpu_seconds() -> f64 {
    let ticks_per_second = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let tick = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    (tick(11) + tick(12)) / ticks_per_second
}
