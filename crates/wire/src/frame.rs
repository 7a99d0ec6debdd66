//! Frames: a header and a body behind a size of four bytes. What a broker and a client need at the two ends of a connection.
//!
//! The key and version of a request are looked up before anything behind them is read, because they decide how the rest of
//! the header looks; a request that names an unknown one keeps its correlation id, so that it can be answered.
//!
//! Answers to `RequestHeader.parse`, `RequestContext.buildResponseSend` and `AbstractResponse.parseResponse`.

use bytes::{Bytes, BytesMut};

use crate::api::ApiKey;
use crate::codec::{DecodeError, EncodeError, Message, Reader, Request, Writer};
use crate::error::ErrorCode;
use crate::messages::{RequestHeader, ResponseHeader};

/// Bytes of the size in front of a frame; it does not count itself.
pub const SIZE_BYTES: usize = 4;

/// Why a frame is not a request that can be dispatched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Not even the fixed part is there, or the rest of the header is damaged.
    #[error("request header: {0}")]
    Malformed(#[from] DecodeError),
    /// The key or its version is unknown; what stands behind the correlation id has not been read.
    #[error("API key {api_key} has no version {version}")]
    Unsupported { api_key: i16, version: i16, correlation_id: i32 },
}

/// Reads a request's header out of a frame (without the size) and leaves the reader at the body.
pub fn decode_request_header(frame: Bytes) -> Result<(ApiKey, RequestHeader, Reader), HeaderError> {
    let mut r = Reader::new(frame);
    let start = r.clone();
    let (api_key, version, correlation_id) = (r.i16()?, r.i16()?, r.i32()?);
    let key = ApiKey::from_code(api_key).filter(|key| key.info().supports(version));
    let Some(key) = key else { return Err(HeaderError::Unsupported { api_key, version, correlation_id }) };
    let mut r = start;
    let header = RequestHeader::read(&mut r, key.info().request_header_version(version))?;
    Ok((key, header, r))
}

/// A response with its header and size.
pub fn encode_response(
    correlation_id: i32,
    key: ApiKey,
    version: i16,
    response: &impl Message,
) -> Result<BytesMut, EncodeError> {
    Ok(response_writer(Writer::new(), correlation_id, key, version, response)?.into_bytes())
}

/// As [`encode_response`], for `writev`: large record sets are passed on as they are, without a copy.
pub fn encode_response_chunks(
    correlation_id: i32,
    key: ApiKey,
    version: i16,
    response: &impl Message,
) -> Result<Vec<Bytes>, EncodeError> {
    Ok(response_writer(Writer::vectored(), correlation_id, key, version, response)?.into_chunks())
}

fn response_writer(
    mut w: Writer,
    correlation_id: i32,
    key: ApiKey,
    version: i16,
    response: &impl Message,
) -> Result<Writer, EncodeError> {
    w.i32(0);
    ResponseHeader { correlation_id }.write(&mut w, key.info().response_header_version(version))?;
    response.write(&mut w, version)?;
    close(w)
}

/// A request with its header and size.
pub fn encode_request<R: Request>(
    correlation_id: i32,
    client_id: Option<&str>,
    version: i16,
    request: &R,
) -> Result<BytesMut, EncodeError> {
    let mut w = Writer::new();
    w.i32(0);
    let header = RequestHeader {
        request_api_key: R::KEY.code(),
        request_api_version: version,
        correlation_id,
        client_id: client_id.map(str::to_owned),
    };
    header.write(&mut w, R::KEY.info().request_header_version(version))?;
    request.write(&mut w, version)?;
    Ok(close(w)?.into_bytes())
}

/// Writes the size into its place.
fn close(mut w: Writer) -> Result<Writer, EncodeError> {
    let length = w.len() - SIZE_BYTES;
    w.patch_i32(0, i32::try_from(length).map_err(|_| EncodeError::TooLong { length })?);
    Ok(w)
}

/// The correlation id of a response's frame (without the size), which stands first in every header version.
pub fn correlation_id(frame: &Bytes) -> Result<i32, DecodeError> {
    Reader::new(frame.clone()).i32()
}

/// Reads a response's header and body, which must fill the frame. A broker that does not know the version of an ApiVersions
/// request answers with a body of version 0 and UNSUPPORTED_VERSION (KIP-511).
pub fn decode_response<R: Request>(version: i16, frame: Bytes) -> Result<(i32, R::Response), DecodeError> {
    let mut r = Reader::new(frame);
    let header = ResponseHeader::read(&mut r, R::KEY.info().response_header_version(version))?;
    let mut body_version = version;
    if R::KEY == ApiKey::ApiVersions && r.clone().i16()? == ErrorCode::UnsupportedVersion.code() {
        body_version = 0;
    }
    let response = R::Response::read(&mut r, body_version)?;
    r.finish()?;
    Ok((header.correlation_id, response))
}

/// A structure's encoding as a byte string: the version in two bytes, then the fields. This is the form of the consumer
/// protocol and of the coordinators' record values. (The coordinators' record keys begin with the key's `API_KEY` instead,
/// and their fields are always those of version 0.)
pub fn encode_versioned<T: Message>(version: i16, value: &T) -> Result<Bytes, EncodeError> {
    let mut w = Writer::new();
    w.i16(version);
    value.write(&mut w, version)?;
    Ok(w.into_bytes().freeze())
}

/// The reverse of [`encode_versioned`]: the version found and the value. Versions above those known are read as the highest
/// known one if `T` is read leniently, as the consumer protocol wants; bytes may then be left over.
pub fn decode_versioned<T: Message>(bytes: Bytes, lenient: bool) -> Result<(i16, T), DecodeError> {
    let mut r = Reader::new(bytes);
    let version = r.i16()?;
    if lenient && version > T::MAX_VERSION {
        return Ok((version, T::read_fields(&mut r, T::MAX_VERSION)?));
    }
    Ok((version, T::read(&mut r, version)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
    use crate::messages::{
        ApiVersionsRequest, ApiVersionsResponse, ConsumerProtocolAssignment, FetchResponse, MetadataRequest,
        ProduceRequest, ProduceResponse, fetch_response,
    };

    fn body(frame: BytesMut) -> Bytes {
        let mut r = Reader::new(frame.freeze());
        let size = r.i32().unwrap();
        assert_eq!(size as usize, r.remaining());
        r.rest()
    }

    #[test]
    fn requests_come_back() {
        for version in ProduceRequest::MIN_VERSION..=ProduceRequest::MAX_VERSION {
            let request = ProduceRequest { acks: -1, timeout_ms: 7, ..ProduceRequest::default() };
            let frame = body(encode_request(5, Some("me"), version, &request).unwrap());
            let (key, header, mut r) = decode_request_header(frame).unwrap();
            assert_eq!((key, header.correlation_id, header.request_api_version), (ApiKey::Produce, 5, version));
            assert_eq!(header.client_id.as_deref(), Some("me"));
            assert_eq!(ProduceRequest::read(&mut r, version), Ok(request));
            assert_eq!(r.finish(), Ok(()));
        }
    }

    #[test]
    fn unknown_keys_and_versions_keep_their_correlation_id() {
        for (api_key, version) in [(3i16, 99i16), (999, 0), (-1, 0), (3, -1), (18, 5), (0, 2), (4, 0), (7, 0)] {
            let mut w = Writer::new();
            w.i16(api_key);
            w.i16(version);
            w.i32(77);
            w.raw(&[0xff; 3]);
            let error = decode_request_header(w.into_bytes().freeze()).map(|_| ()).unwrap_err();
            assert_eq!(error, HeaderError::Unsupported { api_key, version, correlation_id: 77 });
        }
        let cut = decode_request_header(Bytes::from_static(&[0, 3, 0, 9, 0, 0, 0])).map(|_| ());
        assert!(matches!(cut, Err(HeaderError::Malformed(DecodeError::Truncated { .. }))));
    }

    #[test]
    fn responses_of_api_versions_have_no_tagged_header() {
        for version in 0..=4 {
            let frame = encode_response(9, ApiKey::ApiVersions, version, &ApiVersionsResponse::default()).unwrap();
            assert_eq!(&frame[4..10], [0, 0, 0, 9, 0, 0], "the error code follows the correlation id");
            let (id, response) = decode_response::<ApiVersionsRequest>(version, body(frame)).unwrap();
            assert_eq!((id, response), (9, ApiVersionsResponse::default()));
        }
        let flexible = encode_response(9, ApiKey::Produce, 9, &ProduceResponse::default()).unwrap();
        assert_eq!(&flexible[4..9], [0, 0, 0, 9, 0], "a flexible header ends with its tagged fields");
    }

    #[test]
    fn an_unknown_version_of_api_versions_is_answered_in_version_0() {
        let refusal = ApiVersionsResponse { error_code: 35, ..ApiVersionsResponse::default() };
        let frame = body(encode_response(1, ApiKey::ApiVersions, 0, &refusal).unwrap());
        assert_eq!(decode_response::<ApiVersionsRequest>(4, frame), Ok((1, refusal)));
    }

    #[test]
    fn chunks_are_the_same_bytes() {
        let records = Bytes::from(vec![7; 3000]);
        let partition = |n| fetch_response::PartitionData {
            partition_index: n,
            records: (n > 0).then(|| records.slice(..1000 * n as usize)),
            ..fetch_response::PartitionData::default()
        };
        let topic = fetch_response::FetchableTopicResponse {
            partitions: (0..4).rev().map(partition).collect(),
            ..fetch_response::FetchableTopicResponse::default()
        };
        let response = FetchResponse { responses: vec![topic], ..FetchResponse::default() };
        for version in [4, 11, 12, 18] {
            let whole = encode_response(1, ApiKey::Fetch, version, &response).unwrap();
            let chunks = encode_response_chunks(1, ApiKey::Fetch, version, &response).unwrap();
            // Only the record set above the threshold stands alone.
            assert_eq!(chunks.len(), 3, "head, record set, tail");
            assert_eq!(chunks.concat(), whole);
            assert_eq!(chunks[1].as_ptr(), records.as_ptr());
        }
    }

    #[test]
    fn values_that_a_version_cannot_carry_are_refused() {
        let request = MetadataRequest { topics: None, ..MetadataRequest::default() };
        assert_eq!(
            encode_request(1, None, 0, &request),
            Err(EncodeError::Null { field: "MetadataRequest.topics", version: 0 })
        );
        let request = MetadataRequest { allow_auto_topic_creation: false, ..MetadataRequest::default() };
        assert_eq!(
            encode_request(1, None, 3, &request),
            Err(EncodeError::NotInVersion { field: "MetadataRequest.allow_auto_topic_creation", version: 3 })
        );
        // A field that Kafka calls ignorable is left out in silence.
        let partition = PartitionProduceResponse { log_start_offset: 5, ..PartitionProduceResponse::default() };
        let topic = TopicProduceResponse { partition_responses: vec![partition], ..TopicProduceResponse::default() };
        let response = ProduceResponse { responses: vec![topic], ..ProduceResponse::default() };
        assert!(encode_response(1, ApiKey::Produce, 3, &response).is_ok());
        assert!(encode_response(1, ApiKey::Produce, 14, &response).is_err());
    }

    #[test]
    fn versioned_bytes() {
        let value = ConsumerProtocolAssignment::default();
        let bytes = encode_versioned(1, &value).unwrap();
        assert_eq!(decode_versioned(bytes.clone(), false), Ok((1, value.clone())));
        let mut newer = BytesMut::from(&bytes[..]);
        newer[1] = 9;
        newer.extend_from_slice(b"more");
        assert_eq!(decode_versioned(newer.clone().freeze(), true), Ok((9, value)));
        assert!(decode_versioned::<ConsumerProtocolAssignment>(newer.freeze(), false).is_err());
    }
}
