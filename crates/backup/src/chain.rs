//! A backup with its ancestors, opened: which extents make up a partition, and what of them still belongs to it.

use std::ops::Range;

use taccola_remote::Store;

use crate::contents::{Contents, Extent, Partition, Topic};
use crate::crypto::Secret;
use crate::error::{Error, Result};
use crate::keys::Keyring;
use crate::manifest::{Manifest, Parent};
use crate::object::{ObjectReader, Sealing};
use crate::repository::Repository;

/// Longest chain that is followed; nobody should restore from a tenth of it.
pub const CHAIN_MAX: usize = 10_000;

/// One backup of a chain.
pub struct Link {
    pub manifest: Manifest,
    pub contents: Contents,
    data_key: Option<Secret>,
}

impl Link {
    /// Opens a manifest and checks that it makes sense.
    pub fn open(manifest: Manifest, keys: &Keyring) -> Result<Self> {
        let master = keys.for_manifest(&manifest)?;
        let data_key = manifest.data_key(master.as_deref())?;
        let contents = manifest.contents(data_key.as_ref())?;
        let link = Self { manifest, contents, data_key };
        link.check().map_err(|reason| Error::damaged(format!("manifest of {}", link.id()), reason))?;
        Ok(link)
    }

    pub fn id(&self) -> &str {
        &self.manifest.identity.id
    }

    pub fn topic(&self, name: &str) -> Option<&Topic> {
        self.contents.topics.iter().find(|topic| topic.name == name)
    }

    /// The parent, if a topic continues it.
    fn needed_parent(&self) -> Option<Parent> {
        let parent = self.manifest.identity.parent.clone()?;
        self.contents.topics.iter().any(|topic| topic.incremental).then_some(parent)
    }

    pub(crate) fn sealing(&self) -> Sealing<'_> {
        Sealing::of(&self.manifest.identity, self.data_key.as_ref())
    }

    pub(crate) fn reader(&self, store: &Store, object: u32) -> Result<ObjectReader> {
        let found = usize::try_from(object).ok().and_then(|at| self.manifest.identity.objects.get(at));
        let found = found.ok_or_else(|| Error::damaged(self.id(), "names an object that it does not have"))?;
        ObjectReader::new(store, self.sealing(), found)
    }

    /// Indexes, offsets and extents are where they can be; readers rely on it.
    fn check(&self) -> Result<(), String> {
        for topic in &self.contents.topics {
            if topic.incremental && self.manifest.identity.parent.is_none() {
                return Err(format!("topic {} continues a parent that is not named", topic.name));
            }
            for (index, partition) in (0..).zip(&topic.partitions) {
                let place = format!("{}-{index}", topic.name);
                let ordered = 0 <= partition.log_start && partition.log_start <= partition.cut && partition.from >= 0;
                if partition.index != index || !ordered || partition.from > partition.cut {
                    return Err(format!("{place} contradicts itself"));
                }
                let mut next = i64::MIN;
                for extent in &partition.extents {
                    let object = usize::try_from(extent.object).ok();
                    let object = object.and_then(|at| self.manifest.identity.objects.get(at));
                    let inside = object.is_some_and(|object| {
                        extent.at.checked_add(extent.bytes).is_some_and(|end| end <= object.plain_bytes)
                    });
                    let sane = extent.first >= 0 && extent.first <= extent.last && extent.last < i64::MAX;
                    if !inside || !sane || extent.first < next {
                        return Err(format!("{place} has an impossible extent at offset {}", extent.first));
                    }
                    next = extent.last + 1;
                }
            }
        }
        Ok(())
    }
}

/// Newest first, down to one without a parent.
pub struct Chain {
    links: Vec<Link>,
}

/// A part of a partition: an extent, and the offsets that count of it.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    /// Which link has it.
    pub(crate) link: usize,
    pub(crate) extent: Extent,
    pub(crate) window: Range<i64>,
}

impl Chain {
    /// Follows parents as long as a topic needs them, and opens all of them.
    pub async fn open(repository: &Repository, id: &str, keys: &Keyring) -> Result<Self> {
        let mut links = vec![Link::open(repository.manifest(id).await?, keys)?];
        while let Some(parent) = links.last().and_then(Link::needed_parent) {
            if links.len() >= CHAIN_MAX {
                return Err(Error::Invalid(format!("the chain of {id} is longer than {CHAIN_MAX}")));
            }
            let child = links.last().map(|link| link.id().to_owned()).unwrap_or_default();
            let manifest = repository.manifest(&parent.id).await.map_err(|error| match error {
                Error::NotFound(_) => Error::damaged(
                    Repository::manifest_key(&parent.id),
                    format!("is missing, and {child} continues it"),
                ),
                error => error,
            })?;
            if manifest.digest() != parent.digest {
                let reason = format!("is not the backup that {child} continues");
                return Err(Error::damaged(Repository::manifest_key(&parent.id), reason));
            }
            links.push(Link::open(manifest, keys)?);
        }
        let chain = Self { links };
        chain.check()?;
        Ok(chain)
    }

    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// The backup that the chain is for.
    pub fn head(&self) -> Result<&Link> {
        self.links.first().ok_or_else(|| Error::Invalid("an empty chain".to_owned()))
    }

    /// Each part of a partition begins where the one before ends.
    fn check(&self) -> Result<()> {
        for topic in &self.head()?.contents.topics {
            for partition in &topic.partitions {
                self.pieces(&topic.name, partition.index)?;
            }
        }
        Ok(())
    }

    /// What makes up a partition, in order of offsets: everything from its start to its cut, and nothing else.
    pub(crate) fn pieces(&self, topic: &str, index: i32) -> Result<Vec<Piece>> {
        let place = format!("{topic}-{index}");
        let find = |link: &'_ Link| -> Option<(usize, usize)> {
            let at = link.contents.topics.iter().position(|known| known.name == topic)?;
            let partition = usize::try_from(index).ok()?;
            link.contents.topics.get(at)?.partitions.get(partition)?;
            Some((at, partition))
        };
        let mut pieces = Vec::new();
        let mut start = None;
        // Where what was found so far begins; older parts end there.
        let mut upper = i64::MAX;
        for (number, link) in self.links.iter().enumerate() {
            let found = find(link).and_then(|(at, partition)| {
                let topic = link.contents.topics.get(at)?;
                Some((topic.incremental, topic.partitions.get(partition)?))
            });
            let Some((incremental, partition)) = found else {
                let reason = format!("has no {place}, which its child continues");
                return match start {
                    Some(_) => Err(Error::damaged(format!("manifest of {}", link.id()), reason)),
                    None => Err(Error::Invalid(format!("the backup has no {place}"))),
                };
            };
            let start = *start.get_or_insert(partition.log_start);
            if number > 0 && partition.cut != upper && start < upper {
                let reason = format!("{place} ends at {} where its child begins at {upper}", partition.cut);
                return Err(Error::damaged(format!("manifest of {}", link.id()), reason));
            }
            pieces.extend(own_pieces(number, partition, start, upper));
            upper = partition.from;
            if !incremental || upper <= start {
                return Ok(ordered(pieces));
            }
        }
        Err(Error::damaged(
            format!("manifest of {}", self.head()?.id()),
            format!("{place} continues a parent that is missing"),
        ))
    }
}

fn own_pieces(link: usize, partition: &Partition, start: i64, upper: i64) -> Vec<Piece> {
    let window = partition.from.max(start)..partition.cut.min(upper);
    let wanted = |extent: &&Extent| extent.last >= window.start && extent.first < window.end;
    let extents = partition.extents.iter().rev().filter(wanted);
    extents.map(|extent| Piece { link, extent: extent.clone(), window: window.clone() }).collect()
}

/// They were found from the end on.
fn ordered(mut pieces: Vec<Piece>) -> Vec<Piece> {
    pieces.reverse();
    pieces
}
