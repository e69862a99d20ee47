//! Methods, content types, the protocol version.

use http::Request;

use super::{client::*, service::router};
use envd::Body;

#[tokio::test]
async fn only_post_is_allowed() {
    let (router, trace) = router();
    for verb in ["GET", "PUT", "HEAD", "OPTIONS"] {
        let request = Request::builder().method(verb).uri("/example.Example/Unary").body(Body::empty()).unwrap();
        let reply = send(&router, request).await;
        assert_eq!((reply.status, reply.header("allow"), reply.body.len()), (405, Some("POST"), 0), "{verb}");
    }
    assert_eq!(trace.calls.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[tokio::test]
async fn calls_can_run_as_tasks() {
    let router = router().0;
    let call = tokio::spawn(async move { collect(router.call(request("Unary", JSON, &[], "{}")).await).await });
    assert_eq!(call.await.unwrap().status, 200);
}

#[tokio::test]
async fn unknown_paths_are_not_found() {
    assert!(!router().0.has("/example.Example/Nothing") && router().0.has("/example.Example/Chat"));
    let reply = call("Nothing", JSON, &[], "{}").await;
    assert_eq!((reply.status, &reply.body[..]), (404, &b"404 page not found\n"[..]));
    assert_eq!(reply.header("content-type"), Some("text/plain; charset=utf-8"));
}

#[tokio::test]
async fn foreign_content_types_are_refused_with_what_is_supported() {
    let unary = "application/json, application/json; charset=utf-8, application/proto";
    let stream = "application/connect+json, application/connect+json; charset=utf-8, application/connect+proto";
    for (method, content_type, supported) in [
        ("Unary", "text/plain", unary),
        ("Unary", "", unary),
        ("Unary", STREAM, unary),
        ("Unary", "application/undefined", unary),
        ("Download", JSON, stream),
        ("Download", PROTO, stream),
        ("Upload", "application/connect+undefined", stream),
        ("Chat", "text/event-stream", stream),
    ] {
        let reply = call(method, content_type, &[], "{}").await;
        assert_eq!((reply.status, reply.body.len()), (415, 0), "{method} {content_type}");
        assert_eq!(reply.header("accept-post"), Some(supported), "{method} {content_type}");
    }
}

#[tokio::test]
async fn responses_repeat_the_content_type() {
    let charset = "application/json; charset=utf-8";
    assert_eq!(call("Unary", charset, &[], "{}").await.header("content-type"), Some(charset));
    assert_eq!(call("Unary", PROTO, &[], "").await.header("content-type"), Some(PROTO));
    for content_type in [STREAM, "application/connect+json; charset=utf-8", STREAM_PROTO] {
        let reply = call("Download", content_type, &[], frame(0, "")).await;
        assert_eq!(reply.header("content-type"), Some(content_type));
        assert_eq!(reply.stream(), (vec![], serde_json::json!({})));
    }
}

#[tokio::test]
async fn the_protocol_version_is_optional_but_must_be_1() {
    let version = |value| [("connect-protocol-version", value)];
    assert_eq!(call("Unary", JSON, &version("1"), "{}").await.status, 200);
    assert_eq!(call("Unary", JSON, &version(""), "{}").await.status, 200);
    let text = r#"Connect-Protocol-Version must be "1": got "2""#;
    let reply = call("Unary", JSON, &version("2"), "{}").await;
    assert_eq!((reply.status, reply.error()), (400, pair("invalid_argument", text)));
    let reply = call("Download", STREAM, &version("2"), frames(&["{}"])).await;
    assert_eq!(reply.stream_error(), pair("invalid_argument", text));
}
