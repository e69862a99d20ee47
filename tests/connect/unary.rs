//! Unary calls.

use serde_json::json;

use super::{
    client::*,
    service::{Answer, Extension, Order, router},
};
use prost::Message as _;

#[tokio::test]
async fn both_codecs_answer() {
    let reply = call("Unary", JSON, &[], r#"{"text":"hi"}"#).await;
    assert_eq!((reply.status, reply.json()), (200, json!({"text": "hi"})));
    assert_eq!(reply.header("accept-encoding"), Some("gzip"));
    assert_eq!(reply.header("content-encoding"), None);
    let order = Order { text: "hi".to_owned(), ..Order::default() };
    let reply = call("Unary", PROTO, &[], order.encode_to_vec()).await;
    assert_eq!(Answer::decode(reply.body).unwrap().text, "hi");
}

#[tokio::test]
async fn a_body_in_pieces_is_one_message() {
    for cut in [1, 7, 13] {
        let body = br#"{"text":"pieces"}"#.chunks(cut).map(bytes::Bytes::copy_from_slice).collect();
        let reply = send(&router().0, request_with("Unary", JSON, &[], pieces(body))).await;
        assert_eq!(reply.json(), json!({"text": "pieces"}));
    }
}

#[tokio::test]
async fn metadata_crosses_in_both_directions() {
    let headers = [("x-echo", "one"), ("x-echo", "two"), ("x-echo-bin", "AAH/")];
    let reply = call("Unary", JSON, &headers, "{}").await;
    let all = |name| reply.headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(all("x-echo"), ["one", "two"]);
    assert_eq!(all("trailer-x-trailer"), ["one", "two"]);
    assert_eq!(all("x-echo-bin"), ["AAH/"]);
    assert_eq!(all("content-type"), [JSON], "metadata cannot replace protocol headers");
}

#[tokio::test]
async fn http_extensions_reach_the_handler() {
    let mut request = request("Unary", JSON, &[], r#"{"text":"a"}"#);
    request.extensions_mut().insert(Extension("b"));
    assert_eq!(send(&router().0, request).await.json(), json!({"text": "ab"}));
}

#[tokio::test]
async fn empty_bodies() {
    let reply = call("Unary", JSON, &[], "").await;
    let text = "unmarshal message: zero-length payload is not a valid JSON object";
    assert_eq!((reply.status, reply.error()), (400, pair("invalid_argument", text)));
    assert_eq!(call("Unary", PROTO, &[], "").await.status, 200);
    let gzip = [("content-encoding", "gzip")];
    assert_eq!(call("Unary", JSON, &gzip, "").await.error().1, text);
}

#[tokio::test]
async fn undecodable_messages_are_invalid() {
    for body in ["{", "null", "5", r#"{"text":5}"#, r#"{"count":-1}"#, r#"{"text":"a"} x"#, "\u{feff}{}"] {
        let reply = call("Unary", JSON, &[], body).await;
        assert_eq!(reply.status, 400, "{body}");
        let (code, message) = reply.error();
        assert_eq!((reply.status, code.as_str()), (400, "invalid_argument"), "{body}");
        assert!(message.starts_with("unmarshal message: "), "{message}");
    }
    let reply = call("Unary", PROTO, &[], "\u{7f}broken").await;
    assert!(reply.error().1.starts_with("unmarshal message: "));
    let unknown = r#"{"text":null,"count":null,"later":{"a":[1]}}"#;
    assert_eq!(call("Unary", JSON, &[], unknown).await.status, 200, "null is unset, unknown members are ignored");
}

#[tokio::test]
async fn responses_without_a_json_form_are_internal_errors() {
    let reply = call("Written", JSON, &[], r#"{"text":"unspeakable"}"#).await;
    assert_eq!((reply.status, reply.error()), (500, pair("internal", "marshal message: it cannot be said")));
    let reply = call("Written", JSON, &[], r#"{"text":"own writer"}"#).await;
    assert_eq!(reply.json(), json!({"text": "<own writer>"}));
}

#[tokio::test]
async fn large_messages_are_refused() {
    let body = format!(r#"{{"text":"{}"}}"#, "x".repeat(100_000));
    let reply = call("Unary", JSON, &[], body.clone()).await;
    assert_eq!((reply.status, reply.error().0.as_str()), (429, "resource_exhausted"));
    let reply = call("Unary", JSON, &[("content-encoding", "gzip")], gzip(&body)).await;
    assert_eq!((reply.status, reply.error().0.as_str()), (429, "resource_exhausted"));
}

#[tokio::test]
async fn a_client_that_goes_away_cancels() {
    let request = request_with("Unary", JSON, &[], broken(vec!["{".into()]));
    let reply = send(&router().0, request).await;
    assert_eq!((reply.status, reply.error()), (499, pair("canceled", "context canceled")));
}
