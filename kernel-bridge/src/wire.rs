//! The Jupyter wire format: frames, signatures, and decoding that forgives what kernels get wrong.

use std::{borrow::Cow, time::SystemTime};

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Map, Value, json};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use uuid::Uuid;
use zeromq::ZmqMessage;

use crate::date::iso8601;

/// Separates routing frames (or the iopub topic) from the message.
const DELIMITER: &[u8] = b"<IDS|MSG>";

/// The version of the messaging protocol that requests claim.
const PROTOCOL_VERSION: &str = "5.3";

/// Why a multipart message is not one of ours.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    /// No `<IDS|MSG>` frame, or fewer than five frames behind it.
    #[error("the message has too few frames")]
    Incomplete,
    /// The signature does not fit the key and the frames.
    #[error("the signature does not fit")]
    BadSignature,
    /// The header is not a JSON object with a type.
    #[error("the header is not a JSON object with msg_type")]
    BadHeader,
}

/// Signs and checks messages of one kernel.
#[derive(Clone)]
pub(crate) struct Signer {
    mac: Option<Hmac<Sha256>>,
}

impl Signer {
    /// A signer for the key of a connection file; an empty key switches signatures off.
    pub(crate) fn new(key: &str) -> Self {
        let mac = if key.is_empty() { None } else { Hmac::new_from_slice(key.as_bytes()).ok() };
        Self { mac }
    }

    /// The hexadecimal signature over the four JSON frames as they are on the wire.
    fn sign(&self, frames: &[Bytes]) -> String {
        let Some(mut mac) = self.mac.clone() else { return String::new() };
        for frame in frames {
            mac.update(frame);
        }
        let digest = mac.finalize().into_bytes();
        digest.iter().fold(String::with_capacity(64), |mut text, byte| {
            text.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
            text.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
            text
        })
    }

    fn verify(&self, signature: &[u8], frames: &[Bytes]) -> bool {
        self.mac.is_none() || bool::from(self.sign(frames).as_bytes().ct_eq(signature))
    }
}

/// A received message. The content stays raw until somebody asks for it: most foreign messages are dropped
/// by their parent alone.
#[derive(Debug)]
pub(crate) struct Message {
    /// `msg_type` of the header.
    pub(crate) kind: String,
    /// `date` of the header, where there is one.
    pub(crate) date: Option<String>,
    /// `msg_id` of the parent header, where there is one.
    pub(crate) parent: Option<String>,
    /// The content frame.
    pub(crate) content: Bytes,
}

impl Message {
    /// Checks and takes apart a multipart message. Frames in front of the delimiter (identities, a topic, or
    /// nothing at all) and binary buffers behind the content are dropped.
    pub(crate) fn parse(multipart: ZmqMessage, signer: &Signer) -> Result<Self, WireError> {
        let mut frames = multipart.into_vec();
        let delimiter = frames.iter().position(|frame| frame.as_ref() == DELIMITER).ok_or(WireError::Incomplete)?;
        frames.drain(..=delimiter);
        let [signature, signed @ ..] = frames.as_slice() else { return Err(WireError::Incomplete) };
        let [header, parent, _metadata, content, ..] = signed else { return Err(WireError::Incomplete) };
        if !signer.verify(signature, signed.get(..4).unwrap_or_default()) {
            return Err(WireError::BadSignature);
        }
        let header = parse_json(header).map_err(|_| WireError::BadHeader)?;
        let text = |key: &str| header.get(key).and_then(Value::as_str).map(str::to_owned);
        let kind = text("msg_type").ok_or(WireError::BadHeader)?;
        let parent = parse_json(parent).ok();
        let parent = parent.as_ref().and_then(|parent| parent.get("msg_id")?.as_str().map(str::to_owned));
        Ok(Self { kind, date: text("date"), parent, content: content.clone() })
    }

    /// The content as JSON.
    pub(crate) fn content(&self) -> Result<Value, serde_json::Error> {
        parse_json(&self.content)
    }
}

/// A request to send: its id and its frames.
pub(crate) struct Request {
    /// `msg_id`, by which answers are recognised.
    pub(crate) id: String,
    content: Value,
    kind: &'static str,
    metadata: Value,
}

impl Request {
    /// A request of any type with an id that was never used before.
    pub(crate) fn new(kind: &'static str, content: Value) -> Self {
        Self { id: Uuid::new_v4().to_string(), content, kind, metadata: Value::Object(Map::new()) }
    }

    /// A cell of the user, or a silent one that leaves no trace in history and counters.
    pub(crate) fn execute(code: &str, silent: bool) -> Self {
        // `stop_on_error` is off because a kernel would otherwise refuse the cell behind a failed or
        // interrupted one; one cell at a time is sent anyway.
        let mut request = Self::new(
            "execute_request",
            json!({
                "code": code,
                "silent": silent,
                "store_history": !silent,
                "user_expressions": {},
                "allow_stdin": false,
                "stop_on_error": false,
            }),
        );
        request.metadata =
            json!({"trusted": true, "deletedCells": [], "recordTiming": false, "cellId": Uuid::new_v4().to_string()});
        request
    }

    /// The multipart message.
    pub(crate) fn frames(&self, session: &str, signer: &Signer) -> ZmqMessage {
        let header = json!({
            "msg_id": self.id,
            "session": session,
            "username": "envd",
            "date": iso8601(SystemTime::now()),
            "msg_type": self.kind,
            "version": PROTOCOL_VERSION,
        });
        let signed = [
            Bytes::from(header.to_string()),
            Bytes::from_static(b"{}"),
            Bytes::from(self.metadata.to_string()),
            Bytes::from(self.content.to_string()),
        ];
        let mut message = ZmqMessage::from(Bytes::from_static(DELIMITER));
        message.push_back(Bytes::from(signer.sign(&signed)));
        for frame in signed {
            message.push_back(frame);
        }
        message
    }
}

/// Parses JSON as kernels write it: invalid UTF-8 and lone surrogates become U+FFFD instead of an error.
pub(crate) fn parse_json(raw: &[u8]) -> Result<Value, serde_json::Error> {
    match serde_json::from_slice(raw) {
        Ok(value) => Ok(value),
        Err(error) => {
            let text = String::from_utf8_lossy(raw);
            let repaired = replace_lone_surrogates(&text);
            if matches!((&text, &repaired), (Cow::Borrowed(_), Cow::Borrowed(_))) {
                return Err(error);
            }
            serde_json::from_str(&repaired)
        }
    }
}

/// Replaces `\uD800`…`\uDFFF` escapes that have no partner. Works on valid and on broken JSON alike, because
/// a backslash only ever starts an escape inside a string.
fn replace_lone_surrogates(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let unit_at = |index: usize| -> Option<u16> {
        let escape = bytes.get(index..index + 6)?;
        let digits = escape.strip_prefix(b"\\u")?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let mut lone = Vec::new();
    let mut index = 0;
    while let Some(found) = bytes.get(index..).and_then(|rest| rest.iter().position(|byte| *byte == b'\\')) {
        index += found;
        match unit_at(index) {
            Some(0xD800..=0xDBFF) if matches!(unit_at(index + 6), Some(0xDC00..=0xDFFF)) => index += 12,
            Some(0xD800..=0xDFFF) => {
                lone.push(index);
                index += 6;
            }
            Some(_) => index += 6,
            None => index += 2,
        }
    }
    if lone.is_empty() {
        return Cow::Borrowed(text);
    }
    let mut repaired = String::with_capacity(text.len());
    let mut copied = 0;
    for index in lone {
        repaired.push_str(text.get(copied..index).unwrap_or_default());
        repaired.push('\u{FFFD}');
        copied = index + 6;
    }
    repaired.push_str(text.get(copied..).unwrap_or_default());
    Cow::Owned(repaired)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed expectation is the test's failure")]
mod tests {
    use super::*;

    fn multipart(signer: &Signer, prefix: &[&'static [u8]], content: &'static [u8]) -> ZmqMessage {
        let signed = [
            Bytes::from_static(br#"{"msg_type":"stream","msg_id":"a"}"#),
            Bytes::from_static(br#"{"msg_id":"parent"}"#),
            Bytes::from_static(b"{}"),
            Bytes::from_static(content),
        ];
        let mut frames: Vec<Bytes> = prefix.iter().map(|frame| Bytes::from_static(frame)).collect();
        frames.push(Bytes::from_static(DELIMITER));
        frames.push(Bytes::from(signer.sign(&signed)));
        frames.extend(signed);
        frames.push(Bytes::from_static(b"\x00buffer"));
        ZmqMessage::try_from(frames).expect("frames")
    }

    #[test]
    fn signature_is_hmac_sha256_of_the_joined_frames() {
        // RFC 4231, test case 2, cut into frames.
        let frames = [Bytes::from_static(b"what do ya "), Bytes::from_static(b"want for nothing?")];
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(Signer::new("Jefe").sign(&frames), expected);
    }

    #[test]
    fn a_message_is_read_with_topic_without_topic_and_with_buffers() {
        let signer = Signer::new("key");
        for prefix in [&[b"kernel.1.stream".as_slice()][..], &[], &[b"a".as_slice(), b"b".as_slice()]] {
            let message = Message::parse(multipart(&signer, prefix, b"{}"), &signer).expect("message");
            assert_eq!((message.kind.as_str(), message.parent.as_deref()), ("stream", Some("parent")));
            assert_eq!(message.date, None);
        }
    }

    #[test]
    fn a_message_signed_with_another_key_is_refused() {
        let message = multipart(&Signer::new("other"), &[], b"{}");
        assert!(matches!(Message::parse(message, &Signer::new("key")), Err(WireError::BadSignature)));
    }

    #[test]
    fn truncated_messages_are_refused() {
        let signer = Signer::new("");
        let mut frames = multipart(&signer, &[], b"{}").into_vec();
        while frames.len() > 1 {
            frames.pop();
            if frames.len() > 5 {
                continue;
            }
            let message = ZmqMessage::try_from(frames.clone()).expect("frames");
            assert!(matches!(Message::parse(message, &signer), Err(WireError::Incomplete)));
        }
    }

    #[test]
    fn invalid_utf8_is_signed_raw_and_read_lossily() {
        let signer = Signer::new("key");
        let message = Message::parse(multipart(&signer, &[], b"{\"text\":\"a\xffb\"}"), &signer).expect("message");
        assert_eq!(message.content().expect("content"), json!({"text": "a\u{FFFD}b"}));
    }

    #[test]
    fn lone_surrogates_become_replacement_characters_and_pairs_stay() {
        let raw = br#"{"a":"\ud83d\ude00 \ud800 x\udc00 \\ud800 \ud800\u0041"}"#;
        let expected = json!({"a": "\u{1F600} \u{FFFD} x\u{FFFD} \\ud800 \u{FFFD}A"});
        assert_eq!(parse_json(raw).expect("json"), expected);
    }

    #[test]
    fn json_that_is_broken_otherwise_stays_an_error() {
        assert!(parse_json(b"{").is_err());
        assert!(parse_json(b"{\"a\":\"\\u12\"").is_err());
        assert!(parse_json(b"{\"a\":\"\xff\"").is_err());
    }
}
