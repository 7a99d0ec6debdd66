//! The feature levels that a release of Apache Kafka begins with. Answers to `kafka-features version-mapping`.

/// A release and its levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Release {
    /// `4.1`.
    name: &'static str,
    metadata: i16,
    transaction: i16,
    group: i16,
    eligible_leader_replicas: i16,
    share: i16,
    streams: i16,
}

const fn release(name: &'static str, metadata: i16, others: [i16; 5]) -> Release {
    let [transaction, group, eligible_leader_replicas, share, streams] = others;
    Release { name, metadata, transaction, group, eligible_leader_replicas, share, streams }
}

/// From the oldest whose metadata 4.3 still reads.
const RELEASES: [Release; 11] = [
    release("3.3", 7, [0, 0, 0, 0, 0]),
    release("3.4", 8, [0, 0, 0, 0, 0]),
    release("3.5", 11, [0, 0, 0, 0, 0]),
    release("3.6", 14, [0, 0, 0, 0, 0]),
    release("3.7", 19, [0, 0, 0, 0, 0]),
    release("3.8", 20, [0, 0, 0, 0, 0]),
    release("3.9", 21, [0, 0, 0, 0, 0]),
    release("4.0", 25, [2, 1, 0, 0, 0]),
    release("4.1", 27, [2, 1, 1, 0, 0]),
    release("4.2", 29, [2, 1, 1, 1, 1]),
    release("4.3", 30, [2, 1, 1, 1, 1]),
];

impl Release {
    /// `4.1`, `4.1.2` or the full name of its metadata version, `4.1-IV1`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split(['.', '-']);
        let name = format!("{}.{}", numbers.next()?, numbers.next()?);
        let rest_is_fine = numbers.all(|rest| rest.trim_start_matches("IV").bytes().all(|b| b.is_ascii_digit()));
        RELEASES.into_iter().find(|release| rest_is_fine && release.name == name)
    }

    /// The range, for messages.
    pub(crate) fn known() -> String {
        let name = |release: Option<&Release>| release.map_or("", |release| release.name);
        format!("{} to {}", name(RELEASES.first()), name(RELEASES.last()))
    }

    /// Features and levels; 0 is a feature that the release does not use by itself.
    pub(crate) fn levels(self) -> [(&'static str, i16); 6] {
        [
            ("metadata.version", self.metadata),
            ("transaction.version", self.transaction),
            ("group.version", self.group),
            ("eligible.leader.replicas.version", self.eligible_leader_replicas),
            ("share.version", self.share),
            ("streams.version", self.streams),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_by_name() {
        let metadata = |text: &str| Release::parse(text).map(|release| release.metadata);
        assert_eq!(["4.1", "4.1.2", "4.3-IV0", "3.9"].map(metadata), [Some(27), Some(27), Some(30), Some(21)]);
        assert_eq!(["", "4", "4.9", "5.0", "4.1.x", "x", "3.2"].map(metadata), [None; 7]);
        assert_eq!(Release::known(), "3.3 to 4.3");
    }
}
