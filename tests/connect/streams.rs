//! What streams send.

use std::sync::atomic::Ordering::SeqCst;

use http_body_util::BodyExt as _;
use prost::Message as _;
use serde_json::json;

use super::{
    client::*,
    service::{Answer, Order, router},
};

#[tokio::test]
async fn each_message_is_one_piece_of_the_body() {
    let reply = call("Download", STREAM, &[], frames(&[r#"{"text":"n","count":3}"#])).await;
    assert_eq!(reply.stream(), (vec![json!({"text": "n0"}), json!({"text": "n1"}), json!({"text": "n2"})], json!({})));
    assert_eq!(reply.chunks.len(), 4);
    assert_eq!(reply.chunks[0], frame(0, r#"{"text":"n0"}"#));
    assert_eq!(reply.chunks[3], frame(2, "{}"));
    assert_eq!(reply.header("connect-accept-encoding"), Some("gzip"));
}

#[tokio::test]
async fn a_message_leaves_before_the_next_exists() {
    let request = request("Download", STREAM, &[], frames(&[r#"{"text":"n","count":1,"hang":true}"#]));
    let (router, trace) = router();
    let mut body = router.call(request).await.into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, frame(0, r#"{"text":"n0"}"#));
    assert!(!trace.dropped.load(SeqCst));
    drop(body);
    assert!(trace.dropped.load(SeqCst), "a dropped response drops the handler's stream");
}

#[tokio::test]
async fn binary_streams_end_with_json() {
    let order = Order { text: "n".to_owned(), count: 1, ..Order::default() };
    let reply = call("Download", STREAM_PROTO, &[], frame(0, order.encode_to_vec())).await;
    let frames = reply.frames();
    assert_eq!(Answer::decode(frames[0].1.clone()).unwrap().text, "n0");
    assert_eq!(frames[1], (2, "{}".into()));
}

#[tokio::test]
async fn errors_come_after_the_messages_before_them() {
    for (order, messages) in [(r#"{"text":"late","count":2,"fail":10}"#, 2), (r#"{"text":"fail early","fail":10}"#, 0)]
    {
        let reply = call("Download", STREAM, &[], frames(&[order])).await;
        let (sent, end) = reply.stream();
        assert_eq!(sent.len(), messages);
        assert_eq!(end["error"]["code"], "aborted");
        assert_eq!(end["error"]["details"][0]["type"], "example.Order");
        assert_eq!(end["metadata"], json!({"x-failure": ["meta"]}));
    }
}

#[tokio::test]
async fn client_streams_collect() {
    let body = frames(&[r#"{"text":"a"}"#, r#"{"text":"b"}"#]);
    for cut in [1, 4, 6, 1000] {
        let body = pieces(body.chunks(cut).map(bytes::Bytes::copy_from_slice).collect());
        let reply = send(&router().0, request_with("Upload", STREAM, &[], body)).await;
        assert_eq!(reply.stream(), (vec![json!({"text": "a+b"})], json!({})));
    }
    assert_eq!(call("Upload", STREAM, &[], "").await.stream().0, [json!({"text": ""})]);
    let reply = call("Upload", STREAM, &[], frames(&["{}", r#"{"fail":7,"text":"no"}"#, "nonsense"])).await;
    assert_eq!(reply.stream_error(), pair("permission_denied", "no"));
}

#[tokio::test]
async fn large_client_messages_arrive_whole() {
    let text = "x".repeat(90_000);
    let orders: Vec<_> = (0..5).map(|_| Order { text: text.clone(), ..Order::default() }).collect();
    let body: Vec<u8> = orders.iter().flat_map(|order| frame(0, order.encode_to_vec())).collect();
    let body = pieces(body.chunks(16 * 1024).map(bytes::Bytes::copy_from_slice).collect());
    let reply = send(&router().0, request_with("Upload", STREAM_PROTO, &[], body)).await;
    assert_eq!(Answer::decode(reply.frames()[0].1.clone()).unwrap().text, vec![text; 5].join("+"));
}

#[tokio::test]
async fn both_streams_run_at_once() {
    let body = endless(vec![frames(&[r#"{"text":"a"}"#, r#"{"text":"b"}"#])]);
    let mut body = router().0.call(request_with("Chat", STREAM, &[], body)).await.into_body();
    for text in ["a", "b"] {
        let answer = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(answer, frame(0, format!(r#"{{"text":"{text}"}}"#)));
    }
}

#[tokio::test]
async fn metadata_and_trailers() {
    let headers = [("x-echo", "one"), ("x-echo", "two"), ("x-echo-bin", "AAH/")];
    for method in ["Download", "Upload", "Chat"] {
        let reply = call(method, STREAM, &headers, frames(&["{}"])).await;
        let all: Vec<_> = reply.headers.get_all("x-echo").iter().collect();
        assert_eq!(all, ["one", "two"], "{method}");
        assert_eq!(reply.header("x-echo-bin"), Some("AAH/"));
        assert_eq!(reply.stream().1, json!({"metadata": {"x-trailer": ["one", "two"]}}), "{method}");
        assert_eq!(reply.header("content-type"), Some(STREAM));
    }
}

#[tokio::test]
async fn own_writers_put_json_into_frames() {
    let reply = call("WrittenDownload", STREAM, &[], frames(&[r#"{"text":"n","count":1}"#])).await;
    assert_eq!(reply.stream(), (vec![json!({"text": "<n0>"})], json!({})));
    for headers in [&[][..], &[("connect-accept-encoding", "gzip")]] {
        let reply = call("WrittenDownload", STREAM, headers, frames(&[r#"{"text":"unspeakable","count":3}"#])).await;
        assert_eq!(reply.stream_error(), pair("internal", "marshal message: it cannot be said"));
        assert_eq!(reply.frames().len(), 1);
    }
}
