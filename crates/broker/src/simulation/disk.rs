//! A disk whose power can be cut. The broker works on real files; this hears of each change before it happens
//! ([`taccola_log::disk_watch`]) and keeps account of what was synced and what was not. After a cut, what a file holds is
//! what was synced of it, plus whichever of the unsynced writes the seed lets survive, whole, cut off or torn at sectors;
//! a folder holds the names that were synced, and those of a first part of its later changes.
//!
//! Strict on purpose: syncing a file does not sync its name. Files that the log crate did not write (`meta.properties`,
//! `quorum-state` and their like, which the broker syncs itself) stay as they are, where their folder does.
//!
//! A process dies at a counted operation: it does not happen (a write leaves a part of its bytes), and nothing later does.
//!
//! A full disk refuses what needs room, a write perhaps behind a first part of it; what is overwritten in place needs none. A
//! spot that cannot be read is a range of one log's file, until it is healed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use taccola_log::disk_watch::{DiskOp, DiskWatch};

use super::rng::Rng;

/// Unit that a disk writes whole or not at all.
const SECTOR: usize = 512;
const ROOT: u64 = 0;
/// Errors as Linux numbers them.
const EIO: i32 = 5;
const ENOSPC: i32 = 28;

#[derive(Clone, Debug)]
enum Change {
    Write { at: u64, data: Vec<u8> },
    Length(u64),
}

#[derive(Clone, Debug)]
enum NameChange {
    Link(String, u64),
    Unlink(String),
    Rename(String, String),
}

#[derive(Debug)]
enum Node {
    File { synced: Vec<u8>, unsynced: Vec<Change> },
    Dir { synced: BTreeMap<String, u64>, now: BTreeMap<String, u64>, unsynced: Vec<NameChange> },
}

/// What a power cut makes of what was not synced.
#[derive(Clone, Copy, Debug)]
enum Loss {
    Everything,
    Tail,
    Scattered,
}

struct Inner {
    nodes: BTreeMap<u64, Node>,
    /// Files by the number that the real file system gave them.
    by_inode: BTreeMap<u64, u64>,
    next: u64,
    operations: u64,
    /// The operation that does not happen any more.
    dies_at: u64,
    dead: bool,
    /// The next so-many-th sync fails.
    sync_fails_in: Option<u64>,
    full: bool,
    /// What cannot be read: file, first byte, one behind the last.
    bad_spot: Option<(u64, u64, u64)>,
    rng: Rng,
}

/// The folder that a simulated broker has as its disk.
pub(super) struct Disk {
    root: PathBuf,
    inner: RefCell<Inner>,
}

impl Disk {
    pub(super) fn new(root: &Path, seed: u64) -> Self {
        let mut nodes = BTreeMap::new();
        nodes.insert(ROOT, new_dir());
        let inner = Inner {
            nodes,
            by_inode: BTreeMap::new(),
            next: ROOT + 1,
            operations: 0,
            dies_at: u64::MAX,
            dead: false,
            sync_fails_in: None,
            full: false,
            bad_spot: None,
            rng: Rng(seed ^ 0xD15C),
        };
        fs::create_dir_all(root).unwrap();
        Self { root: root.to_path_buf(), inner: RefCell::new(inner) }
    }

    /// Makes a folder that no power cut takes.
    pub(super) fn folder(&self, name: &str) -> PathBuf {
        let path = self.root.join(name);
        fs::create_dir(&path).unwrap();
        let inner = &mut *self.inner.borrow_mut();
        for operation in [DiskOp::CreateDir { path: &path }, DiskOp::SyncDir { path: &self.root }] {
            inner.note(self, &operation);
        }
        path
    }

    /// Changes so far: the same in each run of a seed.
    pub(super) fn operations(&self) -> u64 {
        self.inner.borrow().operations
    }

    /// The process dies at its so-many-th operation from here.
    pub(super) fn die_in(&self, operations: u64) {
        let mut inner = self.inner.borrow_mut();
        inner.dies_at = inner.operations + operations;
    }

    pub(super) fn fail_sync_in(&self, syncs: u64) {
        self.inner.borrow_mut().sync_fails_in = Some(syncs);
    }

    /// Nothing more happens on this disk until [`Self::revive`].
    pub(super) fn stop(&self) {
        self.inner.borrow_mut().dead = true;
    }

    pub(super) fn is_dead(&self) -> bool {
        self.inner.borrow().dead
    }

    pub(super) fn revive(&self) {
        let mut inner = self.inner.borrow_mut();
        inner.dead = false;
        inner.dies_at = u64::MAX;
        inner.sync_fails_in = None;
        inner.full = false;
        inner.bad_spot = None;
    }

    /// From now on there is no room, or there is room again.
    pub(super) fn set_full(&self, full: bool) {
        self.inner.borrow_mut().full = full;
    }

    /// Some bytes of some log cannot be read any more; answers which file it is.
    pub(super) fn go_bad(&self) -> Option<String> {
        let inner = &mut *self.inner.borrow_mut();
        let mut logs = Vec::new();
        inner.logs_below(ROOT, "", &mut logs);
        if logs.is_empty() {
            return None;
        }
        let (name, node, length) = logs.swap_remove(inner.rng.index(logs.len()));
        let start = inner.rng.below(length) / SECTOR as u64 * SECTOR as u64;
        inner.bad_spot = Some((node, start, start + SECTOR as u64));
        Some(format!("{name} from {start} on"))
    }

    pub(super) fn heal(&self) {
        self.inner.borrow_mut().bad_spot = None;
    }

    /// Makes the folder what a power cut leaves of it. Answers what kind of loss it was.
    pub(super) fn cut_power(&self) -> String {
        let inner = &mut *self.inner.borrow_mut();
        let loss = [Loss::Everything, Loss::Tail, Loss::Scattered][inner.rng.index(3)];
        let rng = &mut inner.rng;
        for node in inner.nodes.values_mut() {
            match node {
                Node::File { synced, unsynced } => lose(synced, std::mem::take(unsynced), loss, rng),
                Node::Dir { synced, now, unsynced } => {
                    let unsynced = std::mem::take(unsynced);
                    let kept = match loss {
                        Loss::Everything => 0,
                        Loss::Tail | Loss::Scattered => rng.index(unsynced.len() + 1),
                    };
                    unsynced.iter().take(kept).for_each(|change| change.apply(synced));
                    now.clone_from(synced);
                }
            }
        }
        let foreign = self.foreign_files(inner);
        fs::remove_dir_all(&self.root).unwrap();
        fs::create_dir(&self.root).unwrap();
        inner.by_inode.clear();
        let mut reached = vec![ROOT];
        inner.materialize(ROOT, &self.root, &mut reached);
        inner.nodes.retain(|node, _| reached.contains(node));
        for (path, content) in foreign {
            if path.parent().is_some_and(Path::is_dir) {
                fs::write(path, content).unwrap();
            }
        }
        format!("{loss:?}")
    }

    /// Files on the real disk that nobody told us about.
    fn foreign_files(&self, inner: &Inner) -> Vec<(PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        let mut folders = vec![self.root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).unwrap() {
                let entry = entry.unwrap();
                let metadata = entry.metadata().unwrap();
                if metadata.is_dir() {
                    folders.push(entry.path());
                } else if !inner.by_inode.contains_key(&metadata.ino()) {
                    found.push((entry.path(), fs::read(entry.path()).unwrap()));
                }
            }
        }
        found
    }

    fn parts(&self, path: &Path) -> Vec<String> {
        let inside = path.strip_prefix(&self.root).unwrap_or_else(|_| panic!("{} is not on the disk", path.display()));
        let part = |component: Component<'_>| component.as_os_str().to_str().unwrap().to_owned();
        inside.components().map(part).collect()
    }
}

impl DiskWatch for Disk {
    fn before(&self, operation: &DiskOp<'_>) -> io::Result<()> {
        let inner = &mut *self.inner.borrow_mut();
        if let DiskOp::Read { file, position, length } = operation {
            // Nobody hears what a dead process reads.
            return if inner.dead { Ok(()) } else { inner.read(file, *position, *length) };
        }
        if inner.dead {
            return Err(io::Error::other("the process is dead"));
        }
        if inner.operations >= inner.dies_at {
            inner.dead = true;
            inner.die_in(operation);
            return Err(io::Error::other("the process dies"));
        }
        inner.operations += 1;
        if matches!(operation, DiskOp::Sync { .. })
            && let Some(left) = &mut inner.sync_fails_in
        {
            *left = left.saturating_sub(1);
            if *left == 0 {
                inner.sync_fails_in = None;
                return Err(io::Error::from_raw_os_error(EIO));
            }
        }
        if inner.full {
            inner.find_room(self, operation)?;
        }
        inner.note(self, operation);
        Ok(())
    }

    fn opened(&self, path: &Path, file: &File) {
        let inner = &mut *self.inner.borrow_mut();
        if let Some(node) = inner.find(&self.parts(path)) {
            inner.by_inode.insert(file.metadata().unwrap().ino(), node);
        }
    }
}

impl Inner {
    fn note(&mut self, disk: &Disk, operation: &DiskOp<'_>) {
        match operation {
            DiskOp::Create { path, emptied } => {
                let parts = disk.parts(path);
                match self.find(&parts) {
                    None => self.link(&parts, Node::File { synced: Vec::new(), unsynced: Vec::new() }),
                    Some(node) if *emptied => self.change(node, Change::Length(0)),
                    Some(_) => {}
                }
            }
            DiskOp::Read { .. } => {}
            DiskOp::Write { file, position, bytes } => {
                let node = self.of_file(file);
                self.change(node, Change::Write { at: *position, data: bytes.to_vec() });
            }
            DiskOp::SetLen { file, length } => {
                let node = self.of_file(file);
                self.change(node, Change::Length(*length));
            }
            DiskOp::Sync { file } => {
                let node = self.of_file(file);
                if let Some(Node::File { synced, unsynced }) = self.nodes.get_mut(&node) {
                    unsynced.drain(..).for_each(|change| change.apply(synced));
                }
            }
            DiskOp::SyncDir { path } => {
                let node = self.find(&disk.parts(path)).expect("a folder that is synced is there");
                let Some(Node::Dir { synced, now, unsynced }) = self.nodes.get_mut(&node) else { return };
                synced.clone_from(now);
                unsynced.clear();
            }
            DiskOp::Rename { from, to } => self.rename(&disk.parts(from), &disk.parts(to)),
            DiskOp::CreateDir { path } => {
                let parts = disk.parts(path);
                if self.find(&parts).is_none() {
                    self.link(&parts, new_dir());
                }
            }
            DiskOp::RemoveFile { path } => self.unlink(&disk.parts(path)),
            DiskOp::RemoveDirAll { path } => {
                let parts = disk.parts(path);
                let Some(node) = self.find(&parts) else { return };
                let names: Vec<String> = match self.nodes.get(&node) {
                    Some(Node::Dir { now, .. }) => now.keys().cloned().collect(),
                    _ => return,
                };
                for name in names {
                    self.names(node, NameChange::Unlink(name));
                }
                self.unlink(&parts);
            }
        }
    }

    /// A write that dies leaves its beginning, in the page cache.
    fn die_in(&mut self, operation: &DiskOp<'_>) {
        if let DiskOp::Write { file, position, bytes } = operation {
            let part = &bytes[..self.rng.index(bytes.len() + 1)];
            self.write_part(file, *position, part);
        }
    }

    fn write_part(&mut self, file: &File, position: u64, part: &[u8]) {
        file.write_all_at(part, position).unwrap();
        let node = self.of_file(file);
        self.change(node, Change::Write { at: position, data: part.to_vec() });
    }

    fn read(&self, file: &File, position: u64, length: u64) -> io::Result<()> {
        let Some((node, start, end)) = self.bad_spot else { return Ok(()) };
        let is_it = self.by_inode.get(&file.metadata().unwrap().ino()) == Some(&node);
        if is_it && position < end && start < position + length {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        Ok(())
    }

    /// On a full disk. What of a write lies in the file already needs no room, nor does perhaps a little more.
    fn find_room(&mut self, disk: &Disk, operation: &DiskOp<'_>) -> io::Result<()> {
        let fits = match operation {
            DiskOp::Create { path, .. } => self.find(&disk.parts(path)).is_some(),
            DiskOp::CreateDir { .. } => false,
            DiskOp::SetLen { file, length } => *length <= file.metadata().unwrap().len(),
            DiskOp::Write { file, position, bytes } => {
                let old = file.metadata().unwrap().len();
                let fits = position + bytes.len() as u64 <= old;
                if !fits {
                    let part = &bytes[..self.rng.index(bytes.len())];
                    self.write_part(file, *position, part);
                }
                fits
            }
            _ => true,
        };
        if fits { Ok(()) } else { Err(io::Error::from_raw_os_error(ENOSPC)) }
    }

    /// Names, numbers and lengths of all logs that hold something.
    fn logs_below(&self, dir: u64, path: &str, found: &mut Vec<(String, u64, u64)>) {
        let Some(Node::Dir { now, .. }) = self.nodes.get(&dir) else { return };
        for (name, node) in now {
            let path = format!("{path}/{name}");
            match self.nodes.get(node) {
                Some(Node::File { synced, unsynced }) if name.ends_with(".log") => {
                    let mut content = synced.clone();
                    unsynced.iter().for_each(|change| change.apply(&mut content));
                    if !content.is_empty() {
                        found.push((path, *node, content.len() as u64));
                    }
                }
                _ => self.logs_below(*node, &path, found),
            }
        }
    }

    fn find(&self, parts: &[String]) -> Option<u64> {
        parts.iter().try_fold(ROOT, |node, part| match self.nodes.get(&node) {
            Some(Node::Dir { now, .. }) => now.get(part).copied(),
            _ => None,
        })
    }

    fn of_file(&self, file: &File) -> u64 {
        let inode = file.metadata().unwrap().ino();
        *self.by_inode.get(&inode).expect("a file that is written was opened on this disk")
    }

    fn change(&mut self, node: u64, change: Change) {
        if let Some(Node::File { unsynced, .. }) = self.nodes.get_mut(&node) {
            unsynced.push(change);
        }
    }

    fn names(&mut self, dir: u64, change: NameChange) {
        if let Some(Node::Dir { now, unsynced, .. }) = self.nodes.get_mut(&dir) {
            change.apply(now);
            unsynced.push(change);
        }
    }

    fn link(&mut self, parts: &[String], node: Node) {
        let (name, parent) = parts.split_last().expect("not the root");
        let parent = self.find(parent).expect("a file is made in a folder that is there");
        let number = self.next;
        self.next += 1;
        self.nodes.insert(number, node);
        self.names(parent, NameChange::Link(name.clone(), number));
    }

    fn unlink(&mut self, parts: &[String]) {
        if self.find(parts).is_some() {
            let (name, parent) = parts.split_last().expect("not the root");
            let parent = self.find(parent).expect("its parent is there");
            self.names(parent, NameChange::Unlink(name.clone()));
        }
    }

    fn rename(&mut self, from: &[String], to: &[String]) {
        if self.find(from).is_none() {
            return;
        }
        let ((from_name, from_dir), (to_name, to_dir)) = (from.split_last().unwrap(), to.split_last().unwrap());
        assert_eq!(from_dir, to_dir, "files stay in their folder");
        let dir = self.find(from_dir).unwrap();
        self.names(dir, NameChange::Rename(from_name.clone(), to_name.clone()));
    }

    /// Writes what is durable below a folder, and remembers which files they are now.
    fn materialize(&mut self, dir: u64, path: &Path, reached: &mut Vec<u64>) {
        let Some(Node::Dir { synced, .. }) = self.nodes.get(&dir) else { return };
        for (name, node) in synced.clone() {
            let path = path.join(name);
            reached.push(node);
            match self.nodes.get(&node) {
                Some(Node::File { synced, .. }) => {
                    fs::write(&path, synced).unwrap();
                    self.by_inode.insert(fs::metadata(&path).unwrap().ino(), node);
                }
                Some(Node::Dir { .. }) => {
                    fs::create_dir(&path).unwrap();
                    self.materialize(node, &path, reached);
                }
                None => {}
            }
        }
    }
}

fn new_dir() -> Node {
    Node::Dir { synced: BTreeMap::new(), now: BTreeMap::new(), unsynced: Vec::new() }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Link(name, node) => drop(names.insert(name.clone(), *node)),
            Self::Unlink(name) => drop(names.remove(name)),
            Self::Rename(from, to) => {
                if let Some(node) = names.remove(from) {
                    names.insert(to.clone(), node);
                }
            }
        }
    }
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { at, data } => {
                let (start, end) = (*at as usize, *at as usize + data.len());
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[start..end].copy_from_slice(data);
            }
            Self::Length(length) => content.resize(*length as usize, 0),
        }
    }
}

/// Adds to what was synced what happens to have reached the disk.
fn lose(synced: &mut Vec<u8>, unsynced: Vec<Change>, loss: Loss, rng: &mut Rng) {
    let kept = rng.index(unsynced.len() + 1);
    for (index, change) in unsynced.iter().enumerate() {
        match loss {
            Loss::Everything => return,
            Loss::Tail if index < kept => change.apply(synced),
            Loss::Tail => return tear(synced, change, rng),
            Loss::Scattered if rng.one_in(2) => tear(synced, change, rng),
            Loss::Scattered => {}
        }
    }
}

/// Some sectors of a write; a change of length happens or does not.
fn tear(synced: &mut Vec<u8>, change: &Change, rng: &mut Rng) {
    let Change::Write { at, data } = change else {
        if rng.one_in(2) {
            change.apply(synced);
        }
        return;
    };
    let mut start = 0;
    while start < data.len() {
        // Sectors are aligned on the disk, not in the write.
        let end = data.len().min(start + SECTOR - (*at as usize + start) % SECTOR);
        if !rng.one_in(4) {
            let sector = Change::Write { at: at + start as u64, data: data[start..end].to_vec() };
            sector.apply(synced);
        }
        start = end;
    }
}
