//! Broken and surplus request frames.

use super::{client::*, service::router};

#[tokio::test]
async fn broken_frames_have_their_codes_and_texts() {
    for (body, code, text) in [
        (&b""[..], "unimplemented", "unary request has zero messages"),
        (b"\x02\0\0\0\x02{}", "unimplemented", "unary request has zero messages"),
        (b"\0\0\0\0\x02{}\0\0\0\0\x02{}", "unimplemented", "unary request has multiple messages"),
        (
            b"\0\0\0\0\x02{}\0\0\0\0\x09{}",
            "invalid_argument",
            "protocol error: promised 9 bytes in enveloped message, got 2 bytes",
        ),
        (b"\x04\0\0\0\x02{}", "internal", "protocol error: invalid envelope flags 4"),
        (b"\x81\0\0\0\x02{}", "internal", "protocol error: invalid envelope flags 129"),
        (b"\0\0\0", "invalid_argument", "protocol error: incomplete envelope: unexpected EOF"),
        (b"\0\0\0\0\x0a{}", "invalid_argument", "protocol error: promised 10 bytes in enveloped message, got 2 bytes"),
        (b"\x01\0\0\0\x02{}", "internal", "protocol error: sent compressed message without compression support"),
        (b"\0\xff\xff\xff\xff", "resource_exhausted", "message size is larger than configured max 100000"),
    ] {
        let reply = call("Download", STREAM, &[], body).await;
        assert_eq!(reply.stream_error(), pair(code, text), "{body:?}");
        if code != "unimplemented" && !text.contains("promised 9") {
            let reply = call("Upload", STREAM, &[], body).await;
            assert_eq!(reply.stream_error(), pair(code, text), "client stream: {body:?}");
            let reply = call("Chat", STREAM, &[], body).await;
            assert_eq!(reply.stream_error(), pair(code, text), "both streams: {body:?}");
        }
    }
}

#[tokio::test]
async fn an_undecodable_message_ends_the_stream() {
    for method in ["Download", "Upload", "Chat"] {
        let reply = call(method, STREAM, &[], frames(&["nonsense", "{}"])).await;
        let (code, message) = reply.stream_error();
        assert_eq!(code, "invalid_argument", "{method}");
        assert!(message.starts_with("unmarshal message: "), "{method}: {message}");
    }
    let reply = call("Chat", STREAM, &[], frames(&[r#"{"text":"a"}"#, "{", r#"{"text":"b"}"#])).await;
    assert_eq!(reply.stream().0, [serde_json::json!({"text": "a"})], "what came before is answered");
}

#[tokio::test]
async fn empty_payloads_are_empty_messages() {
    for content_type in [STREAM, STREAM_PROTO] {
        let reply = call("Upload", content_type, &[], frames(&["", "", ""])).await;
        assert_eq!(reply.frames().len(), 2);
        let reply = call("Download", content_type, &[], frames(&[""])).await;
        assert_eq!(reply.stream().1, serde_json::json!({}));
    }
    let reply = call("Upload", STREAM, &[], frames(&["", "", ""])).await;
    assert_eq!(reply.stream().0, [serde_json::json!({"text": "++"})]);
}

#[tokio::test]
async fn a_client_that_goes_away_cancels() {
    let (router, trace) = router();
    for pieces in [vec![], vec![frames(&["{}"])], vec!["\0\0".into()], vec!["\0\0\0\0\u{5}a".into()]] {
        for method in ["Download", "Upload", "Chat"] {
            let reply = send(&router, request_with(method, STREAM, &[], broken(pieces.clone()))).await;
            assert_eq!(reply.stream_error(), pair("canceled", "context canceled"), "{method} {pieces:?}");
        }
    }
    assert_eq!(trace.calls.load(std::sync::atomic::Ordering::SeqCst), 8, "Download never got a whole request");
}
