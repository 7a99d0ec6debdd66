//! The shared journal: one preallocated file that takes the batches of all partitions, so that one flush acknowledges
//! them all. A synchronous engine without threads, clock or randomness; the broker runs a flusher around it.
//!
//! Life of a journal: [`open`] gives a [`Recovery`]; the caller applies its frames to the logs, syncs these and calls
//! [`Recovery::start`]; the [`Journal`] is split into [`Staging`] (producers, under a short lock), [`JournalWriter`] (the
//! flusher, no lock) and [`JournalTail`] (the checkpointer); at the end everything is released and
//! [`JournalWriter::close_clean`] marks the file empty. Group commit, which puts many entries into one frame, is the caller's.
//!
//! What the caller owes:
//! - Records are appended to their segment (page cache) *before* they are staged, and staged in offset order, that is
//!   under the partition's lock.
//! - Above what a partition's segments have synced, the journal holds every record that was promised to be durable. Records
//!   between them that were not (acks=1) may be missing after a power cut: replay then leaves a gap in the offsets.
//! - A log that is cut back stages [`EntryKind::Truncate`]; replay applies entries in order, each at its offsets.
//! - [`raise_marker`] before the first frame, [`lower_marker`] after the clean close.
//!
//! INVARIANT: a frame that was reported durable and not released is replayed byte for byte, or named as damaged.
//! LIMIT: an entry is no larger than a frame (`JournalConfig::frame_bytes_max`, at most a quarter of the ring). The
//! caller syncs the segment of a larger batch itself, which costs less than writing it twice.

mod buffer;
mod device;
#[cfg(target_os = "linux")]
mod device_linux;
mod error;
mod format;
mod kept;
mod marker;
mod recovery;
mod ring;
mod staging;
#[cfg(test)]
mod tests;
mod writer;

use std::path::{Path, PathBuf};

use taccola_base::Uuid;

pub use device::{JournalDevice, WriteMode};
pub use error::JournalError;
pub use format::{BLOCK, EntryHeader, EntryKind, JournalEntry};
pub use kept::{KeptJournal, LogId, keep_for, kept, open_kept, remove_kept};
pub use marker::{MARKER_DIR, lower_marker, marker_raised, raise_marker};
pub use recovery::{Journal, JournalDamage, Recovery, ReplayedFrame};
pub use staging::{StageError, Staged, StagedFrame, Staging};
pub use writer::{JournalTail, JournalWriter};

use crate::file;
use buffer::AlignedBuf;
use device::FileDevice;
use format::{BLOCK_BYTES, CLUSTER_ID_BYTES_MAX, RING_START, SLOTS, Slot, SlotState};

/// Name of the journal in its log directory. A plain file, which a JVM Kafka ignores.
pub const JOURNAL_FILE: &str = "taccola.journal";
/// Where a damaged one that held nothing goes.
const DAMAGED_FILE: &str = "taccola.journal.damaged";
/// Size of the file unless configured.
pub const SIZE_BYTES_DEFAULT: u64 = 64 * 1024 * 1024;
/// Smallest and largest configurable size of the file, inclusive.
pub const SIZE_BYTES_MIN: u64 = 1024 * 1024;
pub const SIZE_BYTES_MAX: u64 = 1 << 40;
/// Largest frame unless configured. Two buffers grow up to it.
pub const FRAME_BYTES_MAX_DEFAULT: usize = 4 * 1024 * 1024;
/// Largest configurable frame, inclusive.
pub const FRAME_BYTES_MAX_LIMIT: usize = 128 * 1024 * 1024;

/// A frame's number: 1 for the first of an incarnation, then one more each. 0 stands for "none yet".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameSeq(pub u64);

/// Whether to write past the page cache where the file system can.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DirectIo {
    #[default]
    Auto,
    Off,
}

#[derive(Clone, Debug)]
pub struct JournalConfig {
    /// The file; `None` over a device of the caller's.
    path: Option<PathBuf>,
    /// Length of the file, a multiple of [`BLOCK`].
    size_bytes: u64,
    frame_bytes_max: usize,
    direct_io: DirectIo,
}

impl JournalConfig {
    /// The journal of a log directory, with the defaults.
    pub fn in_log_dir(log_dir: &Path) -> Self {
        Self { path: Some(log_dir.join(JOURNAL_FILE)), ..Self::over_device() }
    }

    fn over_device() -> Self {
        Self {
            path: None,
            size_bytes: SIZE_BYTES_DEFAULT,
            frame_bytes_max: FRAME_BYTES_MAX_DEFAULT,
            direct_io: DirectIo::Auto,
        }
    }

    #[must_use]
    pub fn size_bytes(mut self, size_bytes: u64) -> Self {
        self.size_bytes = size_bytes - size_bytes % BLOCK_BYTES;
        self
    }

    #[must_use]
    pub fn frame_bytes_max(mut self, frame_bytes_max: usize) -> Self {
        self.frame_bytes_max = frame_bytes_max;
        self
    }

    #[must_use]
    pub fn direct_io(mut self, direct_io: DirectIo) -> Self {
        self.direct_io = direct_io;
        self
    }

    fn check(&self) -> Result<(), JournalError> {
        if !(SIZE_BYTES_MIN..=SIZE_BYTES_MAX).contains(&self.size_bytes) {
            return Err(JournalError::Config { what: "the size is not between 1 MiB and 1 TiB" });
        }
        if !(16 * BLOCK..=FRAME_BYTES_MAX_LIMIT).contains(&self.frame_bytes_max) {
            return Err(JournalError::Config { what: "the largest frame is not between 64 KiB and 128 MiB" });
        }
        Ok(())
    }
}

/// Whose journal it is. A file of another owner is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalIdentity {
    /// `cluster.id` of `meta.properties`; at most 255 bytes.
    pub cluster_id: String,
    pub node_id: i32,
    pub directory_id: Uuid,
}

/// Opens the journal of a log directory, or makes it: reserved, filled with zeros and synced, which takes as long as the
/// disk needs for its size. Nothing is overwritten until [`Recovery::start`].
pub fn open(config: JournalConfig, identity: JournalIdentity) -> Result<Recovery, JournalError> {
    config.check()?;
    let Some(path) = config.path.clone() else {
        return Err(JournalError::Config { what: "there is no path" });
    };
    if identity.cluster_id.len() > CLUSTER_ID_BYTES_MAX {
        return Err(JournalError::Config { what: "the cluster id is longer than 255 bytes" });
    }
    if !path.try_exists().map_err(|source| JournalError::Io { op: "stat", source })? {
        create_file(&path, &config, &identity)?;
    }
    let device = open_file(&path, &config)?;
    Recovery::open(device, config, identity)
}

/// What a journal file that nobody uses holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalSummary {
    /// The last stop was clean: it holds nothing.
    pub empty: bool,
    /// Whole frames that a start would replay.
    pub frames: usize,
    pub damage: Option<JournalDamage>,
}

/// Looks at the journal of a log directory, whoever's it is, without changing it; `None` when there is none.
pub fn inspect(log_dir: &Path) -> Result<Option<JournalSummary>, JournalError> {
    let config = JournalConfig::in_log_dir(log_dir);
    let path = log_dir.join(JOURNAL_FILE);
    if !path.try_exists().map_err(|source| JournalError::Io { op: "stat", source })? {
        return Ok(None);
    }
    let recovery = Recovery::of_anybody(open_file(&path, &config)?, config)?;
    let (empty, frames) = (recovery.was_clean(), recovery.frame_count());
    Ok(Some(JournalSummary { empty, frames, damage: recovery.damage().cloned() }))
}

/// Moves the file out of the way, to be looked at. Only for one that held nothing.
pub fn set_aside(log_dir: &Path) -> Result<PathBuf, JournalError> {
    let io = |source| JournalError::Io { op: "rename", source };
    let aside = log_dir.join(DAMAGED_FILE);
    file::rename(&log_dir.join(JOURNAL_FILE), &aside).map_err(io)?;
    file::sync_dir(log_dir).map_err(io)?;
    Ok(aside)
}

/// Opens the journal over a device of the caller's, which [`format_device`] has prepared.
pub fn open_device(
    device: Box<dyn JournalDevice>,
    frame_bytes_max: usize,
    identity: JournalIdentity,
) -> Result<Recovery, JournalError> {
    let config = JournalConfig::over_device().frame_bytes_max(frame_bytes_max).size_bytes(device.size_bytes());
    Recovery::open(device, config, identity)
}

/// Makes a device an empty journal: both header slots are written.
pub fn format_device(device: &mut dyn JournalDevice, identity: &JournalIdentity) -> Result<(), JournalError> {
    if device.size_bytes() < RING_START + 4 * BLOCK_BYTES || !device.size_bytes().is_multiple_of(BLOCK_BYTES) {
        return Err(JournalError::Config { what: "the device is too small or no multiple of 4 KiB" });
    }
    let slot = Slot {
        generation: 1,
        state: SlotState::Empty,
        incarnation: Uuid::ZERO,
        directory_id: identity.directory_id,
        node_id: identity.node_id,
        cluster_id: identity.cluster_id.clone(),
        file_bytes: device.size_bytes(),
        tail_seq: 1,
        durable_seq: 0,
    };
    let mut block = AlignedBuf::zeroed(BLOCK);
    for index in 0..SLOTS as u64 {
        slot.encode(u32::try_from(index).unwrap_or(0), block.bytes_mut());
        device
            .write_durable(index * BLOCK_BYTES, block.bytes())
            .map_err(|source| JournalError::Io { op: "write a header slot of", source })?;
    }
    Ok(())
}

/// Makes an empty journal beside `path` and renames it there, so that the name never stands for half a file. A file
/// that is there already is replaced.
fn create_file(path: &Path, config: &JournalConfig, identity: &JournalIdentity) -> Result<(), JournalError> {
    let unfinished = path.with_extension("journal.new");
    let made = FileDevice::create_filled(&unfinished, config.size_bytes).and_then(|()| {
        let mut device = FileDevice::open(&unfinished, DirectIo::Off)?;
        format_device(&mut device, identity)?;
        let io = |source| JournalError::Io { op: "rename", source };
        file::rename(&unfinished, path).map_err(io)?;
        file::sync_dir(path.parent().unwrap_or(Path::new("."))).map_err(io)
    });
    if made.is_err() {
        // Gives the space back; what matters is reported already.
        let _ = file::remove_if_exists(&unfinished);
    }
    made
}

fn open_file(path: &Path, config: &JournalConfig) -> Result<Box<dyn JournalDevice>, JournalError> {
    Ok(Box::new(FileDevice::open(path, config.direct_io)?))
}
