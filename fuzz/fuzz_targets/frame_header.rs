//! Whole request frames: a header is read or refused with its correlation id kept, and a body of a known key and version
//! goes through the same check as in the target `request`; a frame is also taken for a response of every key.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use taccola_fuzz::check;
use taccola_wire::api::ApiKey;
use taccola_wire::codec::Request;
use taccola_wire::frame::{HeaderError, correlation_id, decode_request_header, decode_response, encode_request};
use taccola_wire::messages;

fn response<R: Request>(frame: &Bytes) {
    let info = R::KEY.info();
    for version in info.min..=info.unstable_max {
        if let Ok((id, _)) = decode_response::<R>(version, frame.clone()) {
            assert_eq!(Ok(id), correlation_id(frame));
        }
    }
}

fn header_again(frame: &Bytes, key: ApiKey, header: &messages::RequestHeader) {
    if key == ApiKey::Heartbeat {
        let request = messages::HeartbeatRequest::default();
        let version = header.request_api_version;
        let encoded = encode_request(header.correlation_id, header.client_id.as_deref(), version, &request);
        let encoded = encoded.expect("a default heartbeat has an encoding").freeze();
        let (_, again, _) = decode_request_header(encoded.slice(4..)).expect("an encoded header decodes");
        assert_eq!(&again, header);
    }
    assert!(frame.len() >= 10);
}

macro_rules! bodies {
    ($($request:ident $response:ident)*) => {
        fn body(key: ApiKey, version: i16, body: Bytes, frame: &Bytes) {
            $(if key == messages::$request::KEY {
                check::<messages::$request>(body, version);
                return response::<messages::$request>(frame);
            })*
        }
    };
}

taccola_wire::for_each_request!(bodies);

fuzz_target!(|data: &[u8]| {
    let frame = Bytes::copy_from_slice(data);
    match decode_request_header(frame.clone()) {
        Ok((key, header, r)) => {
            assert_eq!(key.code(), header.request_api_key);
            header_again(&frame, key, &header);
            body(key, header.request_api_version, r.rest(), &frame);
        }
        Err(HeaderError::Unsupported { correlation_id, .. }) => {
            assert_eq!(data[4..8], correlation_id.to_be_bytes());
        }
        Err(HeaderError::Malformed(_)) => {}
    }
});
