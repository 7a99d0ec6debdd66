//! Random runs over several starts with the power going at any sector: what was reported durable and not released is
//! replayed, what is replayed was written, byte for byte, and nothing is taken for damage.

use taccola_base::Uuid;

use super::super::{
    FrameSeq, Journal, JournalError, JournalTail, JournalWriter, Recovery, StageError, Staging, format_device,
    open_device,
};
use super::sim_disk::{SimDisk, Tear};
use super::{Rng, entry, identity};

/// An entry as the model remembers it: partition, base offset, records.
type Entry = (i32, i64, Vec<u8>);

/// What the model knows of one incarnation.
#[derive(Default)]
struct Model {
    /// By number, from 1: the entries of every frame whose write was begun.
    frames: Vec<Vec<Entry>>,
    durable: u64,
    released: u64,
    /// `start` of the next incarnation has begun: all this is in the segments, and may or may not be seen again.
    superseded: bool,
}

struct Run {
    rng: Rng,
    disk: SimDisk,
    model: Model,
    next_offset: i64,
    incarnation: u128,
}

/// Power is gone.
struct Off;

impl Run {
    fn new(seed: u64) -> Self {
        let mut rng = Rng(seed);
        let blocks = 8 + rng.below(40);
        let mut disk = SimDisk::new(8192 + blocks as usize * 4096);
        format_device(&mut disk, &identity()).unwrap();
        Run { rng, disk, model: Model::default(), next_offset: 0, incarnation: 0 }
    }

    fn open(&mut self) -> Recovery {
        open_device(self.disk.boxed(), 1 << 20, identity()).unwrap()
    }

    /// Replays and checks against the model.
    fn replay(&mut self, recovery: &mut Recovery) {
        assert_eq!(recovery.damage(), None, "durable {} released {}", self.model.durable, self.model.released);
        let mut seen = Vec::new();
        while let Some(frame) = recovery.next_frame().unwrap() {
            let expected = &self.model.frames[frame.seq.0 as usize - 1];
            let found: Vec<Entry> =
                frame.entries.iter().map(|e| (e.partition, e.base_offset, e.records.to_vec())).collect();
            assert_eq!(&found, expected, "frame {}", frame.seq.0);
            seen.push(frame.seq.0);
        }
        assert!(seen.windows(2).all(|w| w[1] == w[0] + 1), "{seen:?}");
        if !self.model.superseded {
            for seq in self.model.released + 1..=self.model.durable {
                assert!(seen.contains(&seq), "frame {seq} of {seen:?}, released {}", self.model.released);
            }
        }
    }

    /// One life: open, replay, start, work, perhaps a clean stop.
    fn live(&mut self, frames: u64) -> Result<(), Off> {
        let mut recovery = self.open();
        self.replay(&mut recovery);
        self.model.superseded = true;
        self.incarnation += 1;
        let Journal { mut staging, mut writer } =
            recovery.start(Uuid::from_u128(self.incarnation << 64)).map_err(|_| Off)?;
        self.model = Model::default();
        let tail = writer.tail();
        for _ in 0..frames {
            self.one_frame(&mut staging, &mut writer, &tail)?;
            if self.rng.chance(6) {
                let up_to = self.model.released + self.rng.below(self.model.durable - self.model.released + 1);
                self.release(&tail, up_to);
            }
        }
        if self.rng.chance(3) {
            self.release(&tail, self.model.durable);
            writer.close_clean().map_err(|_| Off)?;
            let mut recovery = self.open();
            assert!(recovery.was_clean() && recovery.next_frame().unwrap().is_none());
        } else if self.rng.chance(2) && tail.oldest() <= tail.durable() {
            assert!(matches!(writer.close_clean(), Err(JournalError::NotReleased { .. })));
        }
        Ok(())
    }

    fn release(&mut self, tail: &JournalTail, up_to: u64) {
        tail.release(FrameSeq(up_to));
        self.model.released = self.model.released.max(up_to);
    }

    fn one_frame(&mut self, staging: &mut Staging, writer: &mut JournalWriter, tail: &JournalTail) -> Result<(), Off> {
        let mut entries = Vec::new();
        for _ in 0..=self.rng.below(4) {
            let size = if self.rng.chance(5) { 1 + self.rng.below(6000) } else { 1 + self.rng.below(300) };
            let fill = self.rng.next().to_le_bytes();
            let records: Vec<u8> = (0..size as usize).map(|i| fill[i % 8] ^ (i / 8) as u8).collect();
            let partition = self.rng.below(5) as i32;
            match staging.stage(&entry(partition, self.next_offset, self.next_offset + 1), &records) {
                Ok(staged) => assert_eq!(staged.seq.0, self.model.durable + 1),
                Err(StageError::Full | StageError::TooLarge { .. }) => continue,
                Err(e) => panic!("{e}"),
            }
            entries.push((partition, self.next_offset, records));
            self.next_offset += 1;
        }
        let Some(mut frame) = staging.take() else { return Ok(()) };
        self.model.frames.push(entries);
        loop {
            match writer.write(&mut frame) {
                Ok(seq) => {
                    self.model.durable = seq.0;
                    assert_eq!(tail.durable(), seq);
                    break;
                }
                Err(JournalError::Full { .. }) => {
                    assert!(self.model.released < self.model.durable, "full although all is released");
                    let step = 1 + self.rng.below(self.model.durable - self.model.released);
                    let up_to = self.model.released + step;
                    self.release(tail, up_to);
                }
                Err(JournalError::Poisoned { .. }) => {
                    assert!(matches!(writer.write(&mut frame), Err(JournalError::Poisoned { .. })));
                    return Err(Off);
                }
                Err(e) => panic!("{e}"),
            }
        }
        staging.give_back(frame);
        Ok(())
    }
}

/// Lives until the power has gone, then once more to see what came through.
fn run(seed: u64, lives: u64, frames: u64, sectors: Option<u64>, tear: Tear) -> u64 {
    let mut run = Run::new(seed);
    let formatted = {
        let mut disk = run.disk.0.lock();
        disk.tear = Some(tear);
        disk.sectors_left = sectors;
        disk.sectors_written
    };
    for _ in 0..lives {
        if run.live(frames).is_err() {
            break;
        }
    }
    run.disk.power_on();
    for _ in 0..2 {
        // A replay changes nothing: a second one finds the same.
        let mut recovery = run.open();
        run.replay(&mut recovery);
    }
    assert!(run.live(frames).is_ok());
    run.disk.0.lock().sectors_written - formatted
}

/// `JOURNAL_SEEDS` asks for more.
fn seeds() -> u64 {
    std::env::var("JOURNAL_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(300)
}

#[test]
fn nothing_durable_is_lost_wherever_the_power_goes_at_random() {
    for seed in 0..seeds() {
        let mut rng = Rng(seed ^ 0xfeed);
        let sectors = rng.below(3_000);
        let tear = if rng.chance(3) { Tear::Prefix } else { Tear::Subset(rng.next()) };
        let frames = 1 + rng.below(60);
        run(seed, 4, frames, Some(sectors), tear);
    }
}

#[test]
fn nothing_durable_is_lost_at_any_sector_of_a_run() {
    for seed in [1, 2] {
        let total = run(seed, 2, 14, None, Tear::Prefix);
        for sectors in 0..total {
            run(seed, 2, 14, Some(sectors), Tear::Prefix);
        }
    }
}
