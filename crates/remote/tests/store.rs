//! What a [`Store`] promises, against memory and a directory, with and without faults. S3 is in `it/tests/tiered.rs`.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::time::Duration;

use taccola_remote::{Fault, FaultPlan, Faults, Operation, Options, PAGE_MAX, PART_BYTES, RemoteError, Store};

fn stores() -> (Vec<Store>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { backoff: Duration::from_millis(1), ..Options::default() };
    let file = Store::open(&format!("file://{}/objects", dir.path().display()), &options).unwrap();
    let memory = Store::open("memory:", &options).unwrap();
    let prefixed = Store::open("memory://some/prefix", &options).unwrap();
    (vec![file, memory, prefixed], dir)
}

#[tokio::test]
async fn what_is_put_is_got_listed_and_deleted() {
    let (stores, _dir) = stores();
    for store in stores {
        store.put("a/b/one", "0123456789").await.unwrap();
        store.put("a/b/one", "0123456789abc").await.unwrap();
        store.put("a/bc/two", "x").await.unwrap();
        assert_eq!(store.get("a/b/one", 2..5).await.unwrap(), "234");
        assert_eq!(store.get_whole("a/b/one", 13).await.unwrap(), "0123456789abc");
        assert!(matches!(store.get_whole("a/b/one", 12).await, Err(RemoteError::TooLarge { have: 13, .. })));
        for range in [10..14, 13..14, 20..30] {
            let short = store.get("a/b/one", range.clone()).await;
            assert!(matches!(short, Err(RemoteError::Short { .. })), "{range:?}: {short:?}");
        }
        assert_eq!(store.head("a/b/one").await.unwrap(), 13);
        let page = store.list("a/b", None).await.unwrap();
        assert_eq!(page.objects.iter().map(|object| object.key.as_str()).collect::<Vec<_>>(), ["a/b/one"]);
        assert_eq!(store.list("", None).await.unwrap().objects.len(), 2);
        assert!(matches!(store.put_if_absent("a/b/one", "y").await, Err(RemoteError::AlreadyExists { .. })));
        store.put_if_absent("a/b/new", "y").await.unwrap();
        store.delete("a/b/one").await.unwrap();
        store.delete("a/b/one").await.unwrap();
        assert!(store.get("a/b/one", 0..1).await.unwrap_err().is_not_found());
        assert!(store.head("a/b/one").await.unwrap_err().is_not_found());
        assert!(matches!(store.put("../up", "z").await, Err(RemoteError::Config(_))));
    }
}

#[tokio::test]
async fn pages_follow_on_each_other() {
    let (stores, _dir) = stores();
    for store in stores {
        if store.url().starts_with("file:") {
            continue; // The same code behind a slow fsync each; the small case is in the test above.
        }
        let count = PAGE_MAX + 7;
        for n in (0..count).rev() {
            store.put(&format!("list/{n:05}"), "x").await.unwrap();
        }
        let first = store.list("list", None).await.unwrap();
        assert!(first.more && first.objects.len() == PAGE_MAX);
        let last = first.objects.last().unwrap().key.clone();
        assert_eq!(last, format!("list/{:05}", PAGE_MAX - 1));
        let second = store.list("list", Some(&last)).await.unwrap();
        assert!(!second.more && second.objects.len() == 7);
    }
}

#[tokio::test]
async fn an_upload_is_there_when_it_is_finished() {
    let (stores, _dir) = stores();
    for store in stores {
        for length in [0, 5, PART_BYTES, PART_BYTES + 3] {
            let body: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
            let mut upload = store.upload("up/object").unwrap();
            for piece in body.chunks(1_000_003) {
                upload.write(piece).await.unwrap();
            }
            assert_eq!(upload.written(), length as u64);
            assert!(store.head("up/object").await.unwrap_err().is_not_found());
            upload.finish().await.unwrap();
            assert_eq!(store.get_whole("up/object", u64::MAX).await.unwrap(), body);
            store.delete("up/object").await.unwrap();
        }
        let mut upload = store.upload("up/given-up").unwrap();
        upload.write(&vec![1; PART_BYTES + 1]).await.unwrap();
        upload.abort().await;
        assert!(store.head("up/given-up").await.unwrap_err().is_not_found());
    }
}

#[tokio::test]
async fn faults_that_pass_are_survived_and_others_are_told() {
    let plain = Store::memory();
    let some = FaultPlan { seed: 7, error: 50, lost_reply: 50, torn: 50, delay: 10, ..FaultPlan::default() };
    let store = plain.clone().with_faults(Faults::seeded(some));
    for n in 0..200 {
        let key = format!("k/{n}");
        store.put(&key, format!("value {n}")).await.unwrap();
        assert_eq!(store.get_whole(&key, 100).await.unwrap(), format!("value {n}"));
    }
    let dead = plain.clone().with_faults(Faults::decide(|_, _| Fault::Error));
    assert!(dead.get("k/1", 0..1).await.unwrap_err().is_transient());
    let torn = plain.clone().with_faults(Faults::decide(|operation, _| match operation {
        Operation::Put => Fault::Torn,
        _ => Fault::None,
    }));
    assert!(torn.put("torn", "0123456789").await.unwrap_err().is_transient());
    assert_eq!(plain.head("torn").await.unwrap(), 5);
    let lying = plain.clone().with_faults(Faults::decide(|_, _| Fault::Short));
    lying.put("lie", "0123456789").await.unwrap();
    assert_eq!(plain.head("lie").await.unwrap(), 5);
    assert!(matches!(lying.get("k/1", 0..4).await, Err(RemoteError::Short { have: 2, want: 4, .. })));
}

#[tokio::test]
async fn what_a_crash_left_of_a_write_goes_with_the_object() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&format!("file://{}", dir.path().display()), &Options::default()).unwrap();
    std::fs::create_dir(dir.path().join("a")).unwrap();
    for name in ["a/b#1", "a/b#2"] {
        std::fs::write(dir.path().join(name), "half").unwrap();
    }
    assert!(store.list("", None).await.unwrap().objects.is_empty());
    store.delete("a/b").await.unwrap();
    assert_eq!(std::fs::read_dir(dir.path().join("a")).unwrap().count(), 0);
}

#[test]
fn what_cannot_be_opened_is_refused_with_a_reason() {
    let open = |url: &str, pairs: &[(&str, &str)]| {
        Store::open(url, &Options::from_pairs(pairs.iter().copied()).unwrap()).unwrap_err().to_string()
    };
    assert!(open("nonsense", &[]).contains("not a URL"));
    assert!(open("ftp://host/x", &[]).contains("none of file, s3, gs, az, memory"));
    assert!(open("file://relative", &[]).contains("absolute"));
    assert!(open("s3:///prefix", &[]).contains("no bucket"));
    assert!(open("s3://bucket", &[("no.such.option", "1")]).contains("no_such_option"));
    assert!(open("memory:", &[("no.such.option", "1")]).contains("no_such_option"));
    assert!(Options::from_pairs([("retries", "many")]).is_err());
    let secret = Options::from_pairs([("aws.secret.access.key", "hunter2")]).unwrap();
    assert!(!format!("{secret:?}").contains("hunter2"));
}
