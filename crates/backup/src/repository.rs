//! Where backups lie in an object store. Owns the names:
//!
//! - `manifests/<id>.tkm`: the backup. It is written last, and only if there is none; without it there is no backup.
//! - `data/<id>/<number>`: its objects.
//! - `runs/<id>`: written first and removed last. One without a manifest is a run that is under way or that crashed; what
//!   lies under its id is garbage then.

use std::time::{SystemTime, UNIX_EPOCH};

use taccola_remote::{RemoteError, Store};

use crate::crypto::{hex, random};
use crate::error::{Error, Result};
use crate::manifest::{MANIFEST_BYTES_MAX, Manifest};

const MANIFESTS: &str = "manifests";
const RUNS: &str = "runs";
const SUFFIX: &str = ".tkm";

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

/// A new backup's id: its time in UTC to the millisecond, so that ids sort by age, and six random bytes.
pub fn new_id(now_ms: i64) -> Result<String> {
    Ok(format!("{}-{}", compact_time(now_ms), hex(&random::<6>()?)))
}

/// `20261121T080000000Z`.
fn compact_time(ms: i64) -> String {
    let seconds = ms.div_euclid(1000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}{:03}Z", ms.rem_euclid(1000))
}

/// Days since 1970 as a date of the Gregorian calendar; years begin in March on the way, so that leap days come last.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

fn valid_id(id: &str) -> bool {
    !id.is_empty() && id.len() <= 64 && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// One name under `manifests/`.
#[derive(Debug)]
pub struct Listed {
    pub id: String,
    /// What became of reading it.
    pub manifest: Result<Manifest>,
}

/// A run that left no backup (yet).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    pub id: String,
    /// When it began, by the store's clock.
    pub begun_ms: i64,
}

#[derive(Clone, Debug)]
pub struct Repository {
    store: Store,
}

impl Repository {
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) fn object_key(id: &str, name: &str) -> String {
        format!("data/{id}/{name}")
    }

    pub fn manifest_key(id: &str) -> String {
        format!("{MANIFESTS}/{id}{SUFFIX}")
    }

    fn run_key(id: &str) -> String {
        format!("{RUNS}/{id}")
    }

    async fn names(&self, folder: &str) -> Result<Vec<(String, i64)>> {
        let mut names: Vec<(String, i64)> = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let page = self.store.list(folder, after.as_deref()).await?;
            after = page.objects.last().map(|object| object.key.clone());
            let named = page.objects.into_iter().filter_map(|object| {
                let name = object.key.strip_prefix(folder)?.strip_prefix('/')?;
                Some((name.to_owned(), object.modified_ms))
            });
            names.extend(named);
            if !page.more || after.is_none() {
                return Ok(names);
            }
        }
    }

    /// Ids of all backups, oldest first.
    pub async fn ids(&self) -> Result<Vec<String>> {
        let names = self.names(MANIFESTS).await?;
        let ids = names.into_iter().filter_map(|(name, _)| name.strip_suffix(SUFFIX).map(str::to_owned));
        let mut ids: Vec<String> = ids.filter(|id| valid_id(id)).collect();
        ids.sort();
        Ok(ids)
    }

    /// All backups, oldest first, damaged ones among them.
    pub async fn list(&self) -> Result<Vec<Listed>> {
        let mut listed = Vec::new();
        for id in self.ids().await? {
            let manifest = self.manifest(&id).await;
            if let Err(Error::Store(error)) = &manifest
                && error.is_transient()
            {
                return manifest.map(|_| Vec::new());
            }
            listed.push(Listed { id, manifest });
        }
        Ok(listed)
    }

    /// Runs without a backup, oldest first.
    pub async fn unfinished(&self) -> Result<Vec<Unfinished>> {
        let ids = self.ids().await?;
        let runs = self.names(RUNS).await?.into_iter().filter(|(id, _)| ids.binary_search(id).is_err());
        Ok(runs.map(|(id, begun_ms)| Unfinished { id, begun_ms }).collect())
    }

    /// An id in full, from `latest`, an id, or the beginning of one.
    pub async fn resolve(&self, text: &str) -> Result<String> {
        let ids = self.ids().await?;
        if text == "latest" {
            return ids.last().cloned().ok_or_else(|| Error::NotFound("here yet".to_owned()));
        }
        let mut found = ids.iter().filter(|id| id.starts_with(text));
        match (found.next(), found.next()) {
            (Some(id), None) => Ok(id.clone()),
            (Some(_), Some(_)) if ids.iter().any(|id| id == text) => Ok(text.to_owned()),
            (Some(_), Some(_)) => Err(Error::Invalid(format!("several backups begin with {text}"))),
            (None, _) => Err(Error::NotFound(text.to_owned())),
        }
    }

    pub async fn manifest(&self, id: &str) -> Result<Manifest> {
        if !valid_id(id) {
            return Err(Error::NotFound(id.to_owned()));
        }
        let key = Self::manifest_key(id);
        let bytes = self.store.get_whole(&key, MANIFEST_BYTES_MAX).await.map_err(|error| match error {
            RemoteError::NotFound { .. } => Error::NotFound(id.to_owned()),
            error => error.into(),
        })?;
        Manifest::decode(&key, id, &bytes)
    }

    /// Marks a run as under way.
    pub(crate) async fn begin(&self, id: &str, tool: &str) -> Result<()> {
        Ok(self.store.put_if_absent(&Self::run_key(id), tool.as_bytes().to_vec()).await?)
    }

    /// From here on there is a backup.
    pub(crate) async fn publish(&self, manifest: &Manifest) -> Result<()> {
        let id = &manifest.identity.id;
        let key = Self::manifest_key(id);
        let bytes = manifest.encode()?;
        match self.store.put_if_absent(&key, bytes.clone()).await {
            Ok(()) => {}
            // A reply that was lost makes the second attempt find the first one's work.
            Err(RemoteError::AlreadyExists { .. })
                if self.store.get_whole(&key, MANIFEST_BYTES_MAX).await?.as_ref() == bytes => {}
            Err(error) => return Err(error.into()),
        }
        self.end(id).await
    }

    async fn end(&self, id: &str) -> Result<()> {
        Ok(self.store.delete(&Self::run_key(id)).await?)
    }

    /// Puts another envelope around the same backup.
    pub(crate) async fn replace(&self, manifest: &Manifest) -> Result<()> {
        Ok(self.store.put(&Self::manifest_key(&manifest.identity.id), manifest.encode()?).await?)
    }

    /// Removes what a run left that made no backup: the caller knows that it is over. Returns how many objects went.
    pub async fn remove_unfinished(&self, id: &str) -> Result<u64> {
        if !valid_id(id) || self.ids().await?.iter().any(|known| known == id) {
            return Err(Error::Refused(format!("{id} is a backup, not the remains of a run")));
        }
        let folder = format!("data/{id}");
        let mut removed = 0;
        for (name, _) in self.names(&folder).await? {
            self.store.delete(&format!("{folder}/{name}")).await?;
            removed += 1;
        }
        self.end(id).await?;
        Ok(removed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_time() {
        assert_eq!(compact_time(0), "19700101T000000000Z");
        assert_eq!(compact_time(951_782_400_000), "20000229T000000000Z");
        assert_eq!(compact_time(1_795_248_299_999), "20261121T080459999Z");
        assert!(valid_id(&new_id(0).unwrap()));
        assert!(!valid_id("../x"));
    }
}
