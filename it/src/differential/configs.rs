//! DescribeConfigs, AlterConfigs, IncrementalAlterConfigs, ListConfigResources.

use taccola_wire::messages::alter_configs_request::{AlterConfigsResource, AlterableConfig};
use taccola_wire::messages::create_topics_request::CreatableTopic;
use taccola_wire::messages::describe_configs_request::DescribeConfigsResource;
use taccola_wire::messages::incremental_alter_configs_request as incremental;
use taccola_wire::messages::*;

use super::Differential;
use super::equal;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const LOGGER: i8 = 8;
const METRICS: i8 = 16;
const GROUP: i8 = 32;

pub(crate) fn run(d: &mut Differential) {
    let topic = |name: &str| CreatableTopic {
        name: name.to_owned(),
        num_partitions: 1,
        replication_factor: 1,
        ..Default::default()
    };
    let topics = vec![topic("c-one"), topic("c-two")];
    let request = CreateTopicsRequest { topics, timeout_ms: 30_000, ..Default::default() };
    d.at("prepare", 7, &request, |response| response.topics.clear());
    describe(d);
    alter(d);
    increment(d);
    describe(d);
    list(d);
}

pub(crate) fn described(response: &mut DescribeConfigsResponse) {
    for result in &mut response.results {
        equal::message(result.error_code, &mut result.error_message);
        result.configs.sort_by(|a, b| a.name.cmp(&b.name));
        // What the two are told apart by, what only one of them has, and where their words differ.
        result.configs.retain(|config| !config.name.starts_with("taccola."));
        for config in &mut result.configs {
            equal::documentation(&mut config.documentation);
            let own = ["listeners", "advertised.listeners", "log.dirs", "controller.quorum.voters"];
            if own.contains(&config.name.as_str()) {
                config.value = config.value.take().map(|_| "own".to_owned());
                config.synonyms.iter_mut().for_each(|synonym| synonym.value = None);
            }
        }
    }
}

fn describe(d: &mut Differential) {
    let resource = |resource_type, name: &str, keys: Option<&[&str]>| DescribeConfigsResource {
        resource_type,
        resource_name: name.to_owned(),
        configuration_keys: keys.map(|keys| keys.iter().map(|key| (*key).to_owned()).collect()),
    };
    let request = |resources: Vec<DescribeConfigsResource>| DescribeConfigsRequest { resources, ..Default::default() };
    let full = |resources| DescribeConfigsRequest {
        include_synonyms: true,
        include_documentation: true,
        ..request(resources)
    };
    for (resource_type, name) in
        [(TOPIC, "c-one"), (BROKER, "0"), (BROKER, ""), (GROUP, "c-group"), (METRICS, "c-metrics"), (TOPIC, "c-two")]
    {
        for version in 1..=4 {
            let case = format!("{resource_type} {name:?}");
            d.at(&case, version, &request(vec![resource(resource_type, name, None)]), described);
        }
        d.at(&format!("{resource_type} {name:?} full"), 3, &full(vec![resource(resource_type, name, None)]), described);
        d.at(&format!("{resource_type} {name:?} full"), 4, &full(vec![resource(resource_type, name, None)]), described);
        let some =
            Some(&["retention.ms", "log.retention.ms", "no.such", "interval.ms", "consumer.session.timeout.ms"][..]);
        d.at(&format!("{resource_type} {name:?} keys"), 4, &full(vec![resource(resource_type, name, some)]), described);
        d.at(
            &format!("{resource_type} {name:?} no keys"),
            4,
            &request(vec![resource(resource_type, name, Some(&[]))]),
            |r| {
                r.results.iter_mut().for_each(|result| result.configs.truncate(result.configs.len().min(1)));
                described(r);
                r.results
                    .iter_mut()
                    .for_each(|result| result.configs.iter_mut().for_each(|config| config.name.clear()));
                r.results.iter_mut().for_each(|result| {
                    result.configs.iter_mut().for_each(|config| {
                        *config = Default::default();
                    })
                });
            },
        );
    }
    let bad = [
        (TOPIC, "c-missing"),
        (TOPIC, ""),
        (TOPIC, "a b"),
        (BROKER, "1"),
        (BROKER, "x"),
        (BROKER, "-1"),
        (LOGGER, "1"),
        (LOGGER, ""),
        (LOGGER, "x"),
        (METRICS, ""),
        (GROUP, ""),
    ];
    for (resource_type, name) in bad {
        d.at(
            &format!("bad {resource_type} {name:?}"),
            4,
            &request(vec![resource(resource_type, name, None)]),
            described,
        );
    }
    for unknown in [-1, 0, 1, 3, 5, 33, 64, 127] {
        let mixed = vec![resource(unknown, "x", None), resource(TOPIC, "c-missing", None)];
        d.at(&format!("unknown type {unknown}"), 4, &request(mixed), described);
    }
    let twice =
        vec![resource(TOPIC, "c-one", Some(&["retention.ms"])), resource(TOPIC, "c-one", Some(&["retention.ms"]))];
    d.at("twice", 4, &request(twice), described);
    d.at("nothing", 4, &request(vec![]), described);
    d.at("logger", 4, &request(vec![resource(LOGGER, "0", Some(&["root"]))]), |response| {
        described(response);
        response.results.iter_mut().flat_map(|r| &mut r.configs).for_each(|config| {
            // The level is what logging was set up with.
            (config.read_only, config.value) = (false, None);
        });
    });
}

fn alter(d: &mut Differential) {
    let resource = |resource_type, name: &str, configs: &[(&str, Option<&str>)]| AlterConfigsResource {
        resource_type,
        resource_name: name.to_owned(),
        configs: configs
            .iter()
            .map(|(name, value)| AlterableConfig { name: (*name).to_owned(), value: value.map(str::to_owned) })
            .collect(),
    };
    let request = |resources: Vec<AlterConfigsResource>| AlterConfigsRequest { resources, validate_only: false };
    let rows = |response: &mut AlterConfigsResponse| {
        response.responses.iter_mut().for_each(|row| equal::message(row.error_code, &mut row.error_message));
        response
            .responses
            .sort_by(|a, b| (a.resource_type, &a.resource_name).cmp(&(b.resource_type, &b.resource_name)));
    };
    for version in 0..=2 {
        let good =
            vec![resource(TOPIC, "c-one", &[("retention.ms", Some("1000")), ("cleanup.policy", Some("compact"))])];
        d.at("set", version, &request(good.clone()), rows);
        d.at("validate only", version, &AlterConfigsRequest { resources: good, validate_only: true }, rows);
        d.at("replace", version, &request(vec![resource(TOPIC, "c-one", &[("retention.bytes", Some("7"))])]), rows);
    }
    let cases = [
        ("unknown topic", resource(TOPIC, "c-missing", &[])),
        ("empty topic", resource(TOPIC, "", &[])),
        ("bad topic name", resource(TOPIC, "a b", &[])),
        ("unknown key", resource(TOPIC, "c-two", &[("no.such", Some("1"))])),
        ("bad value", resource(TOPIC, "c-two", &[("retention.ms", Some("x"))])),
        ("null value", resource(TOPIC, "c-two", &[("retention.ms", None)])),
        ("empty key", resource(TOPIC, "c-two", &[("", Some("1"))])),
        ("key twice", resource(TOPIC, "c-two", &[("retention.ms", Some("1")), ("retention.ms", Some("2"))])),
        ("other broker", resource(BROKER, "7", &[("log.retention.ms", Some("1000"))])),
        ("no broker id", resource(BROKER, "x", &[])),
        ("read-only", resource(BROKER, "0", &[("log.dirs", Some("/x"))])),
        ("bad broker value", resource(BROKER, "0", &[("log.retention.ms", Some("x"))])),
        ("unknown broker key", resource(BROKER, "0", &[("no.such", Some("x"))])),
        ("broker", resource(BROKER, "0", &[("log.retention.ms", Some("86400000"))])),
        ("broker nothing", resource(BROKER, "0", &[])),
        ("all brokers", resource(BROKER, "", &[("log.retention.ms", Some("86400000"))])),
        ("all brokers, per-broker key", resource(BROKER, "", &[("listeners", Some("PLAINTEXT://:1"))])),
        ("logger", resource(LOGGER, "0", &[("root", Some("INFO"))])),
        ("group", resource(GROUP, "c-group", &[("consumer.session.timeout.ms", Some("50000"))])),
        ("group bounds", resource(GROUP, "c-group", &[("consumer.session.timeout.ms", Some("1"))])),
        ("empty group", resource(GROUP, "", &[])),
        ("metrics", resource(METRICS, "c-metrics", &[("interval.ms", Some("1000"))])),
        ("metrics bounds", resource(METRICS, "c-metrics", &[("interval.ms", Some("1"))])),
        ("metrics unknown", resource(METRICS, "c-metrics", &[("no.such", Some("1"))])),
        ("unknown type", resource(99, "x", &[])),
        ("type 0", resource(0, "x", &[])),
    ];
    for (case, one) in cases {
        d.at(case, 2, &request(vec![one]), rows);
    }
    let twice = vec![resource(TOPIC, "c-two", &[]), resource(TOPIC, "c-two", &[]), resource(TOPIC, "c-one", &[])];
    d.at("resource twice", 2, &request(twice), rows);
    d.at("nothing", 2, &request(vec![]), rows);
}

fn increment(d: &mut Differential) {
    let resource =
        |resource_type, name: &str, configs: &[(&str, i8, Option<&str>)]| incremental::AlterConfigsResource {
            resource_type,
            resource_name: name.to_owned(),
            configs: configs
                .iter()
                .map(|(name, config_operation, value)| incremental::AlterableConfig {
                    name: (*name).to_owned(),
                    config_operation: *config_operation,
                    value: value.map(str::to_owned),
                })
                .collect(),
        };
    let request = |resources: Vec<incremental::AlterConfigsResource>| IncrementalAlterConfigsRequest {
        resources,
        validate_only: false,
    };
    let rows = |response: &mut IncrementalAlterConfigsResponse| {
        response.responses.iter_mut().for_each(|row| equal::message(row.error_code, &mut row.error_message));
        response
            .responses
            .sort_by(|a, b| (a.resource_type, &a.resource_name).cmp(&(b.resource_type, &b.resource_name)));
    };
    const SET: i8 = 0;
    const DELETE: i8 = 1;
    const APPEND: i8 = 2;
    const SUBTRACT: i8 = 3;
    let policies = "leader.replication.throttled.replicas";
    let cases = [
        ("set", resource(TOPIC, "c-two", &[("retention.ms", SET, Some("1000"))])),
        ("append to a default", resource(TOPIC, "c-two", &[("cleanup.policy", APPEND, Some("compact"))])),
        ("append what is there", resource(TOPIC, "c-two", &[("cleanup.policy", APPEND, Some("compact"))])),
        ("append to an empty default", resource(TOPIC, "c-one", &[(policies, APPEND, Some("0:0,1:0"))])),
        ("subtract", resource(TOPIC, "c-two", &[("cleanup.policy", SUBTRACT, Some("delete"))])),
        ("subtract what is not there", resource(TOPIC, "c-two", &[("cleanup.policy", SUBTRACT, Some("delete"))])),
        ("subtract the last", resource(TOPIC, "c-two", &[("cleanup.policy", SUBTRACT, Some("compact"))])),
        ("append to no list", resource(TOPIC, "c-two", &[("retention.ms", APPEND, Some("1"))])),
        ("subtract from no list", resource(TOPIC, "c-two", &[("retention.ms", SUBTRACT, Some("1"))])),
        ("delete", resource(TOPIC, "c-two", &[("retention.ms", DELETE, None)])),
        ("delete what is not set", resource(TOPIC, "c-two", &[("retention.ms", DELETE, Some("x"))])),
        ("delete an unknown key", resource(TOPIC, "c-two", &[("no.such", DELETE, None)])),
        ("null", resource(TOPIC, "c-two", &[("retention.ms", SET, None)])),
        ("append null", resource(TOPIC, "c-two", &[("cleanup.policy", APPEND, None)])),
        ("unknown operation", resource(TOPIC, "c-two", &[("retention.ms", 9, Some("1"))])),
        ("negative operation", resource(TOPIC, "c-two", &[("retention.ms", -1, Some("1"))])),
        ("key twice", resource(TOPIC, "c-two", &[("retention.ms", SET, Some("1")), ("retention.ms", DELETE, None)])),
        ("empty key", resource(TOPIC, "c-two", &[("", SET, Some("1"))])),
        ("unknown key", resource(TOPIC, "c-two", &[("no.such", SET, Some("1"))])),
        ("one good, one bad", resource(TOPIC, "c-two", &[("segment.ms", SET, Some("9")), ("no.such", SET, Some("1"))])),
        ("unknown topic", resource(TOPIC, "c-missing", &[("retention.ms", SET, Some("1"))])),
        ("unknown topic, nothing", resource(TOPIC, "c-missing", &[])),
        ("empty topic", resource(TOPIC, "", &[("retention.ms", SET, Some("1"))])),
        ("topic, nothing", resource(TOPIC, "c-two", &[])),
        ("broker", resource(BROKER, "0", &[("log.retention.ms", SET, Some("96400000"))])),
        ("broker list", resource(BROKER, "0", &[("log.cleanup.policy", APPEND, Some("compact"))])),
        ("broker read-only", resource(BROKER, "0", &[("log.dirs", SET, Some("/x"))])),
        ("broker read-only delete", resource(BROKER, "0", &[("log.dirs", DELETE, None)])),
        ("broker unknown key", resource(BROKER, "0", &[("no.such", SET, Some("x"))])),
        ("broker bad value", resource(BROKER, "0", &[("log.retention.ms", SET, Some("x"))])),
        ("broker out of range", resource(BROKER, "0", &[("log.segment.bytes", SET, Some("1"))])),
        ("broker null", resource(BROKER, "0", &[("log.retention.ms", SET, None)])),
        ("broker, nothing", resource(BROKER, "0", &[])),
        ("other broker", resource(BROKER, "7", &[("log.retention.ms", SET, Some("1"))])),
        ("no broker id", resource(BROKER, "x", &[("log.retention.ms", SET, Some("1"))])),
        ("broker threads", resource(BROKER, "0", &[("num.io.threads", SET, Some("1000"))])),
        ("all brokers", resource(BROKER, "", &[("log.retention.ms", SET, Some("106400000"))])),
        ("all brokers, min isr", resource(BROKER, "", &[("min.insync.replicas", SET, Some("1"))])),
        ("all brokers, delete min isr", resource(BROKER, "", &[("min.insync.replicas", DELETE, None)])),
        ("broker, min isr", resource(BROKER, "0", &[("min.insync.replicas", SET, Some("1"))])),
        ("all brokers, bad", resource(BROKER, "", &[("log.retention.ms", SET, Some("x"))])),
        ("all brokers, per-broker key", resource(BROKER, "", &[("advertised.listeners", SET, Some("PLAINTEXT://:1"))])),
        ("logger unknown", resource(LOGGER, "0", &[("no.such.logger", SET, Some("INFO"))])),
        ("logger level", resource(LOGGER, "0", &[("root", SET, Some("LOUD"))])),
        ("logger append", resource(LOGGER, "0", &[("root", APPEND, Some("INFO"))])),
        ("logger other broker", resource(LOGGER, "7", &[("root", SET, Some("INFO"))])),
        ("group", resource(GROUP, "c-group", &[("consumer.heartbeat.interval.ms", SET, Some("6000"))])),
        ("group unknown", resource(GROUP, "c-group", &[("no.such", SET, Some("6000"))])),
        ("group bounds", resource(GROUP, "c-group", &[("consumer.heartbeat.interval.ms", SET, Some("1"))])),
        ("empty group", resource(GROUP, "", &[("consumer.heartbeat.interval.ms", SET, Some("6000"))])),
        ("metrics", resource(METRICS, "c-metrics", &[("metrics", SET, Some("a.b"))])),
        ("metrics append", resource(METRICS, "c-metrics", &[("metrics", APPEND, Some("c.d"))])),
        ("metrics unknown", resource(METRICS, "c-metrics", &[("no.such", SET, Some("c.d"))])),
        ("metrics match", resource(METRICS, "c-metrics", &[("match", SET, Some("x=y"))])),
        ("unknown type", resource(99, "x", &[("a", SET, Some("b"))])),
        ("type 0", resource(0, "x", &[])),
    ];
    for (case, one) in cases {
        d.all(case, 1..=1, &request(vec![one.clone()]), rows);
    }
    let one = resource(TOPIC, "c-two", &[("segment.ms", SET, Some("90000"))]);
    d.at("version 0", 0, &request(vec![one.clone()]), rows);
    let validate_only = IncrementalAlterConfigsRequest { resources: vec![one.clone()], validate_only: true };
    d.at("validate only", 1, &validate_only, rows);
    let mixed = vec![
        one.clone(),
        one,
        resource(TOPIC, "c-one", &[("segment.ms", SET, Some("90000"))]),
        resource(TOPIC, "c-missing", &[("segment.ms", SET, Some("90000"))]),
    ];
    d.at("resource twice", 1, &request(mixed), rows);
    d.at("nothing", 1, &request(vec![]), rows);
}

fn list(d: &mut Differential) {
    let request = |types: &[i8]| ListConfigResourcesRequest { resource_types: types.to_vec() };
    let rows = |response: &mut ListConfigResourcesResponse| {
        response
            .config_resources
            .sort_by(|a, b| (a.resource_type, &a.resource_name).cmp(&(b.resource_type, &b.resource_name)));
    };
    d.at("client metrics", 0, &request(&[]), rows);
    d.at("all", 1, &request(&[]), rows);
    for one in [TOPIC, BROKER, LOGGER, METRICS, GROUP] {
        d.at(&format!("type {one}"), 1, &request(&[one]), rows);
    }
    d.at("two", 1, &request(&[TOPIC, GROUP]), rows);
    d.at("twice", 1, &request(&[BROKER, BROKER]), rows);
    for one in [-1, 0, 1, 3, 64, 127] {
        d.at(&format!("unknown type {one}"), 1, &request(&[one]), rows);
        d.at(&format!("unknown type {one} among others"), 1, &request(&[TOPIC, one]), rows);
    }
}
