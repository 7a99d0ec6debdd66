//! Members of our own client (crate `client`): cooperative rebalances (KIP-429), together with Java's and librdkafka's
//! members, and members whose caller does not poll. `KAFKA_ORACLE=HOST:PORT` plays it all to a broker that runs already.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use taccola_client::admin::OffsetSpec;
use taccola_client::{
    Admin, Assignor, Client, ClientConfig, ConsumerConfig, GroupConfig, GroupConsumer, GroupProtocol, ShareConfig,
    ShareConsumer,
};
use taccola_it::conn::Conn;
use taccola_it::members::{Kind, Members, read_all};
use taccola_it::requests::{batch, list_offset, new_topic, produced};
use taccola_it::server::{Server, fresh};
use taccola_it::{WITHIN, eventually};
use tokio::task::JoinHandle;

const PROPERTIES: &[&str] = &[
    "group.min.session.timeout.ms=1000",
    "group.consumer.min.heartbeat.interval.ms=200",
    "group.consumer.heartbeat.interval.ms=200",
    "group.consumer.assignment.interval.ms=0",
    "group.share.min.heartbeat.interval.ms=200",
    "group.share.heartbeat.interval.ms=200",
    "share.coordinator.state.topic.replication.factor=1",
    "share.coordinator.state.topic.min.isr=1",
];
const POLL: Duration = Duration::from_millis(50);

fn run<F: Future>(body: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(body)
}

fn config(group: &str, topic: &str, protocol: GroupProtocol) -> GroupConfig {
    GroupConfig {
        protocol,
        start: OffsetSpec::Earliest,
        auto_commit: Some(Duration::ZERO),
        heartbeat_interval: Duration::from_millis(200),
        ..GroupConfig::new(group, [topic.to_owned()])
    }
}

fn cooperative(group: &str, topic: &str) -> GroupConfig {
    GroupConfig { assignors: vec![Assignor::CooperativeSticky], ..config(group, topic, GroupProtocol::Classic) }
}

fn client(server: &Server) -> Client {
    Client::new(ClientConfig::new(&server.bootstrap()).expect("an address"))
}

fn member(server: &Server, config: GroupConfig) -> GroupConsumer {
    GroupConsumer::new(client(server), ConsumerConfig::default(), config)
}

fn partitions(member: &GroupConsumer) -> BTreeSet<i32> {
    member.positions().keys().map(|partition| partition.partition).collect()
}

/// A topic whose partitions have their leader.
fn led_topic(conn: &mut Conn, name: &str, partitions: i32) {
    new_topic(conn, name, partitions, &[]);
    eventually("leaders", || (0..partitions).all(|p| list_offset(conn, name, p, -1).0 == 0).then_some(()));
}

/// Writes one record into each partition, and answers their values.
fn produce(conn: &mut Conn, topic: &str, partitions: i32, round: &str) -> BTreeSet<String> {
    let value = |partition: i32| format!("{round}:{partition}");
    for partition in 0..partitions {
        produced(conn, topic, partition, batch(&[&value(partition)]));
    }
    (0..partitions).map(value).collect()
}

/// Polls all of them until `done`; answers the values that came.
async fn poll_until(
    what: &str,
    members: &mut [&mut GroupConsumer],
    mut done: impl FnMut(&[&mut GroupConsumer], &[String]) -> bool,
) -> Vec<String> {
    let (mut found, until) = (Vec::new(), Instant::now() + WITHIN);
    while !done(members, &found) {
        assert!(Instant::now() < until, "waited for: {what}; read so far: {found:?}");
        for member in members.iter_mut() {
            let records = member.poll(POLL).await.expect("polled");
            let value =
                |value: &Option<bytes::Bytes>| String::from_utf8_lossy(value.as_deref().unwrap_or(b"")).into_owned();
            found.extend(records.iter().map(|record| value(&record.value)));
        }
    }
    found
}

fn counts(members: &[&mut GroupConsumer]) -> Vec<usize> {
    members.iter().map(|member| member.positions().len()).collect()
}

#[test]
fn a_cooperative_member_reads_on_while_its_group_rebalances() {
    let server = Server::start(PROPERTIES);
    let mut conn = server.conn();
    let (topic, group) = (fresh("cooperative"), fresh("group"));
    led_topic(&mut conn, &topic, 6);
    run(async {
        let mut first = member(&server, cooperative(&group, &topic));
        poll_until("all partitions", &mut [&mut first], |members, _| counts(members) == [6]).await;
        let mut second = member(&server, cooperative(&group, &topic));
        let mut least = 6;
        let members = &mut [&mut first, &mut second];
        let halves = |members: &[&mut GroupConsumer], _: &[String]| {
            least = least.min(members[0].positions().len());
            counts(members) == [3, 3]
        };
        poll_until("halves", members, halves).await;
        assert_eq!(least, 3, "what stays is never given up");
        let (one, two) = (partitions(&first), partitions(&second));
        assert!(one.is_disjoint(&two), "{one:?} {two:?}");

        // The second does not poll, so that the group waits for it. The first goes on.
        let mut third = member(&server, cooperative(&group, &topic));
        let waiting = tokio::spawn(async move {
            poll_until("a third", &mut [&mut third], |members, _| counts(members) == [2]).await;
            third
        });
        let admin = Admin::new(client(&server));
        let rebalancing = async {
            while admin.describe_group(&group).await.expect("described").state != "PreparingRebalance" {
                tokio::time::sleep(POLL).await;
            }
        };
        tokio::time::timeout(WITHIN, rebalancing).await.expect("a rebalance");
        // It hears of the rebalance, and joins.
        for _ in 0..10 {
            first.poll(POLL).await.expect("polled");
        }
        produce(&mut conn, &topic, 6, "meanwhile");
        let read = poll_until("its records", &mut [&mut first], |_, found| found.len() == 3).await;
        assert_eq!(read.len(), 3);
        assert_eq!(admin.describe_group(&group).await.expect("described").state, "PreparingRebalance");
        assert_eq!(partitions(&first), one);

        let members = &mut [&mut first, &mut second];
        // What they give up goes to the third when they have joined once more.
        let thirds = |members: &[&mut GroupConsumer], _: &[String]| counts(members) == [2, 2] && waiting.is_finished();
        let others = poll_until("thirds", members, thirds).await;
        // The second's own; of the partition that it gave up the record may have come to the third.
        let once: BTreeSet<_> = others.iter().collect();
        assert!(once.len() == others.len() && others.iter().all(|value| !read.contains(value)), "{others:?}");
        assert!(partitions(&first).is_subset(&one) && partitions(&second).is_subset(&two), "sticky");
        let third = waiting.await.expect("the third polls on");
        assert!(partitions(&third).is_disjoint(&partitions(&first)));
        for member in [first, second, third] {
            member.close().await.expect("closed");
        }
    });
}

/// A member of ours that is polled by a task.
struct Polled {
    /// Partitions it had at any time since it had some, the intersection of them all.
    kept: Arc<Mutex<Option<BTreeSet<i32>>>>,
    assigned: Arc<Mutex<BTreeSet<i32>>>,
    values: Arc<Mutex<Vec<String>>>,
    stop: tokio::sync::oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Polled {
    fn start(mut member: GroupConsumer) -> Self {
        let (stop, mut stopped) = tokio::sync::oneshot::channel();
        let (kept, assigned, values) = (Arc::default(), Arc::default(), Arc::default());
        let kept_in: Arc<Mutex<Option<BTreeSet<i32>>>> = Arc::clone(&kept);
        let assigned_in: Arc<Mutex<BTreeSet<i32>>> = Arc::clone(&assigned);
        let values_in: Arc<Mutex<Vec<String>>> = Arc::clone(&values);
        let task = tokio::spawn(async move {
            while stopped.try_recv().is_err() {
                let records = member.poll(POLL).await.expect("polled");
                let texts = records.iter().filter_map(|record| record.value.as_deref());
                values_in.lock().unwrap().extend(texts.map(|text| String::from_utf8_lossy(text).into_owned()));
                let now = partitions(&member);
                if !now.is_empty() {
                    let mut kept = kept_in.lock().unwrap();
                    *kept = Some(
                        kept.take().map_or_else(|| now.clone(), |kept| kept.intersection(&now).copied().collect()),
                    );
                }
                *assigned_in.lock().unwrap() = now;
            }
            member.close().await.expect("closed");
        });
        Self { kept, assigned, values, stop, task }
    }

    fn assigned(&self) -> BTreeSet<i32> {
        self.assigned.lock().unwrap().clone()
    }

    /// What it kept without a break since the last call.
    fn kept(&self) -> BTreeSet<i32> {
        self.kept.lock().unwrap().take().unwrap_or_default()
    }

    async fn close(self) {
        let _ = self.stop.send(());
        self.task.await.expect("it ends well");
    }
}

/// The partitions of foreign members.
fn foreign(members: &Members, name: &str) -> BTreeSet<i32> {
    members.assigned(name).iter().filter_map(|p| p.rsplit_once('-')?.1.parse().ok()).collect()
}

/// Waits until these shares are disjoint and of these sizes.
async fn shares(what: &str, sizes: &[usize], shares: impl Fn() -> Vec<BTreeSet<i32>>) {
    let until = Instant::now() + Duration::from_secs(90);
    loop {
        let now = shares();
        let all: BTreeSet<&i32> = now.iter().flatten().collect();
        if now.iter().map(BTreeSet::len).eq(sizes.iter().copied()) && all.len() == sizes.iter().sum::<usize>() {
            return;
        }
        assert!(Instant::now() < until, "{what}: not {sizes:?}: {now:?}");
        tokio::time::sleep(POLL).await;
    }
}

#[test]
fn cooperative_members_of_three_clients_balance_whoever_leads() {
    let test = "cooperative_members_of_three_clients_balance_whoever_leads";
    let server = Server::start(PROPERTIES);
    let bootstrap = server.bootstrap();
    let (Some(mut java), Some(mut native)) =
        (Members::new(test, Kind::Java, &bootstrap), Members::new(test, Kind::Librdkafka, &bootstrap))
    else {
        return;
    };
    let mut conn = server.conn();
    let (topic, group) = (fresh("mixed"), fresh("group"));
    led_topic(&mut conn, &topic, 6);
    let (group_id, topics) = (format!("group.id={group}"), format!("topics={topic}"));
    let common = ["heartbeat.interval.ms=200", "session.timeout.ms=6000", &group_id, &topics];
    let of_java = "partition.assignment.strategy=org.apache.kafka.clients.consumer.CooperativeStickyAssignor";
    let of_native = "partition.assignment.strategy=cooperative-sticky";
    let mut values = produce(&mut conn, &topic, 6, "first");
    run(async {
        // Ours leads: it was there first.
        let ours = Polled::start(member(&server, cooperative(&group, &topic)));
        shares("alone", &[6], || vec![ours.assigned()]).await;
        java.start("j", &[&common[..], &[of_java]].concat());
        shares("with Java", &[3, 3], || vec![ours.assigned(), foreign(&java, "j")]).await;
        native.start("n", &[&common[..], &[of_native]].concat());
        let all = || vec![ours.assigned(), foreign(&java, "j"), foreign(&native, "n")];
        shares("with librdkafka", &[2, 2, 2], all).await;
        assert_eq!(ours.kept(), ours.assigned(), "kept all the time");
        values.extend(produce(&mut conn, &topic, 6, "second"));

        // Then one of the others leads, and ours comes back.
        let first = Arc::clone(&ours.values);
        ours.close().await;
        shares("without ours", &[3, 3], || vec![foreign(&java, "j"), foreign(&native, "n")]).await;
        let ours = Polled::start(member(&server, cooperative(&group, &topic)));
        let all = || vec![ours.assigned(), foreign(&java, "j"), foreign(&native, "n")];
        shares("with ours again", &[2, 2, 2], all).await;
        values.extend(produce(&mut conn, &topic, 6, "third"));
        let read = |polled: &Mutex<Vec<String>>| polled.lock().unwrap().clone();
        let rest = || {
            let own: BTreeSet<_> = [read(&first), read(&ours.values)].concat().into_iter().collect();
            values.difference(&own).cloned().collect::<BTreeSet<_>>()
        };
        let until = Instant::now() + WITHIN;
        while rest().iter().any(|value| {
            value.starts_with("third") && ours.assigned().iter().any(|p| value.ends_with(&format!(":{p}")))
        }) {
            assert!(Instant::now() < until, "ours did not read its own");
            tokio::time::sleep(POLL).await;
        }
        read_all(&[&java, &native], &rest());
        // A commit between two rounds is to be tried again; nothing else goes wrong.
        let mut errors = [java.errors("j"), native.errors("n")].concat();
        errors.retain(|error| !error.contains("RebalanceInProgress") && !error.contains("REBALANCE_IN_PROGRESS"));
        assert!(errors.is_empty(), "{errors:?}");
        ours.close().await;
    });
}

/// Default settings: an eager group, which a member of Java's that would be cooperative joins too.
#[test]
fn eager_members_of_three_clients_balance() {
    let test = "eager_members_of_three_clients_balance";
    let server = Server::start(PROPERTIES);
    let bootstrap = server.bootstrap();
    let Some(mut native) = Members::new(test, Kind::Librdkafka, &bootstrap) else { return };
    let mut conn = server.conn();
    let (topic, group) = (fresh("eager"), fresh("group"));
    led_topic(&mut conn, &topic, 4);
    let (group_id, topics) = (format!("group.id={group}"), format!("topics={topic}"));
    run(async {
        let ours = Polled::start(member(&server, config(&group, &topic, GroupProtocol::Classic)));
        shares("alone", &[4], || vec![ours.assigned()]).await;
        // It names the cooperative assignor alone, which is the last that ours names.
        let strategy = "partition.assignment.strategy=cooperative-sticky";
        native.start("n", &["heartbeat.interval.ms=200", "session.timeout.ms=6000", &group_id, &topics, strategy]);
        shares("with librdkafka", &[2, 2], || vec![ours.assigned(), foreign(&native, "n")]).await;
        ours.close().await;
        shares("without ours", &[4], || vec![foreign(&native, "n")]).await;
    });
}

fn who_does_not_poll_leaves(protocol: GroupProtocol, assignors: &[Assignor]) {
    let server = Server::start(PROPERTIES);
    let mut conn = server.conn();
    let (topic, group) = (fresh("unpolled"), fresh("group"));
    led_topic(&mut conn, &topic, 2);
    let values = produce(&mut conn, &topic, 2, "r");
    run(async {
        let steady = GroupConfig { assignors: assignors.to_vec(), ..config(&group, &topic, protocol) };
        let lazy = GroupConfig { max_poll_interval: Duration::from_millis(1500), auto_commit: None, ..steady.clone() };
        let mut lazy = member(&server, lazy);
        let read = poll_until("all records", &mut [&mut lazy], |_, found| found.len() == 2).await;
        assert_eq!(read.into_iter().collect::<BTreeSet<_>>(), values);
        // The lazy one is not polled any more, and committed nothing.
        let mut other = member(&server, steady);
        let everything = |members: &[&mut GroupConsumer], found: &[String]| counts(members) == [2] && found.len() == 2;
        let read = poll_until("what the other has left", &mut [&mut other], everything).await;
        assert_eq!(read.into_iter().collect::<BTreeSet<_>>(), values);
        let admin = Admin::new(client(&server));
        assert_eq!(admin.describe_group(&group).await.expect("described").members.len(), 1);
        poll_until("both", &mut [&mut lazy, &mut other], |members, _| counts(members) == [1, 1]).await;
        assert!(partitions(&lazy).is_disjoint(&partitions(&other)));
        lazy.close().await.expect("closed");
        other.close().await.expect("closed");
    });
}

#[test]
fn who_does_not_poll_leaves_a_classic_group_until_it_does() {
    who_does_not_poll_leaves(GroupProtocol::Classic, &Assignor::ALL);
}

#[test]
fn who_does_not_poll_leaves_a_cooperative_group_until_it_does() {
    who_does_not_poll_leaves(GroupProtocol::Classic, &[Assignor::CooperativeSticky]);
}

#[test]
fn who_does_not_poll_leaves_a_consumer_group_until_it_does() {
    who_does_not_poll_leaves(GroupProtocol::Consumer, &[]);
}

#[test]
fn who_does_not_poll_leaves_a_share_group_until_it_does() {
    let server = Server::start(PROPERTIES);
    let mut conn = server.conn();
    let (topic, group) = (fresh("unpolled"), fresh("share"));
    led_topic(&mut conn, &topic, 1);
    run(async {
        let config =
            ShareConfig { max_poll_interval: Duration::from_millis(1500), ..ShareConfig::new(&group, [topic.clone()]) };
        let mut member = ShareConsumer::new(client(&server), config);
        let admin = Admin::new(client(&server));
        let until = Instant::now() + WITHIN;
        while member.assigned().next().is_none() {
            assert!(Instant::now() < until, "no assignment");
            member.poll(POLL).await.expect("polled");
        }
        while !admin.describe_group(&group).await.expect("described").members.is_empty() {
            assert!(Instant::now() < until, "it stays");
            tokio::time::sleep(POLL).await;
        }
        // The group begins at the end of the log, and its state stays: what comes now is read.
        produce(&mut conn, &topic, 1, "r");
        let mut read = 0;
        while read == 0 {
            assert!(Instant::now() < until, "it does not come back");
            read = member.poll(POLL).await.expect("polled").len();
        }
        assert_eq!(admin.describe_group(&group).await.expect("described").members.len(), 1);
        member.close().await.expect("closed");
    });
}
