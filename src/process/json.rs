//! Output as JSON without a detour: the bytes go base64-encoded straight into the frame.

use base64_simd::{Out, STANDARD};

use crate::{
    proto::process::{
        ConnectResponse, ProcessEvent, StartResponse,
        process_event::{DataEvent, Event, data_event::Output},
    },
    system::buffers::Buffer,
};

/// Appends a Start response to `out` if it carries output, exactly as the protobuf JSON mapping writes it. Returns
/// whether it did; any other message is left to the general encoder.
pub fn encode_start_data(message: &StartResponse, out: &mut Buffer) -> bool {
    encode_data(message.event.as_ref(), out)
}

/// The same for a Connect response.
pub fn encode_connect_data(message: &ConnectResponse, out: &mut Buffer) -> bool {
    encode_data(message.event.as_ref(), out)
}

fn encode_data(event: Option<&ProcessEvent>, out: &mut Buffer) -> bool {
    let Some(ProcessEvent { event: Some(Event::Data(DataEvent { output: Some(output), offset: None })) }) = event
    else {
        return false;
    };
    let (head, data): (&[u8], _) = match output {
        Output::Stdout(data) => (br#"{"event":{"data":{"stdout":""#, data),
        Output::Stderr(data) => (br#"{"event":{"data":{"stderr":""#, data),
        Output::Pty(data) => (br#"{"event":{"data":{"pty":""#, data),
    };
    out.put(head);
    let _written = STANDARD.encode(data, Out::from_slice(out.extend(STANDARD.encoded_length(data.len()))));
    out.put(br#""}}}"#);
    true
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]
mod tests {
    use super::*;

    #[test]
    fn the_short_way_writes_what_the_general_encoder_writes() {
        for length in [1, 2, 3, 31, 64 * 1024] {
            let data = bytes::Bytes::from(vec![0xfb_u8; length]);
            for output in [Output::Stdout(data.clone()), Output::Stderr(data.clone()), Output::Pty(data.clone())] {
                let event = Some(Event::Data(DataEvent { output: Some(output), offset: None }));
                let message = StartResponse { event: Some(ProcessEvent { event }) };
                let mut out = Buffer::new();
                out.put(b"before");
                assert!(encode_start_data(&message, &mut out));
                assert_eq!(out.freeze(), format!("before{}", serde_json::to_string(&message).unwrap()));
            }
        }
    }

    #[test]
    fn other_messages_are_left_alone() {
        let mut out = Buffer::new();
        assert!(!encode_start_data(&StartResponse::default(), &mut out));
        assert!(out.is_empty());
    }
}
