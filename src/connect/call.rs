//! One call on its way in: the request head, checked.

use std::borrow::Cow;

use http::{
    HeaderMap, HeaderName,
    header::{ACCEPT_ENCODING, CONTENT_ENCODING},
    request::Parts,
};
use tokio::time::Instant;
use tonic::metadata::MetadataMap;

use super::{
    compression::{Encoding, Encodings, negotiate},
    content_type::{Codec, ContentType},
    error::ProtocolError,
    error_wire::GZIP_VALUE,
    timeout::Deadline,
};
use crate::Body;

/// The encoding of enveloped messages.
pub(super) const STREAM_ENCODING: HeaderName = HeaderName::from_static("connect-content-encoding");
/// The encodings that the peer understands in enveloped messages.
pub(super) const ACCEPT_STREAM_ENCODING: HeaderName = HeaderName::from_static("connect-accept-encoding");
const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("connect-protocol-version");

/// A header as text; `None` if it is absent or empty.
pub(super) fn header_text(headers: &HeaderMap, name: impl http::header::AsHeaderName) -> Option<Cow<'_, str>> {
    headers.get(name).filter(|value| !value.is_empty()).map(|value| String::from_utf8_lossy(value.as_bytes()))
}

/// A request that found its method.
pub(super) struct Call {
    pub(super) parts: Parts,
    pub(super) body: Body,
    pub(super) content_type: ContentType,
    pub(super) max_message_bytes: usize,
    pub(super) arrived: Instant,
}

/// A call whose head is in order.
pub(super) struct Opened {
    pub(super) body: Body,
    pub(super) codec: Codec,
    pub(super) request_encoding: Encoding,
    pub(super) max_message_bytes: usize,
    pub(super) deadline: Option<Deadline>,
    pub(super) metadata: MetadataMap,
    pub(super) extensions: http::Extensions,
}

impl Call {
    /// Checks the head. The response's encoding is known even when the rest is not in order.
    pub(super) fn open(self) -> (Encoding, Result<Opened, ProtocolError>) {
        let headers = &self.parts.headers;
        let (sent, accepted) = if self.content_type.streaming {
            (header_text(headers, STREAM_ENCODING), header_text(headers, ACCEPT_STREAM_ENCODING))
        } else {
            (header_text(headers, CONTENT_ENCODING), header_text(headers, ACCEPT_ENCODING))
        };
        match negotiate(sent.as_deref(), accepted.as_deref()) {
            Ok(encodings) => (encodings.response, self.check(encodings)),
            Err(error) => (Encoding::Identity, Err(error)),
        }
    }

    fn check(mut self, encodings: Encodings) -> Result<Opened, ProtocolError> {
        if let Some(version) = header_text(&self.parts.headers, PROTOCOL_VERSION)
            && version != "1"
        {
            return Err(ProtocolError::ProtocolVersion(version.into_owned()));
        }
        let deadline = Deadline::of(&self.parts.headers, self.arrived)?;
        if let Some(deadline) = deadline {
            self.parts.extensions.insert(deadline);
        }
        Ok(Opened {
            body: self.body,
            codec: self.content_type.codec,
            request_encoding: encodings.request,
            max_message_bytes: self.max_message_bytes,
            deadline,
            metadata: MetadataMap::from_headers(self.parts.headers),
            extensions: self.parts.extensions,
        })
    }
}

/// The headers of every enveloped response besides its content type.
pub(super) fn stream_headers(headers: &mut HeaderMap, encoding: Encoding) {
    headers.insert(ACCEPT_STREAM_ENCODING, GZIP_VALUE);
    if encoding == Encoding::Gzip {
        headers.insert(STREAM_ENCODING, GZIP_VALUE);
    }
}
