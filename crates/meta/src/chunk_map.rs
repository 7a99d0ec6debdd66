//! A sorted map that is cheap to clone and cheap to change after a clone: chunks of at most [`CHUNK_MAX`] entries behind
//! reference counts. A clone is one count; a change after it copies the list of chunks and one chunk.
//!
//! Takes the place of the persistent collections behind Kafka's `TopicsImage` (`ImmutableMap`, pcollections).
//! Invariants: chunks are never empty, keys strictly increase within and across chunks.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// Entries in one chunk, inclusive; a larger one is split.
pub const CHUNK_MAX: usize = 128;

type Chunk<K, V> = Arc<Vec<(K, V)>>;

pub struct ChunkMap<K, V> {
    chunks: Arc<Vec<Chunk<K, V>>>,
    len: usize,
}

impl<K, V> Clone for ChunkMap<K, V> {
    fn clone(&self) -> Self {
        Self { chunks: Arc::clone(&self.chunks), len: self.len }
    }
}

impl<K, V> Default for ChunkMap<K, V> {
    fn default() -> Self {
        Self { chunks: Arc::default(), len: 0 }
    }
}

impl<K: PartialEq, V: PartialEq> PartialEq for ChunkMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && (Arc::ptr_eq(&self.chunks, &other.chunks) || self.iter().eq(other.iter()))
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for ChunkMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K, V> ChunkMap<K, V> {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All entries by ascending key.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.chunks.iter().flat_map(|chunk| chunk.iter().map(|(k, v)| (k, v)))
    }

    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(k, _)| k)
    }

    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, v)| v)
    }

    pub fn last(&self) -> Option<(&K, &V)> {
        self.chunks.last()?.last().map(|(k, v)| (k, v))
    }

    /// The chunk that holds the key if any does.
    fn chunk_of<Q: Ord + ?Sized>(&self, key: &Q) -> usize
    where
        K: Borrow<Q>,
    {
        self.chunks.partition_point(|c| c.first().is_some_and(|(k, _)| k.borrow() <= key)).saturating_sub(1)
    }

    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let chunk = self.chunks.get(self.chunk_of(key))?;
        let at = chunk.binary_search_by(|(k, _)| k.borrow().cmp(key)).ok()?;
        chunk.get(at).map(|(_, v)| v)
    }

    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }

    /// Entries whose key is `from` or larger, ascending.
    pub fn range_from<Q: Ord + ?Sized>(&self, from: &Q) -> impl Iterator<Item = (&K, &V)>
    where
        K: Borrow<Q>,
    {
        let first = self.chunk_of(from);
        let skip = self.chunks.get(first).map_or(0, |c| c.partition_point(|(k, _)| k.borrow() < from));
        self.chunks.iter().skip(first).flat_map(|chunk| chunk.iter()).skip(skip).map(|(k, v)| (k, v))
    }
}

impl<K: Ord + Clone, V: Clone> ChunkMap<K, V> {
    /// Sets the value and returns the one that was there.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let at = self.chunk_of(&key);
        let chunks = Arc::make_mut(&mut self.chunks);
        let Some(slot) = chunks.get_mut(at) else {
            chunks.push(Arc::new(vec![(key, value)]));
            self.len += 1;
            return None;
        };
        let chunk = Arc::make_mut(slot);
        match chunk.binary_search_by(|(k, _)| k.cmp(&key)) {
            Ok(i) => chunk.get_mut(i).map(|(_, v)| std::mem::replace(v, value)),
            Err(i) => {
                chunk.insert(i, (key, value));
                if chunk.len() > CHUNK_MAX {
                    // Keys mostly arrive in ascending order: a fuller left half wastes less.
                    let tail = chunk.split_off(CHUNK_MAX * 3 / 4);
                    chunks.insert(at + 1, Arc::new(tail));
                }
                self.len += 1;
                None
            }
        }
    }

    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let at = self.chunk_of(key);
        let found = self.chunks.get(at)?.binary_search_by(|(k, _)| k.borrow().cmp(key)).ok()?;
        let chunks = Arc::make_mut(&mut self.chunks);
        let chunk = Arc::make_mut(chunks.get_mut(at)?);
        let (_, value) = chunk.remove(found);
        if chunk.is_empty() {
            chunks.remove(at);
        }
        self.len -= 1;
        Some(value)
    }
}

impl<K: Ord + Clone, V: Clone> FromIterator<(K, V)> for ChunkMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut map = Self::default();
        for (k, v) in entries {
            map.insert(k, v);
        }
        map
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_sorted_map(ops in prop::collection::vec((any::<bool>(), 0u16..600), 0..2_000), from in 0u16..600) {
            let (mut map, mut model, mut kept) = (ChunkMap::default(), BTreeMap::new(), None);
            for (i, (insert, key)) in ops.into_iter().enumerate() {
                if insert {
                    prop_assert_eq!(map.insert(key, i), model.insert(key, i));
                } else {
                    prop_assert_eq!(map.remove(&key), model.remove(&key));
                }
                prop_assert_eq!(map.len(), model.len());
                if i == 700 {
                    kept = Some((map.clone(), model.clone()));
                }
            }
            prop_assert!(map.iter().eq(model.iter()));
            prop_assert!(map.range_from(&from).eq(model.range(from..)));
            prop_assert_eq!(map.get(&from), model.get(&from));
            if let Some((map, model)) = kept {
                prop_assert!(map.iter().eq(model.iter()), "a clone changed");
            }
        }
    }
}
