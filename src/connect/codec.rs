//! Messages to bytes and back.

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use super::{content_type::Codec, error::ProtocolError, json};
use crate::system::buffers::Buffer;

/// A message that can be read from both codecs. Implemented for every prost message with serde.
pub trait Decodable: prost::Message + Default + DeserializeOwned + 'static {}
impl<M: prost::Message + Default + DeserializeOwned + 'static> Decodable for M {}

/// A message that can be written in both codecs. Implemented for every prost message with serde.
pub trait Encodable: prost::Message + Serialize + 'static {}
impl<M: prost::Message + Serialize + 'static> Encodable for M {}

/// Appends the protobuf JSON of a message. A method on a hot path brings its own; all others go through
/// serde. Must write one JSON object and nothing else; on an error what was appended is thrown away.
///
/// # Errors
/// The text says why the message has no JSON form; the client gets it as `internal`, `marshal message: …`.
pub type WriteJson<M> = fn(&M, &mut Buffer) -> Result<(), String>;

/// [`WriteJson`] through serde.
pub(super) fn write_json<M: Serialize>(message: &M, out: &mut Buffer) -> Result<(), String> {
    serde_json::to_writer(out, message).map_err(|error| error.to_string())
}

/// Reads a message.
pub(super) fn decode<M: Decodable>(codec: Codec, payload: Bytes) -> Result<M, ProtocolError> {
    match codec {
        Codec::Json => json::read(&payload).map_err(ProtocolError::Unmarshal),
        Codec::Proto => M::decode(payload).map_err(|error| ProtocolError::Unmarshal(error.to_string())),
    }
}

/// Appends a message to `out`.
pub(super) fn encode<M: Encodable>(
    codec: Codec,
    message: &M,
    write_json: WriteJson<M>,
    out: &mut Buffer,
) -> Result<(), ProtocolError> {
    match codec {
        Codec::Json => write_json(message, out).map_err(ProtocolError::Marshal),
        Codec::Proto => message
            .encode(&mut out.extend(message.encoded_len()))
            .map_err(|error| ProtocolError::Marshal(error.to_string())),
    }
}
