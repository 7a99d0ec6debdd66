//! The suites, as data: what each is, where it comes from, how the broker is set up for it, what stands out and why.

use std::time::Duration;

use super::outcome::Results;
use super::{Run, cargo, go, kfake, librdkafka, python, streams, tools};
use crate::kafka_jars::KAFKA_VERSION;

pub(super) struct Suite {
    /// What it is called on the command line.
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) version: &'static str,
    /// The registry and the name there.
    pub(super) source: &'static str,
    /// What the sources are changed in before they run.
    pub(super) changes: &'static str,
    /// Programs that must be on the machine, each with an argument to which it answers.
    pub(super) needs: &'static [(&'static str, &'static str)],
    /// Broker properties, the same on both sides.
    pub(super) settings: &'static [&'static str],
    /// Ends the run in the middle: a suite that takes longer hangs.
    pub(super) within: Duration,
    /// Whether a part of it belongs to `--quick`.
    pub(super) quick: bool,
    pub(super) run: fn(&Run<'_>, &mut Results) -> Result<(), String>,
    pub(super) notes: &'static [Note],
}

/// Why a test may differ between the two sides.
pub(super) struct Note {
    /// The test's name; with a star at its end, all that begin so.
    pub(super) test: &'static str,
    pub(super) kind: Kind,
    pub(super) why: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Needs what Taccola does not serve, and does not say that it serves.
    OutOfScope,
    /// Fails now and then on a race inside the suite or its client.
    Unsteady,
}

impl Kind {
    pub(super) fn title(self) -> &'static str {
        match self {
            Kind::OutOfScope => "out of scope",
            Kind::Unsteady => "unsteady",
        }
    }
}

impl Note {
    pub(super) fn is_about(&self, test: &str) -> bool {
        match self.test.strip_suffix('*') {
            Some(beginning) => test.starts_with(beginning),
            None => test == self.test,
        }
    }
}

const HOUR: u64 = 3600;

const NONE: &[Note] = &[];
const fn out_of_scope(test: &'static str, why: &'static str) -> Note {
    Note { test, kind: Kind::OutOfScope, why }
}

const KAFKA_PYTHON: &[Note] = &[
    out_of_scope("test_admin_integration::test_create_describe_delete_acls", "needs ACLs"),
    Note {
        test: "test_consumer_integration::test_kafka_consumer",
        kind: Kind::Unsteady,
        why: "a race inside the client: the test subscribes while the client's first Metadata request, of no topics, is under \
              way; its answer counts as fresh for five minutes, and the consumer never fetches",
    },
];
const TOOLS: &[Note] =
    &[out_of_scope(tools::WITH_ACLS, "asks for DescribeAcls; told that ACLs are not served, the test passes")];
const ACLS: &[Note] = &[
    out_of_scope("0081_admin", "its first part needs ACLs"),
    out_of_scope("0109_auto_create_topics", "needs ACLs"),
    out_of_scope("0115_producer_auth", "needs ACLs"),
    out_of_scope("0119_consumer_auth", "needs ACLs"),
];
const GO: &[(&str, &str)] = &[("go", "version")];
const PYTHON: &[(&str, &str)] = &[("python3", "--version")];
const JAVA: &[(&str, &str)] = &[("java", "-version"), ("mvn", "-version")];
const LIBRDKAFKA: &[(&str, &str)] = &[("npm", "--version"), ("gcc", "--version"), ("make", "--version")];
const NPM: &str = "npm, @confluentinc/kafka-javascript 1.10.1";

pub(super) const SUITES: &[Suite] = &[
    Suite {
        name: "streams",
        title: "Kafka Streams' smoke, relational and EOS drivers",
        version: "4.3.1 (EOS driver: 4.2.0)",
        source: "Maven, org.apache.kafka:kafka-streams:test",
        changes: "",
        needs: JAVA,
        settings: streams::SETTINGS,
        within: Duration::from_secs(4 * HOUR),
        quick: true,
        run: streams::run,
        notes: NONE,
    },
    Suite {
        name: "kafka-tools",
        title: "Kafka's Verifiable tools, TransactionalMessageCopier, ClientCompatibilityTest",
        version: KAFKA_VERSION,
        source: "Maven, org.apache.kafka:kafka-tools",
        changes: "",
        needs: JAVA,
        settings: tools::SETTINGS,
        within: Duration::from_secs(HOUR),
        quick: true,
        run: tools::run,
        notes: TOOLS,
    },
    Suite {
        name: "kgo",
        title: "franz-go, package `kgo`",
        version: go::VERSION,
        source: "the Go proxy, github.com/twmb/franz-go",
        changes: "",
        needs: GO,
        settings: go::SETTINGS,
        within: Duration::from_secs(HOUR),
        quick: true,
        run: go::run,
        notes: NONE,
    },
    Suite {
        name: "kfake",
        title: "kfake's `kafka_tests`, a node for each of its clusters",
        version: kfake::VERSION,
        source: "the Go proxy, github.com/twmb/franz-go/pkg/kfake",
        changes: kfake::CHANGES,
        needs: GO,
        settings: kfake::SETTINGS,
        within: Duration::from_secs(HOUR),
        quick: true,
        run: kfake::run,
        notes: NONE,
    },
    Suite {
        name: "kafka-python",
        title: "kafka-python, `test/integration`",
        version: python::VERSION,
        source: "PyPI, kafka-python",
        changes: python::CHANGES,
        needs: PYTHON,
        settings: python::SETTINGS,
        within: Duration::from_secs(HOUR),
        quick: true,
        run: python::run,
        notes: KAFKA_PYTHON,
    },
    Suite {
        name: "rust-rdkafka",
        title: "rust-rdkafka",
        version: cargo::VERSION,
        source: "crates.io, rdkafka",
        changes: cargo::CHANGES,
        needs: &[("cargo", "--version"), ("gcc", "--version"), ("make", "--version")],
        settings: cargo::SETTINGS,
        within: Duration::from_secs(HOUR),
        quick: false,
        run: cargo::run,
        notes: NONE,
    },
    Suite {
        name: "librdkafka",
        title: "librdkafka, `tests/`, full mode",
        version: "2.15.1",
        source: NPM,
        changes: librdkafka::CHANGES,
        needs: LIBRDKAFKA,
        settings: librdkafka::SETTINGS,
        within: Duration::from_secs(4 * HOUR),
        quick: true,
        run: librdkafka::classic,
        notes: ACLS,
    },
    Suite {
        name: "librdkafka-consumer",
        title: "the same with the consumer protocol (KIP-848)",
        version: "2.15.1",
        source: NPM,
        changes: librdkafka::CHANGES,
        needs: LIBRDKAFKA,
        settings: librdkafka::SETTINGS,
        within: Duration::from_secs(4 * HOUR),
        quick: false,
        run: librdkafka::consumer,
        notes: ACLS,
    },
    Suite {
        name: "librdkafka-noautocreate",
        title: "librdkafka, scenario `noautocreate`",
        version: "2.15.1",
        source: NPM,
        changes: librdkafka::CHANGES,
        needs: LIBRDKAFKA,
        settings: librdkafka::NO_AUTO_CREATE,
        within: Duration::from_secs(HOUR),
        quick: false,
        run: librdkafka::no_auto_create,
        notes: NONE,
    },
];
