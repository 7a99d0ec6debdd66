//! How many cases there are of each API key at each version, counted in what Kafka answered.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use taccola_wire::api::{ApiInfo, ApiKey};

use super::{AREAS, ON_PURPOSE};

/// What a Kafka 4.3.1 broker advertises and Taccola does not: security, quotas, telemetry, and the requests among brokers and
/// controllers.
pub const NOT_SERVED: &[ApiKey] = &[
    ApiKey::SaslHandshake,
    ApiKey::DescribeAcls,
    ApiKey::CreateAcls,
    ApiKey::DeleteAcls,
    ApiKey::SaslAuthenticate,
    ApiKey::CreateDelegationToken,
    ApiKey::RenewDelegationToken,
    ApiKey::ExpireDelegationToken,
    ApiKey::DescribeDelegationToken,
    ApiKey::DescribeClientQuotas,
    ApiKey::AlterClientQuotas,
    ApiKey::DescribeUserScramCredentials,
    ApiKey::AlterUserScramCredentials,
    ApiKey::GetTelemetrySubscriptions,
    ApiKey::PushTelemetry,
    ApiKey::AddRaftVoter,
    ApiKey::RemoveRaftVoter,
];

/// What is served, ascending.
pub fn served() -> impl Iterator<Item = &'static ApiInfo> {
    ApiKey::ALL.iter().filter(|info| info.broker && !NOT_SERVED.contains(&info.key))
}

/// Recorded cases by the key's name and version.
pub fn counts() -> BTreeMap<(String, i16), usize> {
    let transactions = include_str!("../../testdata/transaction_answers.txt");
    let mut counts = BTreeMap::new();
    let answers: Vec<String> = AREAS.iter().map(|area| area.answers()).collect();
    for line in answers.iter().flat_map(|answers| answers.lines()).chain(transactions.lines()) {
        let mut words = line.split(' ');
        let (key, version) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let version = version.strip_prefix('v').and_then(|version| version.trim_end_matches(':').parse::<i16>().ok());
        if let (false, Some(version)) = (key.is_empty(), version) {
            *counts.entry((key.to_owned(), version)).or_default() += 1;
        }
    }
    counts
}

/// Versions that are advertised and have fewer cases than `least`.
pub fn holes(least: usize) -> Vec<String> {
    let counts = counts();
    let count = |key: ApiKey, version| counts.get(&(format!("{key:?}"), version)).copied().unwrap_or_default();
    let versions = served().flat_map(|info| (info.advertised_min()..=info.max).map(|version| (info.key, version)));
    versions
        .filter(|(key, version)| count(*key, *version) < least)
        .map(|(key, version)| format!("{key:?} v{version}: {} cases", count(key, version)))
        .collect()
}

/// Two tables for `docs/differences.md`.
pub fn tables() -> (String, String) {
    let mut purpose = "| Cases | Here, and why |\n| --- | --- |\n".to_owned();
    for (case, why) in ON_PURPOSE {
        let _ = writeln!(purpose, "| {} | {why} |", case.replace('|', "\\|"));
    }
    let counts = counts();
    let mut cases = "| Key | API | Cases at each version |\n| ---: | --- | --- |\n".to_owned();
    for info in served() {
        let count = |version| counts.get(&(format!("{:?}", info.key), version)).copied().unwrap_or_default();
        let versions: Vec<String> =
            (info.advertised_min()..=info.max).map(|version| format!("v{version}: {}", count(version))).collect();
        let _ = writeln!(cases, "| {} | {} | {} |", info.key.code(), info.key, versions.join(", "));
    }
    let _ = writeln!(cases, "\n{} cases in all.", counts.values().sum::<usize>());
    (purpose, cases)
}
