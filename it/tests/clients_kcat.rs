//! kcat (librdkafka) against the broker. `SCALE` sets the number of records per codec.

use std::process::Command;

use taccola_it::clients::{CODECS, kcat, scale};
use taccola_it::{Broker, eventually, run, run_with_input};

fn command(program: &str, broker: &Broker, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.arg("-q").arg("-b").arg(broker.bootstrap()).args(arguments);
    command
}

#[test]
fn every_codec_comes_back_record_for_record() {
    let Some(kcat) = kcat("every_codec_comes_back_record_for_record") else { return };
    let broker = Broker::start(&[]);
    let count = scale();
    for codec in CODECS {
        let topic = format!("kcat-{codec}");
        let lines: String = (0..count).map(|i| format!("key-{i}\tvalue {i} of {codec}\n")).collect();
        let produce = ["-P", "-t", &topic, "-p", "0", "-z", codec, "-K", "\t", "-H", "origin=kcat", "-H", "codec=x"];
        run_with_input(&mut command(kcat, &broker, &produce), &lines);
        let consume =
            ["-C", "-t", &topic, "-o", "beginning", "-e", "-X", "check.crcs=true", "-f", "%k\t%s\t%p\t%o\t%h\n"];
        let got = run(&mut command(kcat, &broker, &consume));
        let mut got = got.lines();
        for i in 0..count {
            let line = got.next().unwrap_or_else(|| panic!("{codec}: {i} of {count} records"));
            assert_eq!(line, format!("key-{i}\tvalue {i} of {codec}\t0\t{i}\torigin=kcat,codec=x"), "{codec}");
        }
        assert_eq!(got.next(), None, "{codec}: more than was produced");
    }
    println!("kcat: {count} records with each of {CODECS:?}");
}

#[test]
fn idempotent_and_tombstones_and_metadata() {
    let Some(kcat) = kcat("idempotent_and_tombstones_and_metadata") else { return };
    let broker = Broker::start(&["num.partitions=3"]);
    let idempotent = ["-P", "-t", "mixed", "-Z", "-K", ":", "-X", "enable.idempotence=true", "-X", "acks=all"];
    run_with_input(&mut command(kcat, &broker, &idempotent), "a:1\nb:\nc:3\n");
    let got = run(&mut command(kcat, &broker, &["-C", "-t", "mixed", "-e", "-o", "beginning", "-f", "%k %S\n"]));
    let mut got: Vec<_> = got.lines().collect();
    got.sort_unstable();
    assert_eq!(got, ["a 1", "b -1", "c 1"], "a null value has length -1");
    let listed = run(&mut command(kcat, &broker, &["-L", "-J", "-t", "mixed"]));
    let listed: serde_json::Value = serde_json::from_str(&listed).expect("kcat -J speaks JSON");
    assert_eq!(listed["topics"][0]["partitions"].as_array().map(Vec::len), Some(3), "{listed}");
    assert_eq!(listed["topics"][0]["partitions"][0]["isrs"][0]["id"], 0, "{listed}");
    assert_eq!(listed["brokers"][0]["name"], format!("127.0.0.1:{}", broker.port), "{listed}");
}

#[test]
fn offsets_by_number_by_end_and_by_time() {
    let Some(kcat) = kcat("offsets_by_number_by_end_and_by_time") else { return };
    let broker = Broker::start(&[]);
    for line in ["first", "second", "third"] {
        run_with_input(&mut command(kcat, &broker, &["-P", "-t", "timed", "-p", "0"]), &format!("{line}\n"));
    }
    let from = |offset: &str| {
        run(&mut command(kcat, &broker, &["-C", "-t", "timed", "-p", "0", "-o", offset, "-e", "-f", "%s %T\n"]))
    };
    let all = from("beginning");
    let times: Vec<i64> = all.lines().map(|line| line.split(' ').nth(1).unwrap().parse().unwrap()).collect();
    assert_eq!(times.len(), 3, "{all}");
    let values = |text: &str| text.lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(values(&from("1")), ["second", "third"]);
    assert_eq!(values(&from("-1")), ["third"]);
    assert_eq!(values(&from(&format!("s@{}", times[1]))), ["second", "third"]);
    assert_eq!(values(&from(&format!("s@{}", times[2]))), ["third"]);
    assert_eq!(values(&from("s@0")), ["first", "second", "third"]);
    // Behind the last record there is nothing to seek to: librdkafka goes to the end.
    assert_eq!(values(&from(&format!("s@{}", times[2] + 1))), Vec::<String>::new());
    let query = run(&mut command(kcat, &broker, &["-Q", "-t", &format!("timed:0:{}", times[1])]));
    assert!(query.contains("offset 1"), "{query}");
}

#[test]
fn a_group_commits_and_goes_on() {
    let Some(kcat) = kcat("a_group_commits_and_goes_on") else { return };
    let mut broker = Broker::start(&["num.partitions=2"]);
    run_with_input(&mut command(kcat, &broker, &["-P", "-t", "grouped", "-K", ":"]), "a:1\nb:2\nc:3\nd:4\n");
    let options = ["-X", "auto.offset.reset=earliest", "-X", "session.timeout.ms=6000"];
    let group = |broker: &Broker| {
        run(command(kcat, broker, &["-e", "-f", "%s\n"]).args(options).args(["-G", "readers", "grouped"]))
    };
    let mut first: Vec<String> = group(&broker).lines().map(str::to_owned).collect();
    first.sort();
    assert_eq!(first, ["1", "2", "3", "4"]);
    broker.restart();
    assert_eq!(group(&broker), "", "all of it was committed");
    run_with_input(&mut command(kcat, &broker, &["-P", "-t", "grouped", "-K", ":"]), "e:5\n");
    // A member that did not leave may still be awaited; the record comes in one of the rounds.
    assert_eq!(eventually("the new record", || Some(group(&broker)).filter(|got| !got.is_empty())), "5\n");
}
