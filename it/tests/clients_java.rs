//! Apache Kafka's own command-line tools against the broker (`KAFKA_JARS`). `SCALE` sets the number of records of the
//! performance tools.

use taccola_it::clients::{CODECS, kafka_tool, scale};
use taccola_it::{Broker, run, run_with_input};

const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";
const GROUPS: &str = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
const CONFIGS: &str = "kafka.admin.ConfigCommand";
const PRODUCER: &str = "org.apache.kafka.tools.ConsoleProducer";
const CONSUMER: &str = "org.apache.kafka.tools.consumer.ConsoleConsumer";
const PRODUCER_PERF: &str = "org.apache.kafka.tools.ProducerPerformance";
const CONSUMER_PERF: &str = "org.apache.kafka.tools.ConsumerPerformance";

/// Runs a tool to its end; `None` where it is not installed.
fn tool(test: &str, class: &str, broker: &Broker, arguments: &[&str], input: &str) -> Option<String> {
    let mut command = kafka_tool(test, class)?;
    command.arg("--bootstrap-server").arg(broker.bootstrap()).args(arguments);
    Some(run_with_input(&mut command, input))
}

#[test]
fn topics_and_configs() {
    let test = "topics_and_configs";
    let broker = Broker::start(&[]);
    let create = ["--create", "--topic", "shown", "--partitions", "3", "--config", "retention.ms=86400000"];
    if tool(test, TOPICS, &broker, &create, "").is_none() {
        return;
    }
    let of = |class: &str, arguments: &[&str]| tool(test, class, &broker, arguments, "").expect("it was there");
    assert_eq!(of(TOPICS, &["--list"]).trim(), "shown");
    let described = of(TOPICS, &["--describe", "--topic", "shown"]);
    assert!(described.contains("PartitionCount: 3") && described.contains("retention.ms=86400000"), "{described}");
    assert!(described.contains("Leader: 0") && described.contains("Isr: 0"), "{described}");
    of(TOPICS, &["--alter", "--topic", "shown", "--partitions", "5"]);
    assert!(of(TOPICS, &["--describe", "--topic", "shown"]).contains("PartitionCount: 5"));
    let topic = ["--entity-type", "topics", "--entity-name", "shown"];
    let with = |more: &[&'static str]| [more, &topic].concat();
    of(CONFIGS, &with(&["--alter", "--add-config", "max.message.bytes=2000,cleanup.policy=[compact,delete]"]));
    let configs = of(CONFIGS, &with(&["--describe"]));
    assert!(
        configs.contains("max.message.bytes=2000") && configs.contains("cleanup.policy=compact,delete"),
        "{configs}"
    );
    of(CONFIGS, &with(&["--alter", "--delete-config", "max.message.bytes"]));
    assert!(!of(CONFIGS, &with(&["--describe"])).contains("max.message.bytes=2000"));
    let node = of(CONFIGS, &["--describe", "--all", "--entity-type", "brokers", "--entity-name", "0"]);
    assert!(node.contains("log.retention.hours=168"), "{node}");
    of(TOPICS, &["--delete", "--topic", "shown"]);
    assert_eq!(of(TOPICS, &["--list"]).trim(), "");
}

#[test]
fn console_producer_and_consumer_with_every_codec() {
    let test = "console_producer_and_consumer_with_every_codec";
    let broker = Broker::start(&[]);
    for codec in CODECS {
        let topic = format!("console-{codec}");
        let lines: String = (0..100).map(|i| format!("k{i}\tvalue {i} of {codec}\n")).collect();
        let produce = ["--topic", &topic, "--compression-codec", codec, "--reader-property", "parse.key=true"];
        if tool(test, PRODUCER, &broker, &produce, &lines).is_none() {
            return;
        }
        let consume =
            ["--topic", &topic, "--from-beginning", "--max-messages", "100", "--formatter-property", "print.key=true"];
        let got = tool(test, CONSUMER, &broker, &consume, "").expect("it was there");
        assert_eq!(got, lines, "{codec}");
    }
}

#[test]
fn groups_are_listed_described_and_reset() {
    let test = "groups_are_listed_described_and_reset";
    let broker = Broker::start(&[]);
    if tool(test, PRODUCER, &broker, &["--topic", "reset"], "a\nb\nc\n").is_none() {
        return;
    }
    let of = |class: &str, arguments: &[&str]| tool(test, class, &broker, arguments, "").expect("it was there");
    let consume = ["--topic", "reset", "--group", "readers", "--from-beginning", "--max-messages", "3"];
    assert_eq!(of(CONSUMER, &consume), "a\nb\nc\n");
    assert!(of(GROUPS, &["--list"]).lines().any(|line| line.trim() == "readers"));
    let described = of(GROUPS, &["--describe", "--group", "readers"]);
    let row = described.lines().find(|line| line.contains("reset")).unwrap_or_else(|| panic!("{described}"));
    let row: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(row[..6], ["readers", "reset", "0", "3", "3", "0"], "{described}");
    let state = of(GROUPS, &["--describe", "--state", "--group", "readers"]);
    assert!(state.contains("Empty"), "{state}");
    for (how, offset) in [
        (&["--to-earliest"][..], "0"),
        (&["--to-offset", "2"], "2"),
        (&["--shift-by", "-1"], "1"),
        (&["--to-datetime", "2000-01-01T00:00:00.000"], "0"),
        (&["--to-latest"], "3"),
    ] {
        let arguments = [&["--reset-offsets", "--group", "readers", "--topic", "reset", "--execute"], how].concat();
        let said = of(GROUPS, &arguments);
        let row = said.lines().find(|line| line.contains("reset")).unwrap_or_else(|| panic!("{said}"));
        assert_eq!(row.split_whitespace().nth(3), Some(offset), "{how:?}: {said}");
    }
    assert!(of(GROUPS, &["--delete", "--group", "readers"]).contains("successful"));
    assert!(!of(GROUPS, &["--list"]).contains("readers"));
}

#[test]
fn performance_tools_with_every_codec() {
    let test = "performance_tools_with_every_codec";
    let broker = Broker::start(&["num.partitions=2"]);
    let count = scale().to_string();
    let codecs: &[&str] = if scale() > 10_000 { &CODECS } else { &["none", "zstd"] };
    for codec in codecs {
        let topic = format!("perf-{codec}");
        let Some(mut produce) = kafka_tool(test, PRODUCER_PERF) else { return };
        produce.args(["--topic", &topic, "--num-records", &count, "--record-size", "100", "--throughput", "-1"]);
        produce.arg("--producer-props").arg(format!("bootstrap.servers={}", broker.bootstrap()));
        produce.arg("acks=all").arg(format!("compression.type={codec}"));
        let said = run(&mut produce);
        let last = said.lines().last().unwrap_or_default().to_owned();
        assert!(last.starts_with(&format!("{count} records sent")), "{said}");
        let consume = ["--topic", &topic, "--messages", &count, "--timeout", "60000"];
        let read = tool(test, CONSUMER_PERF, &broker, &consume, "").expect("it was there");
        let row = read.lines().last().unwrap_or_default().to_owned();
        assert_eq!(row.split(", ").nth(4), Some(count.as_str()), "{read}");
        println!("{codec}: {last}\n{codec} consumed: {row}");
    }
}
