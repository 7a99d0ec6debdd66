//! Every API key at every version with a body that is none of its requests, and the versions beside those that are served.

use super::Differential;
use super::coverage::served;

pub(super) fn run(d: &mut Differential) {
    for info in served() {
        for version in info.min..=info.max {
            d.raw("an empty body", info.key, version, &[]);
            d.raw("a body of ones", info.key, version, &[0xff; 40]);
        }
        // Kafka has the version below in its range only for Produce, where it refuses it.
        for version in (info.advertised_min()..info.min).chain([info.max + 1, i16::MAX]) {
            d.raw("a version that is not served", info.key, version, &[0; 8]);
        }
    }
}
