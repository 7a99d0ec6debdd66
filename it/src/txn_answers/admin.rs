//! DescribeTransactions, ListTransactions, DescribeProducers.

use taccola_wire::messages::describe_producers_request::TopicRequest;
use taccola_wire::messages::{
    DescribeProducersRequest, DescribeProducersResponse, DescribeTransactionsRequest, DescribeTransactionsResponse,
    ListTransactionsRequest, ListTransactionsResponse,
};

use super::{Asking, Producer, name};
use crate::server::fresh;

fn described(p: &Producer, response: &DescribeTransactionsResponse) -> String {
    let of = response.transaction_states.iter().map(|txn| {
        let topics = txn.topics.iter().map(|topic| format!("{:?}", topic.partitions));
        let who = p.relative(txn.producer_id, txn.producer_epoch);
        let started = if txn.transaction_start_time_ms > 0 { "started" } else { "not started" };
        let (state, timeout) = (&txn.transaction_state, txn.transaction_timeout_ms);
        let named = if txn.transactional_id == p.id { "itself" } else { "another" };
        let topics = topics.collect::<Vec<_>>().join(" ");
        format!("{named} {} {state} {who} {timeout} {started} {topics}", name(txn.error_code)).trim_end().to_owned()
    });
    of.collect::<Vec<_>>().join("; ")
}

pub(super) fn describe(asking: &mut Asking) {
    let mut p = asking.producer();
    let of = |ids: &[&str]| DescribeTransactionsRequest {
        transactional_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
    };
    let me = of(&[p.id.as_str()]);
    let unchanging = p.clone();
    let show = |response: &DescribeTransactionsResponse| described(&unchanging, response);
    asking.case("before anything", 0, &me, show);
    asking.add(&p, &[1, 0]);
    asking.case("open", 0, &me, show);
    asking.ended(&mut p, 4, true);
    asking.case("committed, version 1", 0, &me, show);
    asking.add(&p, &[1]);
    asking.ended(&mut p, 5, false);
    asking.case("aborted, version 2", 0, &me, show);
    let nobody = fresh("nobody");
    asking.case("unknown, twice, empty", 0, &of(&[&nobody, &p.id, &p.id]), show);
    asking.case("empty", 0, &of(&[""]), show);
    asking.case("nobody", 0, &of(&[]), show);
}

fn listed(ours: &[Producer], response: &ListTransactionsResponse) -> String {
    let mut of: Vec<String> = Vec::new();
    for txn in &response.transaction_states {
        if let Some(at) = ours.iter().position(|p| p.id == txn.transactional_id) {
            let same = if ours[at].producer_id == txn.producer_id { "same" } else { "other" };
            of.push(format!("{at} {} {same}", txn.transaction_state));
        }
    }
    of.sort();
    let unknown = &response.unknown_state_filters;
    format!("{} {unknown:?} {}", name(response.error_code), of.join(", ")).trim_end().to_owned()
}

pub(super) fn list(asking: &mut Asking) {
    let ours = {
        let (fresh, open, mut committed, mut aborted) =
            (asking.producer(), asking.open(), asking.open(), asking.open());
        asking.ended(&mut committed, 4, true);
        asking.ended(&mut aborted, 5, false);
        [fresh, open, committed, aborted]
    };
    for version in 0..=2 {
        let case = |asking: &mut Asking, what: &str, request: ListTransactionsRequest| {
            asking.case(what, version, &request, |response| listed(&ours, response));
        };
        let all = ListTransactionsRequest { duration_filter: -1, ..Default::default() };
        case(asking, "all", all.clone());
        for states in [&["Ongoing"][..], &["Empty", "CompleteAbort"], &["ongoing"], &["Dead"], &["Nonsense", ""]] {
            let state_filters = states.iter().map(|state| (*state).to_owned()).collect();
            case(asking, &format!("{states:?}"), ListTransactionsRequest { state_filters, ..all.clone() });
        }
        let ids = vec![ours[1].producer_id, ours[2].producer_id, -1];
        case(asking, "by producer", ListTransactionsRequest { producer_id_filters: ids, ..all.clone() });
        if version >= 1 {
            for duration_filter in [0, i64::MAX, -7] {
                let what = format!("open for {duration_filter}");
                case(asking, &what, ListTransactionsRequest { duration_filter, ..all.clone() });
            }
        }
        if version >= 2 {
            let exact = ours[0].id.replace('.', "\\.");
            for (what, pattern) in [("exact", exact.as_str()), ("a part", "txn"), ("none", ""), ("bad", "(")] {
                let transactional_id_pattern = Some(pattern.to_owned());
                let request = ListTransactionsRequest { transactional_id_pattern, ..all.clone() };
                case(asking, &format!("pattern, {what}"), request);
            }
        }
    }
}

fn producers(p: &Producer, response: &DescribeProducersResponse) -> String {
    let rows = response.topics.iter().flat_map(|topic| &topic.partitions).map(|partition| {
        let mut of: Vec<String> = Vec::new();
        for row in partition.active_producers.iter().filter(|row| row.producer_id == p.producer_id) {
            let (epoch, sequence, coordinator) = (row.producer_epoch, row.last_sequence, row.coordinator_epoch);
            let open = if row.current_txn_start_offset >= 0 { "open" } else { "closed" };
            of.push(format!(
                "epoch {:+} sequence {sequence} coordinator {coordinator} {open}",
                epoch - i32::from(p.epoch)
            ));
        }
        let (index, code) = (partition.partition_index, name(partition.error_code));
        format!("{index} {code} {}", of.join(", ")).trim_end().to_owned()
    });
    let mut rows: Vec<String> = rows.collect();
    rows.sort();
    rows.join("; ")
}

pub(super) fn describe_producers(asking: &mut Asking) {
    let mut p = asking.open();
    let unchanging = p.clone();
    let show = |response: &DescribeProducersResponse| producers(&unchanging, response);
    let of = |topic: &str, partition_indexes: &[i32]| DescribeProducersRequest {
        topics: vec![TopicRequest { name: topic.to_owned(), partition_indexes: partition_indexes.to_vec() }],
    };
    let ours = of(&asking.topic, &[0, 1]);
    asking.case("before anything", 0, &ours, show);
    asking.produced(&p, 11, 0, 0);
    asking.case("open", 0, &ours, show);
    asking.ended(&mut p, 4, true);
    asking.case("committed, version 1", 0, &ours, show);
    asking.produced(&p, 12, 1, 0);
    asking.case("open, version 2", 0, &ours, show);
    asking.ended(&mut p, 5, false);
    asking.case("aborted, version 2", 0, &ours, show);
    let unknown = of(&asking.topic, &[7]);
    asking.case("unknown partition", 0, &unknown, show);
    asking.case("unknown topic", 0, &of(&fresh("missing"), &[0]), show);
}
