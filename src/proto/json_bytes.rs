//! Bytes in protobuf JSON: base64, decoded with the processor's wide registers into a buffer that is used again.
//!
//! The [JSON mapping](https://protobuf.dev/programming-guides/json/) asks for the standard alphabet with padding, and
//! allows the URL-safe one and text without padding. What clients nearly always send is read here, everything else
//! by `pbjson`.

use std::fmt;

use base64_simd::{Out, STANDARD};
use bytes::Bytes;
use pbjson::private::BytesDeserialize;
use serde::de::{self, Deserialize, Deserializer, Visitor, value::StrDeserializer};

use crate::system::buffers::{Buffer, CHUNK_BYTES, CHUNKS};

/// Bytes as clients send them.
#[derive(Debug)]
pub struct Base64(pub Bytes);

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Base64Visitor).map(Self)
    }
}

struct Base64Visitor;

impl Visitor<'_> for Base64Visitor {
    type Value = Bytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a base64 string")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Bytes, E> {
        if let Some(bytes) = decode(text.as_bytes()) {
            return Ok(bytes);
        }
        BytesDeserialize::<Vec<u8>>::deserialize(StrDeserializer::new(text)).map(|bytes| bytes.0.into())
    }
}

/// What the text stands for if it is in the standard alphabet, with padding.
fn decode(text: &[u8]) -> Option<Bytes> {
    let length = STANDARD.decoded_length(text).ok()?;
    let mut buffer = if length > CHUNK_BYTES { Buffer::new() } else { CHUNKS.take() };
    STANDARD.decode(text, Out::from_slice(buffer.extend(length))).ok()?;
    Some(buffer.freeze())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Bytes, serde_json::Error> {
        serde_json::from_str::<Base64>(text).map(|base64| base64.0)
    }

    #[test]
    fn every_length_and_every_byte_comes_back() {
        for length in [0, 1, 2, 3, 100, 24 * 1024, 64 * 1024, 64 * 1024 + 1, 300_000] {
            let bytes: Vec<u8> = (0..length).map(|index: usize| index.to_le_bytes()[index % 3]).collect();
            let text = format!("\"{}\"", STANDARD.encode_to_string(&bytes));
            assert_eq!(read(&text).unwrap(), bytes);
        }
    }

    #[test]
    fn both_alphabets_are_read_with_and_without_padding_and_escapes() {
        let bytes: &[u8] = &[0xfb, 0xff, 0xfe, 0x01];
        for text in [r#""+//+AQ==""#, r#""+//+AQ""#, r#""-__-AQ==""#, r#""-__-AQ""#, r#""+\/\/+AQ\u003d=""#] {
            assert_eq!(read(text).unwrap(), bytes, "{text}");
        }
    }

    #[test]
    fn what_pbjson_refuses_is_refused_with_its_words() {
        for text in
            [r#""A""#, r#""AB=C""#, r#""A===""#, r#""AAAA ""#, r#""AAAA\n""#, r#""AB==""#, r#""Ä""#, "1", "null", "[]"]
        {
            let ours = read(text).unwrap_err().to_string();
            let theirs = serde_json::from_str::<BytesDeserialize<Vec<u8>>>(text).unwrap_err().to_string();
            assert_eq!(ours, theirs, "{text}");
        }
    }
}
