//! gzip on both kinds of calls.

use serde_json::json;

use super::client::*;

#[tokio::test]
async fn unary_responses_follow_accept_encoding() {
    for (accept, packed) in [
        ("gzip", true),
        ("gzip, deflate", true),
        ("br,gzip", true),
        ("identity", false),
        ("zstd", false),
        ("gzip;q=1.0", false),
    ] {
        let reply = call("Unary", JSON, &[("accept-encoding", accept)], r#"{"text":"hi"}"#).await;
        assert_eq!(reply.header("content-encoding"), packed.then_some("gzip"), "{accept}");
        let plain = if packed { gunzip(&reply.body) } else { reply.body.to_vec() };
        assert_eq!(plain, br#"{"text":"hi"}"#);
    }
}

#[tokio::test]
async fn unary_requests_can_be_compressed() {
    let body = gzip(r#"{"text":"hi"}"#);
    let reply = call("Unary", JSON, &[("content-encoding", "gzip")], body.clone()).await;
    assert_eq!(gunzip(&reply.body), br#"{"text":"hi"}"#, "without an accept header the answer is compressed alike");
    let both = [("content-encoding", "gzip"), ("accept-encoding", "identity")];
    assert_eq!(call("Unary", JSON, &both, body).await.json(), json!({"text": "hi"}));
    let reply = call("Unary", JSON, &[("content-encoding", "identity")], r#"{"text":"hi"}"#).await;
    assert_eq!((reply.json(), reply.header("content-encoding")), (json!({"text": "hi"}), None));
    let reply = call("Unary", JSON, &[("content-encoding", "gzip")], "not gzip").await;
    assert_eq!((reply.status, reply.error().0.as_str()), (400, "invalid_argument"));
}

#[tokio::test]
async fn unary_errors_are_never_compressed() {
    let reply = call("Unary", JSON, &[("accept-encoding", "gzip")], r#"{"fail":5,"text":"gone"}"#).await;
    assert_eq!((reply.status, reply.error()), (404, pair("not_found", "gone")));
}

#[tokio::test]
async fn unknown_compression_is_unimplemented() {
    let text = r#"unknown compression "zstd": supported encodings are gzip"#;
    let reply = call("Unary", JSON, &[("content-encoding", "zstd")], "{}").await;
    assert_eq!((reply.status, reply.error()), (501, pair("unimplemented", text)));
    let headers = [("connect-content-encoding", "zstd"), ("connect-accept-encoding", "gzip")];
    let reply = call("Download", STREAM, &headers, frames(&["{}"])).await;
    assert_eq!(reply.stream_error(), pair("unimplemented", text));
    assert_eq!(reply.header("connect-accept-encoding"), Some("gzip"));
}

#[tokio::test]
async fn streams_ignore_the_http_headers() {
    let headers = [("accept-encoding", "zstd,gzip,br"), ("connect-accept-encoding", "identity")];
    for headers in [&headers[..], &headers[..1]] {
        let reply = call("Download", STREAM, headers, frames(&[r#"{"count":2}"#])).await;
        assert_eq!(reply.frames().iter().map(|frame| frame.0).collect::<Vec<_>>(), [0, 0, 2]);
        assert_eq!(reply.header("connect-content-encoding"), None);
        assert_eq!(reply.header("content-encoding"), None);
    }
}

#[tokio::test]
async fn every_frame_of_a_compressed_stream_is_compressed() {
    let headers = [("connect-accept-encoding", "br gzip")];
    let reply = call("Download", STREAM, &headers, frames(&[r#"{"count":2,"text":"n"}"#])).await;
    assert_eq!(reply.frames().iter().map(|frame| frame.0).collect::<Vec<_>>(), [1, 1, 3]);
    assert_eq!(reply.header("connect-content-encoding"), Some("gzip"));
    assert_eq!(reply.stream(), (vec![json!({"text": "n0"}), json!({"text": "n1"})], json!({})));
}

#[tokio::test]
async fn compressed_and_plain_request_frames_mix() {
    let body = [frame(1, gzip(r#"{"text":"a"}"#)), frame(0, r#"{"text":"b"}"#), frame(1, "")].concat();
    let headers = [("connect-content-encoding", "gzip"), ("connect-accept-encoding", "identity")];
    let reply = call("Upload", STREAM, &headers, body.clone()).await;
    assert_eq!(reply.stream(), (vec![json!({"text": "a+b+"})], json!({})));
    for headers in [&[][..], &[("connect-content-encoding", "identity")], &[("content-encoding", "gzip")]] {
        let reply = call("Upload", STREAM, headers, body.clone()).await;
        let text = "protocol error: sent compressed message without compression support";
        assert_eq!(reply.stream_error(), pair("internal", text));
    }
    let reply = call("Upload", STREAM, &[("connect-content-encoding", "gzip")], frame(1, "not gzip")).await;
    assert_eq!(reply.stream_error().0, "invalid_argument");
    assert_eq!(reply.frames()[0].0, 3, "the stream's response is compressed like its request");
}

#[tokio::test]
async fn a_bomb_in_a_frame_is_stopped() {
    let bomb = gzip(vec![b' '; 10_000_000]);
    let reply = call("Download", STREAM, &[("connect-content-encoding", "gzip")], frame(1, bomb)).await;
    assert_eq!(reply.stream_error().0, "resource_exhausted");
}
