//! `Connect-Timeout-Ms`.

use std::{
    sync::atomic::Ordering::SeqCst,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{client::*, service::router};

fn limit(value: &str) -> [(&str, &str); 1] {
    [("connect-timeout-ms", value)]
}

#[tokio::test]
async fn odd_limits_are_invalid() {
    for (value, text) in [
        ("12345678901", r#"parse timeout: "12345678901" has >10 digits"#),
        ("1.5", "parse timeout: "),
        ("soon", "parse timeout: "),
    ] {
        let reply = call("Unary", JSON, &limit(value), "{}").await;
        let (code, message) = reply.error();
        assert_eq!((reply.status, code.as_str()), (400, "invalid_argument"));
        assert!(message.starts_with(text), "{message}");
        let reply = call("Upload", STREAM, &limit(value), frames(&["{}"])).await;
        assert_eq!(reply.stream_error(), (code, message));
    }
}

#[tokio::test]
async fn expired_calls_never_reach_the_handler() {
    let (router, trace) = router();
    for value in ["0", "-1"] {
        let reply = send(&router, request("Unary", JSON, &limit(value), "{}")).await;
        assert_eq!((reply.status, reply.error()), (504, pair("deadline_exceeded", "context deadline exceeded")));
        for method in ["Download", "Upload", "Chat"] {
            let reply = send(&router, request(method, STREAM, &limit(value), frames(&["{}"]))).await;
            assert_eq!(reply.stream_error(), pair("deadline_exceeded", "context deadline exceeded"), "{method}");
        }
    }
    assert_eq!(trace.calls.load(SeqCst), 0);
}

#[tokio::test]
async fn handlers_see_the_limit() {
    let reply = call("Unary", JSON, &limit("60000"), r#"{"text":"done"}"#).await;
    assert_eq!(reply.json(), json!({"text": "done within 60s"}));
    assert_eq!(call("Unary", JSON, &limit(""), r#"{"text":"done"}"#).await.json(), json!({"text": "done"}));
}

#[tokio::test]
async fn a_silent_stream_ends_at_the_deadline() {
    let (router, trace) = router();
    let body = frames(&[r#"{"text":"n","count":1,"hang":true}"#]);
    let begun = Instant::now();
    let reply = send(&router, request("Download", STREAM, &limit("50"), body)).await;
    assert!(begun.elapsed() >= Duration::from_millis(50));
    let (messages, end) = reply.stream();
    assert_eq!(messages, [json!({"text": "n0"})]);
    assert_eq!(end, json!({"error": {"code": "deadline_exceeded", "message": "context deadline exceeded"}}));
    assert!(trace.dropped.load(SeqCst));
}

#[tokio::test]
async fn a_busy_stream_ends_at_the_deadline() {
    let body = frames(&[&format!(r#"{{"count":{}}}"#, u32::MAX)]);
    let reply = call("Download", STREAM, &limit("20"), body).await;
    assert_eq!(reply.stream_error(), pair("deadline_exceeded", "context deadline exceeded"));
}

#[tokio::test]
async fn a_request_that_never_ends_stops_at_the_deadline() {
    let (router, _) = router();
    for method in ["Download", "Upload", "Chat"] {
        let request = request_with(method, STREAM, &limit("20"), endless(vec![frames(&["{}"])]));
        let reply = send(&router, request).await;
        assert_eq!(reply.stream_error(), pair("deadline_exceeded", "context deadline exceeded"), "{method}");
    }
    let request = request_with("Unary", JSON, &limit("20"), endless(vec!["{}".into()]));
    assert_eq!(send(&router, request).await.status, 504);
}
