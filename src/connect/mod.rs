//! The Connect protocol over HTTP/1.1 and HTTP/2 for any `tonic` service.
//!
//! Owns the wire: content types, envelopes, compression, time limits, errors. Knows no service: a [`Router`]
//! maps paths to handlers with the signatures of the methods that `tonic` generates, so one implementation of
//! a service trait answers gRPC and Connect.
//!
//! ```
//! # #[derive(Clone, PartialEq, prost::Message, serde::Serialize, serde::Deserialize)]
//! # #[serde(default)]
//! # struct Ping { #[prost(string, tag = "1")] text: String }
//! # struct Echo;
//! # impl Echo {
//! #     async fn ping(&self, r: tonic::Request<Ping>) -> Result<tonic::Response<Ping>, tonic::Status> {
//! #         Ok(tonic::Response::new(r.into_inner()))
//! #     }
//! # }
//! use envd::connect::Router;
//!
//! let router = Router::new().service("example.Echo", Echo, |methods| {
//!     methods.unary("Ping", |echo, request| async move { echo.ping(request).await })
//! });
//! assert!(router.has("/example.Echo/Ping"));
//! ```
//!
//! The protocol is specified at <https://connectrpc.com/docs/protocol>.

mod call;
mod codec;
mod compression;
mod content_type;
mod detail;
mod error;
mod error_wire;
mod frame;
mod input;
mod json;
mod methods;
mod output;
mod router;
mod stream;
mod timeout;
mod unary;

pub use self::{
    codec::{Decodable, Encodable, WriteJson},
    detail::with_detail,
    error::ProtocolError,
    error_wire::{RequestHead, error_response},
    methods::Methods,
    router::{DEFAULT_MAX_MESSAGE_BYTES, Router},
    timeout::Deadline,
};

/// Trailing metadata of a successful response. A handler puts it into the extensions of its
/// `tonic::Response`; unary calls send it as `trailer-` headers, streams in the end-of-stream frame.
/// (Trailers of a failed call are the metadata of its `tonic::Status`.)
#[derive(Clone, Debug, Default)]
pub struct Trailers(pub tonic::metadata::MetadataMap);
