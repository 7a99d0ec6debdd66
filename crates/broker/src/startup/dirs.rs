//! The log directories before anything in them is opened: locked against a second broker, formatted if they are empty,
//! and checked to belong to this node. Answers to Kafka's `StorageTool format`, `MetaPropertiesEnsemble` and the lock of
//! `LogManager`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rustix::fs::{FlockOperation, fcntl_lock};
use taccola_base::config::ServerConfig;
use taccola_base::{TopicPartition, Uuid};
use taccola_log::{LogError, log_dir};
use taccola_meta::bootstrap::{self, BootstrapMetadata};
use taccola_meta::meta_properties::{self, MetaProperties};

use super::StartError;
use crate::runtime::replicas::describe;

const LOCK_FILE: &str = ".lock";

/// One of `log.dirs`, held by this process.
#[derive(Debug)]
pub struct LogDir {
    pub path: PathBuf,
    pub id: Uuid,
    /// Released by the system when the process ends, however it ends.
    _lock: File,
}

/// All of `log.dirs` in their order, and the cluster that they belong to.
#[derive(Debug)]
pub struct LogDirs {
    pub dirs: Vec<LogDir>,
    pub cluster_id: String,
    /// Those that cannot be used, and why. Neither the first nor that of the metadata is ever among them.
    pub offline: Vec<(PathBuf, String)>,
    /// The directories were empty and have just been formatted.
    pub formatted: bool,
}

/// Locks, formats where nothing is, checks.
pub fn open(config: &ServerConfig, now_ms: i64) -> Result<LogDirs, StartError> {
    let mut locked = Vec::new();
    let mut found = Vec::new();
    let mut offline = Vec::new();
    for (index, path) in config.log_dirs.iter().enumerate() {
        let opened = make_durably(path)
            .map_err(|source| StartError::io("create the log directory", path, source))
            .and_then(|()| Ok((lock(path)?, read_meta_properties(path)?)))
            .and_then(|found| list(path).map(|()| found));
        match opened {
            Ok((lock, properties)) => {
                locked.push((path.clone(), lock));
                found.push(properties);
            }
            // The journal is in the first one, and nothing goes without the metadata.
            Err(error @ StartError::Io { .. }) if index > 0 && *path != config.metadata_log_dir => {
                tracing::error!(path = %path.display(), %error, "a log directory is offline; the others are served");
                offline.push((path.clone(), error.to_string()));
            }
            Err(error) => return Err(error),
        }
    }
    let formatted = found.iter().all(Option::is_none);
    if let (true, Some((path, reason))) = (formatted, offline.first()) {
        let path = path.display();
        return Err(StartError::WrongDirectory(format!("{path} cannot be used, and the others are empty: {reason}")));
    }
    if formatted {
        for (path, _) in &locked {
            refuse_unformatted_data(path)?;
        }
    }
    let cluster_id = match found.iter().flatten().next() {
        Some(properties) => properties.cluster_id.clone(),
        None => config.cluster_id.clone().unwrap_or_else(|| crate::random::uuid().to_string()),
    };
    let mut dirs = Vec::new();
    let mut checked = Vec::new();
    for ((path, lock), properties) in locked.into_iter().zip(found) {
        let complete = properties.as_ref().is_some_and(|p| p.directory_id.is_some());
        let known = properties.as_ref().and_then(|p| p.directory_id);
        let id = known.unwrap_or_else(crate::random::uuid);
        let properties = MetaProperties {
            directory_id: Some(id),
            ..properties.unwrap_or(MetaProperties {
                cluster_id: cluster_id.clone(),
                node_id: config.node_id,
                directory_id: None,
            })
        };
        if !complete {
            if formatted {
                let content =
                    BootstrapMetadata::default().encode(now_ms).map_err(|e| StartError::Metadata(e.to_string()))?;
                write_whole(&path.join(bootstrap::FILE_NAME), &content)?;
            }
            write_whole(&path.join(meta_properties::FILE_NAME), properties.format(&java_date(now_ms)).as_bytes())?;
        }
        checked.push((path.display().to_string(), properties));
        dirs.push(LogDir { path, id, _lock: lock });
    }
    meta_properties::check(&checked, config.node_id, config.cluster_id.as_deref())
        .map_err(|error| StartError::WrongDirectory(error.to_string()))?;
    Ok(LogDirs { dirs, cluster_id, offline, formatted })
}

impl LogDirs {
    /// Leaves out a directory that turned out not to be usable. False: nothing goes without it.
    pub fn leave_out(&mut self, path: &Path, reason: &str, metadata_dir: &Path) -> bool {
        let found = self.dirs.iter().position(|dir| dir.path == path);
        let Some(index) = found.filter(|index| *index > 0 && path != metadata_dir) else { return false };
        self.dirs.remove(index);
        self.offline.push((path.to_path_buf(), reason.to_owned()));
        true
    }
}

/// What an error of a log directory's files means: where the disk refuses to do what it is asked for, the whole directory
/// is not usable.
pub(super) fn dir_error(dir: &Path, what: String, error: LogError) -> StartError {
    let reason = describe(&error);
    match error {
        LogError::Io { source, .. } if !is_exhausted(&source) => {
            StartError::Dir { path: dir.to_path_buf(), reason: format!("{what}: {reason}") }
        }
        _ => StartError::Log { partition: what, reason },
    }
}

/// The process or the machine has too little of something; the disk is not to blame.
fn is_exhausted(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::MFILE, Errno::NFILE, Errno::NOMEM].iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Whether a folder can be listed to its end.
fn list(path: &Path) -> Result<(), StartError> {
    let listed =
        fs::read_dir(path).and_then(|mut entries| entries.try_for_each(|entry| entry?.file_type().map(|_| ())));
    listed.map_err(|source| StartError::io("list", path, source))
}

/// Copies of logs that were on their way to another directory when the broker ended. Where the log is there, its copy is
/// removed, to be made anew: answers which, and the index of the directory. Where it is not, the copy was about to take its
/// place, and does. While a directory is missing, the log may be in it: copies are left alone.
pub fn settle_futures(dirs: &LogDirs) -> Result<Vec<(TopicPartition, usize)>, StartError> {
    let mut again = Vec::new();
    for (index, dir) in dirs.dirs.iter().enumerate() {
        let failed = |error: LogError| dir_error(&dir.path, dir.path.display().to_string(), error);
        for (at, copy) in log_dir::futures(&dir.path).map_err(failed)? {
            let mut has_log = false;
            for other in &dirs.dirs {
                let folder = other.path.join(at.to_string());
                let found = folder.try_exists().map_err(|source| LogError::Io { op: "look for", path: folder, source });
                has_log |= found.map_err(|error| dir_error(&other.path, at.to_string(), error))?;
            }
            if has_log {
                log_dir::remove_future(&copy).map_err(failed)?;
                again.push((at, index));
            } else if dirs.offline.is_empty() {
                tracing::info!(partition = %at, copy = %copy.display(), "the copy of a log takes its place");
                log_dir::promote_future(&copy, &at).map_err(failed)?;
            } else {
                tracing::warn!(copy = %copy.display(), "the copy of a log that is not here is left alone");
            }
        }
    }
    Ok(again)
}

/// The records that open an empty metadata log: those of `bootstrap.checkpoint`, or Kafka's defaults without one.
pub fn read_bootstrap(metadata_dir: &Path) -> Result<BootstrapMetadata, StartError> {
    let path = metadata_dir.join(bootstrap::FILE_NAME);
    match read_bounded(&path, bootstrap::FILE_BYTES_MAX)? {
        None => Ok(BootstrapMetadata::default()),
        Some(bytes) => {
            BootstrapMetadata::decode(&bytes).map_err(|e| StartError::Metadata(format!("{}: {e}", path.display())))
        }
    }
}

/// Makes a folder and those above it, where they are missing, so that the power going does not take them back.
fn make_durably(path: &Path) -> io::Result<()> {
    let path = std::path::absolute(path)?;
    let made = path.ancestors().take_while(|folder| !folder.exists()).count();
    fs::create_dir_all(&path)?;
    path.ancestors().skip(1).take(made).try_for_each(|parent| File::open(parent)?.sync_all())
}

fn lock(dir: &Path) -> Result<File, StartError> {
    let path = dir.join(LOCK_FILE);
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|source| StartError::io("open", &path, source))?;
    // The kind of lock that a JVM takes, so that the two keep each other out.
    fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_| StartError::Locked(dir.to_path_buf()))?;
    Ok(file)
}

fn read_meta_properties(dir: &Path) -> Result<Option<MetaProperties>, StartError> {
    let path = dir.join(meta_properties::FILE_NAME);
    let Some(bytes) = read_bounded(&path, meta_properties::FILE_BYTES_MAX)? else { return Ok(None) };
    let text = String::from_utf8_lossy(&bytes);
    MetaProperties::parse(&text)
        .map(Some)
        .map_err(|error| StartError::WrongDirectory(format!("{}: {error}", path.display())))
}

/// Reads a whole file; `None` when there is none.
pub fn read_bounded(path: &Path, bytes_max: usize) -> Result<Option<Bytes>, StartError> {
    let length = match fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(StartError::io("read", path, source)),
    };
    if length > bytes_max as u64 {
        return Err(StartError::Metadata(format!("{} is {length} bytes long, more than {bytes_max}", path.display())));
    }
    fs::read(path).map(|bytes| Some(bytes.into())).map_err(|source| StartError::io("read", path, source))
}

/// A directory without `meta.properties` that holds something is not ours to format.
fn refuse_unformatted_data(dir: &Path) -> Result<(), StartError> {
    let entries = fs::read_dir(dir).map_err(|source| StartError::io("list", dir, source))?;
    for entry in entries.flatten() {
        let name = entry.file_name();
        let harmless = [LOCK_FILE, bootstrap::FILE_NAME, "lost+found"].iter().any(|known| name == **known);
        if !harmless {
            return Err(StartError::WrongDirectory(format!(
                "{} holds {:?} but no meta.properties; point log.dirs at an empty folder, or restore the file",
                dir.display(),
                name.to_string_lossy()
            )));
        }
    }
    Ok(())
}

/// Writes a file as a whole or not at all: beside it, flushed, renamed over it, directory flushed.
pub fn write_whole(path: &Path, content: &[u8]) -> Result<(), StartError> {
    let failed = |source| StartError::io("write", path, source);
    let beside = path.with_extension("tmp");
    let mut file = File::create(&beside).map_err(failed)?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&beside, path).map_err(failed)?;
    let dir = path.parent().unwrap_or(Path::new("."));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)
}

/// The date line that `java.util.Properties` writes, e.g. `Sat Nov 21 01:38:40 UTC 2026`.
fn java_date(now_ms: i64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let seconds = now_ms.div_euclid(1000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Civil date of a day number: eras of 400 years that begin on the first of March.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12;
    let year = year_of_era + era * 400 + i64::from(month < 2);
    let name = |names: &[&'static str], index: i64| {
        usize::try_from(index).ok().and_then(|i| names.get(i).copied()).unwrap_or("")
    };
    format!(
        "{} {} {day:02} {:02}:{:02}:{:02} UTC {year}",
        name(&DAYS, days.rem_euclid(7)),
        name(&MONTHS, month),
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_java_does() {
        assert_eq!(java_date(0), "Thu Jan 01 00:00:00 UTC 1970");
        assert_eq!(java_date(1_795_225_120_000), "Sat Nov 21 01:38:40 UTC 2026");
        assert_eq!(java_date(1_709_164_800_000), "Thu Feb 29 00:00:00 UTC 2024");
    }
}
