//! A file system whose power can be cut: it lives in memory behind FUSE and keeps apart what was synced and what was not.
//! After the cut, what a file holds is what was synced of it, plus whichever of the unsynced writes the seed lets survive,
//! whole, cut off or torn at sectors; a directory holds the names that were synced, or those of the last moment.
//!
//! It can also be made to fail, to be slow, to be full and to rot ([`crate::disk_faults`]).
//!
//! Strict on purpose: syncing a file does not sync its name, and a name is durable only once its directory was synced.
//! Writes through `O_DSYNC` are durable when they return; direct I/O is an ordinary write that passes the page cache.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::OFlags;

use crate::disk_faults::{Effect, Fault, Faults, Op};
use crate::ledger::Rng;

const ROOT: u64 = 1;
/// Unit that a disk writes whole or not at all.
const SECTOR: usize = 512;
/// The kernel may cache names and sizes: nothing changes behind its back while it is mounted.
const TTL: Duration = Duration::from_secs(3600);

/// Bytes of a file; what lies between the end of `bytes` and `length` is zero.
#[derive(Clone, Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    length: u64,
}

impl Content {
    fn read(&self, at: u64, size: usize) -> Vec<u8> {
        let end = self.length.min(at.saturating_add(size as u64));
        let wanted = end.saturating_sub(at) as usize;
        let from = (at as usize).min(self.bytes.len());
        let mut out = self.bytes[from..self.bytes.len().min(from + wanted)].to_vec();
        out.resize(wanted, 0);
        out
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::Write { at, data } => {
                let (start, end) = (*at as usize, *at as usize + data.len());
                if self.bytes.len() < end {
                    self.bytes.resize(end, 0);
                }
                self.bytes[start..end].copy_from_slice(data);
                self.length = self.length.max(end as u64);
            }
            Change::Length(length) => {
                self.bytes.truncate(*length as usize);
                self.length = *length;
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Change {
    Write { at: u64, data: Vec<u8> },
    Length(u64),
}

#[derive(Debug, Default)]
struct File {
    now: Content,
    synced: Content,
    /// From `synced` to `now`, in their order.
    unsynced: Vec<Change>,
    modified: Option<SystemTime>,
}

impl File {
    fn change(&mut self, change: Change, durable: bool) {
        self.now.apply(&change);
        self.modified = Some(SystemTime::now());
        if durable {
            // Only this write is promised; whatever came before it in the file stays unsynced.
            self.synced.apply(&change);
        }
        // A durable write is kept here as well, so that what is older cannot overwrite it after the cut.
        if !durable || !self.unsynced.is_empty() {
            self.unsynced.push(change);
        }
    }

    fn sync(&mut self) {
        for change in std::mem::take(&mut self.unsynced) {
            self.synced.apply(&change);
        }
    }

    /// Adds to what was synced what happens to have reached the disk.
    fn lose(&mut self, mode: Loss, rng: &mut Rng) {
        let unsynced = std::mem::take(&mut self.unsynced);
        let kept = match mode {
            Loss::Everything => 0,
            Loss::Tail | Loss::Scattered => rng.below(unsynced.len() as u64 + 1) as usize,
        };
        for (index, change) in unsynced.iter().enumerate() {
            match (mode, change) {
                (Loss::Everything, _) => break,
                (Loss::Tail, _) if index < kept => self.synced.apply(change),
                (Loss::Tail, change) => {
                    // The one under way when the power went.
                    tear(&mut self.synced, change, rng);
                    break;
                }
                (Loss::Scattered, change) if rng.one_in(2) => tear(&mut self.synced, change, rng),
                (Loss::Scattered, _) => {}
            }
        }
        self.now = self.synced.clone();
    }
}

/// Some sectors of a write; a change of length happens or does not.
fn tear(content: &mut Content, change: &Change, rng: &mut Rng) {
    let Change::Write { at, data } = change else {
        if rng.one_in(2) {
            content.apply(change);
        }
        return;
    };
    let mut start = 0;
    while start < data.len() {
        // Sectors are aligned on the disk, not in the write.
        let end = data.len().min(start + SECTOR - (*at as usize + start) % SECTOR);
        if !rng.one_in(4) {
            content.apply(&Change::Write { at: at + start as u64, data: data[start..end].to_vec() });
        }
        start = end;
    }
}

/// What a power cut does to unsynced data.
#[derive(Clone, Copy, Debug)]
pub enum Loss {
    /// All of it is gone.
    Everything,
    /// A beginning of it survives in each file, the next write torn.
    Tail,
    /// Any sectors of any of it survive.
    Scattered,
}

#[derive(Clone, Debug, Default)]
struct Directory {
    now: BTreeMap<OsString, u64>,
    synced: BTreeMap<OsString, u64>,
}

#[derive(Debug)]
enum Node {
    File(File),
    Directory(Directory),
}

#[derive(Debug)]
struct State {
    nodes: BTreeMap<u64, Node>,
    last: u64,
    listings: BTreeMap<u64, Vec<(u64, FileType, OsString)>>,
    /// The power is off: nothing is durable any more, and everything fails.
    off: bool,
    syncs: u64,
    faults: Faults,
}

/// The disk. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct Disk(Arc<Mutex<State>>);

impl Default for Disk {
    fn default() -> Self {
        let nodes = BTreeMap::from([(ROOT, Node::Directory(Directory::default()))]);
        Self(Arc::new(Mutex::new(State {
            nodes,
            last: ROOT,
            listings: BTreeMap::new(),
            off: false,
            syncs: 0,
            faults: Faults::default(),
        })))
    }
}

impl Disk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Mounts it; an error where FUSE may not be used.
    pub fn mount(&self, at: &Path) -> io::Result<BackgroundSession> {
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("power-cut".to_owned())];
        fuser::spawn_mount(Mounted(self.clone()), at, &config)
    }

    /// From here on nothing reaches the disk. What was not synced is lost by [`Disk::restore`].
    pub fn cut(&self) {
        self.state().off = true;
    }

    /// The disk after the power came back; nothing may be mounted.
    pub fn restore(&self, loss: Loss, rng: &mut Rng) {
        let mut state = self.state();
        state.off = false;
        state.listings.clear();
        for node in state.nodes.values_mut() {
            match node {
                Node::File(file) => file.lose(loss, rng),
                Node::Directory(directory) => {
                    if !matches!(loss, Loss::Everything) && rng.one_in(2) {
                        directory.synced = directory.now.clone();
                    }
                    directory.now = directory.synced.clone();
                }
            }
        }
        state.forget_unreachable();
    }

    /// From now on this goes wrong.
    pub fn inject(&self, fault: Fault) {
        self.state().faults.list.push(fault);
    }

    /// Nothing injected goes wrong any more.
    pub fn heal(&self) {
        self.state().faults.list.clear();
    }

    /// How often something injected went wrong.
    pub fn faults_met(&self) -> u64 {
        self.state().faults.met
    }

    /// Bounds the bytes of all files together; what is there stays.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().faults.capacity = bytes;
    }

    /// Bytes of all files together.
    pub fn used(&self) -> u64 {
        self.state().used()
    }

    /// Files opened from now on are read from the disk each time, so that what happens to it is seen.
    pub fn read_uncached(&self) {
        self.state().faults.uncached = true;
    }

    /// Flips one bit of a file, named by its path from the root; false when there is no such bit.
    pub fn flip(&self, path: &str, byte: u64, bit: u8) -> bool {
        let mut state = self.state();
        let inodes: Vec<u64> = state.nodes.keys().copied().collect();
        let Some(inode) = inodes.into_iter().find(|inode| state.path_of(*inode) == path) else { return false };
        let Some(Node::File(file)) = state.nodes.get_mut(&inode) else { return false };
        let mut flipped = false;
        for content in [&mut file.now, &mut file.synced] {
            if let Some(byte) = content.bytes.get_mut(byte as usize) {
                *byte ^= 1 << (bit % 8);
                flipped = true;
            }
        }
        flipped
    }

    /// Syncs of files and directories so far, durable writes included.
    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }
}

type Outcome<T> = Result<T, Errno>;

impl State {
    fn forget_unreachable(&mut self) {
        let mut reached = BTreeSet::new();
        let mut open = vec![ROOT];
        while let Some(inode) = open.pop() {
            if reached.insert(inode)
                && let Some(Node::Directory(directory)) = self.nodes.get(&inode)
            {
                open.extend(directory.now.values());
            }
        }
        self.nodes.retain(|inode, _| reached.contains(inode));
    }

    fn directory(&mut self, inode: INodeNo) -> Outcome<&mut Directory> {
        match self.nodes.get_mut(&inode.0) {
            Some(Node::Directory(directory)) => Ok(directory),
            Some(Node::File(_)) => Err(Errno::ENOTDIR),
            None => Err(Errno::ENOENT),
        }
    }

    fn file(&mut self, inode: INodeNo) -> Outcome<&mut File> {
        match self.nodes.get_mut(&inode.0) {
            Some(Node::File(file)) => Ok(file),
            Some(Node::Directory(_)) => Err(Errno::EISDIR),
            None => Err(Errno::ENOENT),
        }
    }

    /// From the root, without a slash in front; empty for what has no name.
    fn path_of(&self, inode: u64) -> String {
        let mut names = Vec::new();
        let mut inode = inode;
        while inode != ROOT {
            let parent = self.nodes.iter().find_map(|(parent, node)| {
                let Node::Directory(directory) = node else { return None };
                let (name, _) = directory.now.iter().find(|(_, child)| **child == inode)?;
                Some((*parent, name.to_string_lossy().into_owned()))
            });
            let Some((parent, name)) = parent else { return String::new() };
            names.push(name);
            inode = parent;
        }
        names.reverse();
        names.join("/")
    }

    fn judge(&mut self, op: Op, inode: INodeNo, range: Range<u64>) -> Option<Effect> {
        if self.faults.list.is_empty() {
            return None;
        }
        let path = self.path_of(inode.0);
        self.faults.judge(op, &path, &range)
    }

    fn used(&self) -> u64 {
        // What has no name any more takes no room; that a power cut may bring it back is another matter.
        let names = self.nodes.values().filter_map(|node| match node {
            Node::Directory(directory) => Some(directory.now.values()),
            Node::File(_) => None,
        });
        let length = |inode| if let Some(Node::File(file)) = self.nodes.get(inode) { file.now.length } else { 0 };
        names.flatten().map(length).sum()
    }

    fn check_room(&mut self, inode: INodeNo, end: u64) -> Outcome<()> {
        let Some(capacity) = self.faults.capacity else { return Ok(()) };
        let used = self.used();
        let grows = end.saturating_sub(self.file(inode)?.now.length);
        if grows > 0 && used + grows > capacity { Err(Errno::ENOSPC) } else { Ok(()) }
    }

    fn open_flags(&self) -> FopenFlags {
        if self.faults.uncached { FopenFlags::FOPEN_DIRECT_IO } else { FopenFlags::empty() }
    }

    fn powered(&self) -> Outcome<()> {
        if self.off { Err(Errno::EIO) } else { Ok(()) }
    }

    fn attributes(&self, inode: u64) -> Outcome<FileAttr> {
        let (kind, size, modified) = match self.nodes.get(&inode).ok_or(Errno::ENOENT)? {
            Node::File(file) => (FileType::RegularFile, file.now.length, file.modified),
            Node::Directory(_) => (FileType::Directory, 4096, None),
        };
        let time = modified.unwrap_or(SystemTime::UNIX_EPOCH);
        let directory = kind == FileType::Directory;
        Ok(FileAttr {
            ino: INodeNo(inode),
            size,
            blocks: size.div_ceil(SECTOR as u64),
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind,
            perm: if directory { 0o755 } else { 0o644 },
            nlink: if directory { 2 } else { 1 },
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }

    fn lookup(&mut self, parent: INodeNo, name: &OsStr) -> Outcome<FileAttr> {
        let inode = *self.directory(parent)?.now.get(name).ok_or(Errno::ENOENT)?;
        self.attributes(inode)
    }

    fn add(&mut self, parent: INodeNo, name: &OsStr, node: Node) -> Outcome<FileAttr> {
        self.powered()?;
        let inode = self.last + 1;
        let directory = self.directory(parent)?;
        if directory.now.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        directory.now.insert(name.to_owned(), inode);
        self.last = inode;
        self.nodes.insert(inode, node);
        self.attributes(inode)
    }

    fn remove(&mut self, parent: INodeNo, name: &OsStr) -> Outcome<()> {
        self.powered()?;
        let inode = *self.directory(parent)?.now.get(name).ok_or(Errno::ENOENT)?;
        if let Some(Node::Directory(directory)) = self.nodes.get(&inode)
            && !directory.now.is_empty()
        {
            return Err(Errno::ENOTEMPTY);
        }
        self.directory(parent)?.now.remove(name);
        Ok(())
    }

    fn rename(&mut self, from: (INodeNo, &OsStr), to: (INodeNo, &OsStr), flags: RenameFlags) -> Outcome<()> {
        self.powered()?;
        let inode = *self.directory(from.0)?.now.get(from.1).ok_or(Errno::ENOENT)?;
        let target = self.directory(to.0)?.now.get(to.1).copied();
        if flags.contains(RenameFlags::RENAME_EXCHANGE) {
            return Err(Errno::EINVAL);
        }
        if let Some(target) = target {
            if flags.contains(RenameFlags::RENAME_NOREPLACE) {
                return Err(Errno::EEXIST);
            }
            if let Some(Node::Directory(directory)) = self.nodes.get(&target)
                && !directory.now.is_empty()
            {
                return Err(Errno::ENOTEMPTY);
            }
        }
        self.directory(from.0)?.now.remove(from.1);
        self.directory(to.0)?.now.insert(to.1.to_owned(), inode);
        Ok(())
    }

    fn write(&mut self, inode: INodeNo, at: u64, data: &[u8], durable: bool) -> Outcome<u32> {
        let off = self.off;
        self.check_room(inode, at + data.len() as u64)?;
        let file = self.file(inode)?;
        let change = Change::Write { at, data: data.to_vec() };
        if off {
            // The write that the cut interrupts: it may reach the disk in parts, but nobody hears of success.
            if durable {
                file.unsynced.push(change);
            }
            return Err(Errno::EIO);
        }
        file.change(change, durable);
        self.syncs += u64::from(durable);
        u32::try_from(data.len()).map_err(|_| Errno::EINVAL)
    }

    fn sync(&mut self, inode: INodeNo) -> Outcome<()> {
        self.powered()?;
        self.syncs += 1;
        match self.nodes.get_mut(&inode.0).ok_or(Errno::ENOENT)? {
            Node::File(file) => file.sync(),
            Node::Directory(directory) => directory.synced = directory.now.clone(),
        }
        Ok(())
    }

    fn resize(&mut self, inode: INodeNo, length: u64) -> Outcome<()> {
        self.powered()?;
        self.file(inode)?.change(Change::Length(length), false);
        Ok(())
    }

    fn list(&mut self, inode: INodeNo) -> Outcome<u64> {
        let entries: Vec<_> = self.directory(inode)?.now.iter().map(|(name, inode)| (*inode, name.clone())).collect();
        let mut listing = Vec::new();
        for (inode, name) in entries {
            listing.push((inode, self.attributes(inode)?.kind, name));
        }
        let handle = self.listings.last_key_value().map_or(1, |(handle, _)| handle + 1);
        self.listings.insert(handle, listing);
        Ok(handle)
    }
}

/// The disk as the kernel sees it.
struct Mounted(Disk);

/// Does it now, later or not at all.
fn act<R: Send + 'static>(
    effect: Option<Effect>,
    reply: R,
    fail: impl FnOnce(R, Errno),
    act: impl FnOnce(R) + Send + 'static,
) {
    match effect {
        None => act(reply),
        Some(Effect::Fail(code)) => fail(reply, Errno::from_i32(code)),
        Some(Effect::Delay(time)) => {
            // Others are served meanwhile.
            std::thread::spawn(move || {
                std::thread::sleep(time);
                act(reply);
            });
        }
    }
}

fn empty(outcome: Outcome<()>, reply: ReplyEmpty) {
    match outcome {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

fn entry(outcome: Outcome<FileAttr>, reply: ReplyEntry) {
    match outcome {
        Ok(attributes) => reply.entry(&TTL, &attributes, Generation(0)),
        Err(error) => reply.error(error),
    }
}

fn durable(flags: OpenFlags) -> bool {
    OFlags::from_bits_retain(flags.0.cast_unsigned()).contains(OFlags::DSYNC)
}

impl Filesystem for Mounted {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        entry(self.0.state().lookup(parent, name), reply);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.0.state().attributes(ino.0) {
            Ok(attributes) => reply.attr(&TTL, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut state = self.0.state();
        let resized = size.map_or(Ok(()), |size| state.resize(ino, size));
        match resized.and_then(|()| state.attributes(ino.0)) {
            Ok(attributes) => reply.attr(&TTL, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _mode: u32, _umask: u32, reply: ReplyEntry) {
        entry(self.0.state().add(parent, name, Node::Directory(Directory::default())), reply);
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let mut state = self.0.state();
        match state.add(parent, name, Node::File(File::default())) {
            Ok(attributes) => reply.created(&TTL, &attributes, Generation(0), FileHandle(0), state.open_flags()),
            Err(error) => reply.error(error),
        }
    }

    fn open(&self, _: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), self.0.state().open_flags());
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(self.0.state().remove(parent, name), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(self.0.state().remove(parent, name), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        empty(self.0.state().rename((parent, name), (newparent, newname), flags), reply);
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let effect = self.0.state().judge(Op::Read, ino, offset..offset + u64::from(size));
        let disk = self.0.clone();
        let read = move |reply: ReplyData| match disk.state().file(ino) {
            Ok(file) => reply.data(&file.now.read(offset, size as usize)),
            Err(error) => reply.error(error),
        };
        act(effect, reply, |reply, error| reply.error(error), read);
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let range = offset..offset + data.len() as u64;
        let mut effect = self.0.state().judge(Op::Write, ino, range.clone());
        if effect.is_none() && durable(flags) {
            effect = self.0.state().judge(Op::Sync, ino, range);
        }
        let (disk, data) = (self.0.clone(), data.to_vec());
        let write = move |reply: ReplyWrite| match disk.state().write(ino, offset, &data, durable(flags)) {
            Ok(size) => reply.written(size),
            Err(error) => reply.error(error),
        };
        act(effect, reply, |reply, error| reply.error(error), write);
    }

    fn flush(&self, _: &Request, _ino: INodeNo, _fh: FileHandle, _lock_owner: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let effect = self.0.state().judge(Op::Sync, ino, 0..u64::MAX);
        let disk = self.0.clone();
        act(effect, reply, |reply, error| reply.error(error), move |reply| empty(disk.state().sync(ino), reply));
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        empty(self.0.state().sync(ino), reply);
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let mut state = self.0.state();
        let outcome = match (mode, state.attributes(ino.0)) {
            (0, Ok(attributes)) if attributes.size < offset + length => state.resize(ino, offset + length),
            (0, Ok(_)) => Ok(()),
            (0, Err(error)) => Err(error),
            _ => Err(Errno::EOPNOTSUPP),
        };
        empty(outcome, reply);
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.0.state().list(ino) {
            Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::empty()),
            Err(error) => reply.error(error),
        }
    }

    fn readdir(&self, _: &Request, ino: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let mut state = self.0.state();
        if let Some(Effect::Fail(code)) = state.judge(Op::List, ino, 0..u64::MAX) {
            return reply.error(Errno::from_i32(code));
        }
        let listing = state.listings.get(&fh.0).map(Vec::as_slice).unwrap_or_default();
        for (index, (inode, kind, name)) in listing.iter().enumerate().skip(offset as usize) {
            if reply.add(INodeNo(*inode), index as u64 + 1, *kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(&self, _: &Request, _ino: INodeNo, fh: FileHandle, _flags: OpenFlags, reply: ReplyEmpty) {
        self.0.state().listings.remove(&fh.0);
        reply.ok();
    }

    fn statfs(&self, _: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let state = self.0.state();
        let blocks = state.faults.capacity.unwrap_or(1 << 36) / 4096;
        let free = blocks.saturating_sub(state.used().div_ceil(4096));
        reply.statfs(blocks, free, free, 1 << 20, 1 << 20, 4096, 255, 4096);
    }
}
