//! Steps of a transaction that must succeed, one request after another.

use taccola_wire::codec::Request;
use taccola_wire::error::ErrorCode;
use taccola_wire::messages::{AddPartitionsToTxnResponse, EndTxnResponse, FindCoordinatorRequest};

use crate::conn::Conn;
use crate::eventually;
use crate::load::Place;
use crate::txn::{ADD, INIT, Identity, Version};

/// Asks until nobody is in the way.
pub fn settled<R: Request>(
    conn: &mut Conn,
    request: &R,
    version: i16,
    code: impl Fn(&R::Response) -> i16,
) -> R::Response {
    let waits =
        |code| matches!(ErrorCode::from_code(code), ErrorCode::ConcurrentTransactions) || code == 14 || code == 16;
    eventually("the end of the last transaction", || {
        let response = conn.ask(request, version);
        (!waits(code(&response))).then_some(response)
    })
}

/// A producer under its first epoch.
pub fn producer(conn: &mut Conn, id: &str, version: Version) -> Identity {
    let find = FindCoordinatorRequest { key_type: 1, coordinator_keys: vec![id.to_owned()], ..Default::default() };
    eventually("a coordinator", || (conn.ask(&find, 4).coordinators[0].error_code == 0).then_some(()));
    let mut identity = Identity::new(id, version);
    let response = settled(conn, &identity.init(), INIT, |response| response.error_code);
    assert_eq!(response.error_code, 0);
    identity.is_now(response.producer_id, response.producer_epoch);
    identity
}

/// One record in the transaction.
pub fn produce(conn: &mut Conn, p: &mut Identity, place: &Place, value: &'static str) {
    if p.version == Version::One {
        let code = |r: &AddPartitionsToTxnResponse| {
            r.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code
        };
        let added = settled(conn, &p.add(&[place.clone()].into()), ADD, code);
        assert_eq!(code(&added), 0);
    }
    let records = [(place.clone(), vec![("k".into(), value.into())])].into();
    let response =
        settled(conn, &p.produce(&records), p.version.produce(), |r| r.responses[0].partition_responses[0].error_code);
    assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
    p.sent(place, 1);
}

/// Takes over the epoch that an end gives.
pub fn ended(p: &mut Identity, response: &EndTxnResponse) {
    assert_eq!(ErrorCode::from_code(response.error_code), ErrorCode::None);
    if p.version == Version::Two {
        p.is_now(response.producer_id, response.producer_epoch);
    }
}
