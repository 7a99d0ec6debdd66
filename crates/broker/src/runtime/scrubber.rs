//! Looking for rot while nobody reads: every sealed segment is read once per pass, at `taccola.scrub.bytes.per.second`, and
//! its checksums are verified. What is found is quarantined, told once, and counted; readers of these offsets get
//! CORRUPT_MESSAGE, and everything around them is served.
//!
//! It reads through the page cache like everybody else, so that a pass over data that nobody reads costs that much of it; the
//! active segment is left to its readers and to recovery.
//!
//! What the disk could not read at all may come back (a cable, a controller, a network file system). Readers wait for it, so
//! these segments are read again between passes, soon and then less and less often.

use std::sync::Arc;
use std::time::{Duration, Instant};

use taccola_log::{LogError, QuarantinedRange};

use super::replicas::describe;
use crate::broker::Broker;
use crate::partition::Partition;

/// At most this long does the throttle hold a pass at once, so that a stop does not wait.
const THROTTLE_MAX: Duration = Duration::from_millis(500);
/// The shortest time between two passes, whatever the settings say.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
/// From one look at what could not be read to the next, as long as looks help; doubled up to the other when they do not.
const LOOK_AGAIN_MIN: Duration = Duration::from_secs(5);
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(600);

/// What one pass did.
#[derive(Clone, Copy, Debug, Default)]
struct Pass {
    segments: u64,
    batches: u64,
    bytes: u64,
    found: u64,
}

/// Reads all logs, and again what could not be read, until the broker stops.
pub async fn run(broker: Arc<Broker>) {
    tokio::join!(passes(broker.clone()), looks_again(broker));
}

async fn looks_again(broker: Arc<Broker>) {
    let mut stopping = std::pin::pin!(broker.stopping());
    let mut wait = Duration::ZERO;
    loop {
        let worker = broker.clone();
        wait = match super::blocking::spawn(move || look_again(&worker)).await {
            Ok(false) => (wait * 2).clamp(LOOK_AGAIN_MIN, LOOK_AGAIN_MAX),
            Ok(true) => LOOK_AGAIN_MIN,
            Err(error) => {
                tracing::error!(%error, "the scrubber");
                LOOK_AGAIN_MAX
            }
        };
        tokio::select! {
            () = &mut stopping => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Reads the segments that the disk could not read; false when some of them are still so.
fn look_again(broker: &Broker) -> bool {
    let mut whole = true;
    for partition in broker.partitions.all().iter().chain([&broker.metadata_partition]) {
        for base in partition.with_log(|log| log.unreadable_segments()).unwrap_or_default() {
            let read = || -> Result<(), LogError> {
                let Some(job) = partition.with_log(|log| log.begin_scrub(base)).transpose()?.flatten() else {
                    return Ok(());
                };
                let outcome = job.run(&mut |_| !stopping(broker))?;
                partition.with_log(|log| log.end_scrub(&outcome)).transpose()?;
                Ok(())
            };
            if let Err(error) = read() {
                tracing::error!(partition = %partition.topic_partition, error = describe(&error), "reading again");
            }
        }
        whole &= partition.with_log(|log| log.unreadable_segments().is_empty()).unwrap_or(true);
    }
    whole
}

/// Passes over all logs.
async fn passes(broker: Arc<Broker>) {
    let mut stopping = std::pin::pin!(broker.stopping());
    loop {
        let settings = broker.dynamic_config().taccola.clone();
        if settings.scrub_bytes_per_second > 0 {
            let worker = broker.clone();
            // One thread of the pool for as long as a pass takes, asleep nearly all of the time.
            if let Err(error) = super::blocking::spawn(move || pass(&worker)).await {
                tracing::error!(%error, "the scrubber");
            }
        }
        tokio::select! {
            () = &mut stopping => return,
            () = tokio::time::sleep(settings.scrub_interval.max(INTERVAL_MIN)) => {}
        }
    }
}

fn pass(broker: &Broker) {
    let begun = Instant::now();
    let mut pass = Pass::default();
    let mut partitions = broker.partitions.all();
    partitions.push(broker.metadata_partition.clone());
    for partition in partitions {
        if let Err(error) = scrub(broker, &partition, &mut pass) {
            tracing::error!(partition = %partition.topic_partition, error = describe(&error), "scrubbing");
        }
        if stopping(broker) {
            return;
        }
    }
    broker.metrics.scrub_passed();
    let millis = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let Pass { segments, batches, bytes, found } = pass;
    tracing::info!(segments, batches, bytes, found, millis, "scrubbed all sealed segments");
}

fn scrub(broker: &Broker, partition: &Partition, pass: &mut Pass) -> Result<(), LogError> {
    let mut from = 0;
    while let Some(job) = partition.with_log(|log| log.begin_scrub(from)).transpose()?.flatten() {
        from = job.base_offset() + 1;
        let mut throttle = Throttle { broker, begun: Instant::now(), bytes: 0 };
        let outcome = job.run(&mut |bytes| throttle.goes_on(bytes))?;
        pass.bytes += outcome.bytes;
        pass.batches += outcome.batches;
        pass.segments += 1;
        broker.metrics.scrubbed(outcome.bytes);
        let found = partition.with_log(|log| log.end_scrub(&outcome)).transpose()?.unwrap_or_default();
        pass.found += found.len() as u64;
        found.iter().for_each(|range| tell(broker, partition, range));
        if outcome.stopped {
            return Ok(());
        }
    }
    Ok(())
}

fn tell(broker: &Broker, partition: &Partition, range: &QuarantinedRange) {
    broker.metrics.damage_found();
    tracing::error!(
        partition = %partition.topic_partition,
        segment = range.segment_base_offset,
        start_position = range.start_position,
        end_position = range.end_position,
        first_offset = range.first_offset,
        next_valid_offset = range.next_valid_offset,
        reason = range.reason,
        "the scrubber found damaged records; they are quarantined"
    );
}

fn stopping(broker: &Broker) -> bool {
    *broker.stop.borrow()
}

struct Throttle<'a> {
    broker: &'a Broker,
    begun: Instant,
    bytes: u64,
}

impl Throttle<'_> {
    /// Waits until so many bytes may have been read; false when the broker stops.
    fn goes_on(&mut self, bytes: u64) -> bool {
        self.bytes = self.bytes.saturating_add(bytes);
        loop {
            if stopping(self.broker) {
                return false;
            }
            // Looked at each time: the rate can change while a pass runs.
            let rate = self.broker.dynamic_config().taccola.scrub_bytes_per_second;
            let due = Duration::try_from_secs_f64(self.bytes as f64 / rate.max(1) as f64).unwrap_or(Duration::MAX);
            let Some(wait) = due.checked_sub(self.begun.elapsed()).filter(|wait| !wait.is_zero() && rate > 0) else {
                return rate > 0;
            };
            std::thread::sleep(wait.min(THROTTLE_MAX));
        }
    }
}
