//! Output as JSON without a detour: the bytes go base64-encoded straight into the frame.

use base64_simd::{Out, STANDARD};
use bytes::BytesMut;

use crate::proto::process::{
    ConnectResponse, ProcessEvent, StartResponse,
    process_event::{DataEvent, Event, data_event::Output},
};

/// Appends a Start response to `out` if it carries output, exactly as the protobuf JSON mapping writes it. Returns
/// whether it did; any other message is left to the general encoder.
pub fn encode_start_data(message: &StartResponse, out: &mut BytesMut) -> bool {
    encode_data(message.event.as_ref(), out)
}

/// The same for a Connect response.
pub fn encode_connect_data(message: &ConnectResponse, out: &mut BytesMut) -> bool {
    encode_data(message.event.as_ref(), out)
}

fn encode_data(event: Option<&ProcessEvent>, out: &mut BytesMut) -> bool {
    let Some(ProcessEvent { event: Some(Event::Data(DataEvent { output: Some(output), offset: None })) }) = event
    else {
        return false;
    };
    let (head, data): (&[u8], _) = match output {
        Output::Stdout(data) => (br#"{"event":{"data":{"stdout":""#, data),
        Output::Stderr(data) => (br#"{"event":{"data":{"stderr":""#, data),
        Output::Pty(data) => (br#"{"event":{"data":{"pty":""#, data),
    };
    const TAIL: &[u8] = br#""}}}"#;
    let length = STANDARD.encoded_length(data.len());
    out.reserve(head.len() + length + TAIL.len());
    out.extend_from_slice(head);
    let start = out.len();
    out.resize(start + length, 0);
    if let Some(room) = out.get_mut(start..) {
        let _written = STANDARD.encode(data, Out::from_slice(room));
    }
    out.extend_from_slice(TAIL);
    true
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]
mod tests {
    use super::*;

    #[test]
    fn the_short_way_writes_what_the_general_encoder_writes() {
        for length in [1, 2, 3, 31, 32 * 1024] {
            let data = bytes::Bytes::from(vec![0xfb_u8; length]);
            for output in [Output::Stdout(data.clone()), Output::Stderr(data.clone()), Output::Pty(data.clone())] {
                let event = Some(Event::Data(DataEvent { output: Some(output), offset: None }));
                let message = StartResponse { event: Some(ProcessEvent { event }) };
                let mut out = BytesMut::from(&b"before"[..]);
                assert!(encode_start_data(&message, &mut out));
                assert_eq!(out, format!("before{}", serde_json::to_string(&message).unwrap()));
            }
        }
    }

    #[test]
    fn other_messages_are_left_alone() {
        let mut out = BytesMut::new();
        assert!(!encode_start_data(&StartResponse::default(), &mut out));
        assert!(out.is_empty());
    }
}
