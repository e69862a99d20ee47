//! Typed details of errors: messages that go with a code and a text, on every protocol.

use bytes::Bytes;
use prost::Message;
use tonic::{Code, Status};

/// `google.rpc.Status`: what `Status::details` holds.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RichStatus {
    #[prost(int32, tag = "1")]
    pub(super) code: i32,
    #[prost(string, tag = "2")]
    pub(super) message: String,
    #[prost(message, repeated, tag = "3")]
    pub(super) details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Any {
    #[prost(string, tag = "1")]
    pub(super) type_url: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) value: Bytes,
}

/// An error with a message of the service as its detail, told in the JSON of Connect's errors and in gRPC's
/// `grpc-status-details-bin`. `name` is the message's full one, such as `package.Message`.
pub fn with_detail(code: Code, message: String, name: &str, detail: &impl Message) -> Status {
    let any = Any { type_url: format!("type.googleapis.com/{name}"), value: detail.encode_to_vec().into() };
    let rich = RichStatus { code: code.into(), message: message.clone(), details: vec![any] };
    Status::with_details(code, message, rich.encode_to_vec().into())
}
