//! Random damage to any object of a chain: a reader gives the right bytes or an error, and `verify` names exactly what a
//! reader cannot give.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use taccola_remote::Store;
use taccola_wire::batch::{BatchBuilder, BatchHeader, Compression};

use crate::chain::Chain;
use crate::contents::{Contents, Extent, Partition, Topic};
use crate::crypto::{Cipher, MasterKey, Secret, new_data_key, seal_data_key};
use crate::extent::ExtentWalker;
use crate::keys::{Keyring, Unlock};
use crate::manifest::{FORMAT, Identity, Manifest, Parent};
use crate::object::{ObjectWriter, Sealing};
use crate::progress::Progress;
use crate::repository::Repository;
use crate::verify::verify;

const TOPICS: [&str; 2] = ["a", "b"];
const PARTITIONS: i32 = 2;

fn master() -> MasterKey {
    MasterKey::from_key_file(vec![9; 32]).unwrap()
}

fn keys() -> Keyring {
    Keyring::new(Unlock::Key(Arc::new(master())))
}

/// Batches of one partition between two offsets, of sizes that cross chunks.
fn batches(topic: usize, partition: i32, from: i64, to: i64) -> Vec<bytes::Bytes> {
    let mut all = Vec::new();
    let mut next = from;
    while next < to {
        let mut builder = BatchBuilder::new(Compression::None).base_offset(next);
        for offset in next..to.min(next + 3) {
            let seed = (offset * 31 + topic as i64 * 7 + i64::from(partition)) as u8;
            builder.append(offset, Some(&offset.to_be_bytes()), Some(&vec![seed; 9_000]), &[]);
        }
        let batch = builder.build().unwrap();
        next = BatchHeader::parse(&batch).unwrap().next_offset();
        all.push(batch);
    }
    all
}

/// One backup of all partitions between two offsets, two objects.
async fn back_up(store: &Store, id: &str, cipher: Cipher, parent: Option<&Manifest>, from: i64, to: i64) -> Manifest {
    let data_key: Option<Secret> = cipher.encrypts().then(|| new_data_key().unwrap());
    let envelope = data_key.as_ref().map(|key| seal_data_key(&master(), id, cipher, key).unwrap());
    let sealing = Sealing { backup: id, cipher, data_key: data_key.as_ref() };
    let (mut objects, mut topics) = (Vec::new(), Vec::new());
    for (number, name) in TOPICS.iter().enumerate() {
        let mut writer = ObjectWriter::begin(store, sealing, number as u32).await.unwrap();
        let mut partitions = Vec::new();
        for index in 0..PARTITIONS {
            let all = batches(number, index, from, to);
            let at = writer.position();
            for batch in &all {
                writer.write(batch).await.unwrap();
            }
            let extent = Extent {
                object: number as u32,
                at,
                bytes: writer.position() - at,
                first: from,
                last: to - 1,
                batches: all.len() as u64,
                records: (to - from) as u64,
            };
            let extents = vec![extent];
            partitions.push(Partition { index, log_start: 1, from, cut: to, leader_epoch: 0, extents });
        }
        objects.push(writer.finish().await.unwrap());
        topics.push(Topic {
            name: (*name).to_owned(),
            id: "id".to_owned(),
            replication_factor: 1,
            configs: Vec::new(),
            incremental: parent.is_some(),
            partitions,
        });
    }
    let identity = Identity {
        format: FORMAT,
        id: id.to_owned(),
        created_ms: 0,
        tool: String::new(),
        parent: parent.map(|parent| Parent { id: parent.identity.id.clone(), digest: parent.digest() }),
        cipher,
        objects,
        body_bytes: 0,
    };
    let contents = Contents { topics, ..Default::default() };
    let manifest = Manifest::seal(identity, envelope, data_key.as_ref(), &contents).unwrap();
    Repository::new(store.clone()).publish(&manifest).await.unwrap();
    manifest
}

/// A chain of two.
async fn sample(cipher: Cipher) -> Store {
    let store = Store::memory();
    let first = back_up(&store, "b1", cipher, None, 0, 20).await;
    back_up(&store, "b2", cipher, Some(&first), 20, 30).await;
    store
}

type Place = (String, i32, i64);

/// What can be read: value by place. Stops a partition at its first error, as a restore does the whole.
async fn readable(store: &Store) -> Option<BTreeMap<Place, Vec<u8>>> {
    let chain = Chain::open(&Repository::new(store.clone()), "b2", &keys()).await.ok()?;
    let mut all = BTreeMap::new();
    for topic in TOPICS {
        for index in 0..PARTITIONS {
            for piece in chain.pieces(topic, index).ok()? {
                let Ok(reader) = chain.links()[piece.link].reader(store, piece.extent.object) else { continue };
                let mut walker = ExtentWalker::new(&piece.extent);
                let mut at = piece.extent.at;
                // In small steps, so that what stands before the damage is read.
                while at < piece.extent.at + piece.extent.bytes {
                    let end = (at + 10_000).min(piece.extent.at + piece.extent.bytes);
                    let Ok(plain) = reader.read(at..end).await else { break };
                    walker.feed(&plain);
                    at = end;
                    while let Ok(Some((header, batch))) = walker.next_batch() {
                        for record in taccola_wire::batch::RecordIter::new(&batch).unwrap() {
                            let record = record.unwrap();
                            assert!(record.offset >= header.base_offset);
                            if piece.window.contains(&record.offset) {
                                let place = (topic.to_owned(), index, record.offset);
                                all.insert(place, record.value.unwrap().to_vec());
                            }
                        }
                    }
                }
            }
        }
    }
    Some(all)
}

fn expected() -> BTreeMap<Place, Vec<u8>> {
    let mut all = BTreeMap::new();
    for (number, topic) in TOPICS.iter().enumerate() {
        for index in 0..PARTITIONS {
            for offset in 1..30 {
                let seed = (offset * 31 + number as i64 * 7 + i64::from(index)) as u8;
                all.insert(((*topic).to_owned(), index, offset), vec![seed; 9_000]);
            }
        }
    }
    all
}

#[derive(Clone, Debug)]
enum Damage {
    Flip(u8),
    Zero,
    Truncate,
    Delete,
    /// With another object.
    Swap(prop::sample::Index),
    /// A piece of it stands where another should.
    Repeat,
}

fn damages() -> impl Strategy<Value = Damage> {
    prop_oneof![
        4 => (0_u8..8).prop_map(Damage::Flip),
        1 => Just(Damage::Zero),
        2 => Just(Damage::Truncate),
        1 => Just(Damage::Delete),
        1 => any::<prop::sample::Index>().prop_map(Damage::Swap),
        1 => Just(Damage::Repeat),
    ]
}

/// Whether anything changed.
async fn inflict(store: &Store, damage: &Damage, which: prop::sample::Index, place: prop::sample::Index) -> bool {
    let keys: Vec<String> = store.list("", None).await.unwrap().objects.into_iter().map(|object| object.key).collect();
    let key = &keys[which.index(keys.len())];
    let before = store.get_whole(key, 1 << 30).await.unwrap();
    let mut bytes = before.to_vec();
    let at = place.index(bytes.len());
    match damage {
        Damage::Flip(bit) => bytes[at] ^= 1 << bit,
        Damage::Zero => bytes[at..].iter_mut().take(4096).for_each(|byte| *byte = 0),
        Damage::Truncate => bytes.truncate(at),
        Damage::Delete => {
            store.delete(key).await.unwrap();
            return true;
        }
        Damage::Swap(other) => {
            let other = &keys[other.index(keys.len())];
            let theirs = store.get_whole(other, 1 << 30).await.unwrap();
            store.put(other, before.clone()).await.unwrap();
            bytes = theirs.to_vec();
        }
        Damage::Repeat => {
            let half = bytes.len() / 2;
            let (front, back) = bytes.split_at_mut(half);
            back[..half].copy_from_slice(front);
        }
    }
    store.put(key, bytes.clone()).await.unwrap();
    bytes != before
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(
        std::env::var("DAMAGE_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(96)
    ))]

    #[test]
    fn damage_is_found_and_named(
        cipher in prop::sample::select(&Cipher::ALL[..]),
        damage in damages(),
        which: prop::sample::Index,
        place: prop::sample::Index,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let store = sample(cipher).await;
            let expected = expected();
            let whole = readable(&store).await;
            prop_assert_eq!(whole.as_ref(), Some(&expected));
            let changed = inflict(&store, &damage, which, place).await;
            let repository = Repository::new(store.clone());
            let report = verify(&repository, "b2", &keys(), 2, &Progress::default()).await;
            let report = match report {
                Ok(report) => report,
                // The manifest itself is gone.
                Err(crate::Error::NotFound(_)) => return Ok(()),
                Err(error) => return Err(TestCaseError::fail(error.to_string())),
            };
            prop_assert_eq!(report.findings.is_empty(), !changed, "{:?}", report);
            let Some(found) = readable(&store).await else {
                prop_assert!(changed);
                return Ok(());
            };
            for (place, value) in &expected {
                let lost = report.findings.iter().flat_map(|finding| &finding.lost).any(|lost| {
                    lost.topic == place.0 && lost.partition == place.1 && (lost.first..=lost.last).contains(&place.2)
                });
                match found.get(place) {
                    Some(read) => prop_assert_eq!(read, value, "a wrong byte at {:?}", place),
                    None => prop_assert!(lost, "{:?} cannot be read, and is not said to be lost", place),
                }
            }
            if changed {
                let blind = verify(&repository, "b2", &Keyring::new(Unlock::Nothing), 2, &Progress::default()).await;
                prop_assert!(blind.is_ok_and(|report| !report.findings.is_empty()));
            }
            Ok(())
        })?;
    }
}

/// A new master key opens what the old one did, and the old one does not any more; the chain holds.
#[tokio::test]
async fn rotation_changes_the_envelope_alone() {
    let store = sample(Cipher::Aes256CtrHmacSha256).await;
    let repository = Repository::new(store.clone());
    let new = MasterKey::from_key_file(vec![8; 32]).unwrap();
    let before = repository.manifest("b1").await.unwrap();
    let after = crate::rotate::rotate(&repository, "b1", &keys(), &new).await.unwrap();
    assert_eq!(before.digest(), after.digest());
    assert_ne!(before.envelope, after.envelope);
    assert!(Chain::open(&repository, "b1", &keys()).await.is_err());
    crate::rotate::rotate(&repository, "b2", &keys(), &new).await.unwrap();
    let new = Keyring::new(Unlock::Key(Arc::new(new)));
    let report = verify(&repository, "b2", &new, 2, &Progress::default()).await.unwrap();
    assert!(report.findings.is_empty() && report.opened && report.records == 120, "{report:?}");
}
