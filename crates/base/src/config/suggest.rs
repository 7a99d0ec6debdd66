//! "Did you mean": the known name that is closest to a wrong one.

/// Longest name that is compared; work is its square.
const NAME_LEN_MAX: usize = 128;

/// The candidate with the fewest edits, if these are few for the name's length.
pub fn closest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > NAME_LEN_MAX {
        return None;
    }
    let limit = 1 + name.len() / 8;
    candidates
        .filter(|c| c.len().abs_diff(name.len()) <= limit)
        .map(|c| (edits(name, c), c.len().abs_diff(name.len()), c))
        .filter(|(n, ..)| *n <= limit)
        .min()
        .map(|(.., c)| c)
}

/// Insertions, deletions, replacements that turn one into the other (Levenshtein), by bytes.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (cell, y) in row.iter_mut().skip(1).zip(b.bytes()) {
            let value = (diagonal + usize::from(x != y)).min(left + 1).min(*cell + 1);
            diagonal = *cell;
            *cell = value;
            left = value;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_typos_only() {
        let names = ["num.partitions", "num.io.threads", "log.dirs", "log.dir"];
        let find = |n| closest(n, names.into_iter());
        assert_eq!(find("num.partition"), Some("num.partitions"));
        assert_eq!(find("num.paritions"), Some("num.partitions"));
        assert_eq!(find("log.dirz"), Some("log.dirs"));
        assert_eq!(find("confluent.metrics.topic"), None);
        assert_eq!(find(""), None);
        assert_eq!(find(&"x".repeat(100_000)), None);
        assert_eq!(edits("kitten", "sitting"), 3);
    }
}
