//! The protobuf JSON mapping of generated messages.

use envd::proto::timestamp::Timestamp;
use envd::{
    connect::Router,
    proto::{filesystem::EntryInfo, process::SendInputRequest},
};
use serde_json::{Value, json};
use tonic::{Request, Response, Status};

use super::client::*;

async fn echo_input(request: Request<SendInputRequest>) -> Result<Response<SendInputRequest>, Status> {
    Ok(Response::new(request.into_inner()))
}

/// An entry whose size and time are the pid of the request.
async fn entry(request: Request<SendInputRequest>) -> Result<Response<EntryInfo>, Status> {
    let pid = match request.into_inner().process.and_then(|process| process.selector) {
        Some(envd::proto::process::process_selector::Selector::Pid(pid)) => pid,
        _ => 0,
    };
    let modified_time = Some(Timestamp { seconds: pid.into(), nanos: 120_000_000 });
    Ok(Response::new(EntryInfo { size: pid.into(), modified_time, ..EntryInfo::default() }))
}

async fn post(method: &str, body: &str) -> Reply {
    let router = Router::new().unary("/example.Example/Echo", echo_input).unary("/example.Example/Entry", entry);
    send(&router, request(method, JSON, &[], body.to_owned())).await
}

async fn echoed(body: &str) -> Value {
    let reply = post("Echo", body).await;
    assert_eq!(reply.status, 200, "{body}: {reply:?}");
    reply.json()
}

#[tokio::test]
async fn bytes_are_read_in_both_alphabets_and_written_in_one() {
    for text in ["+/8=", "+/8", "-_8=", "-_8"] {
        let body = format!(r#"{{"input":{{"stdin":"{text}"}}}}"#);
        assert_eq!(echoed(&body).await, json!({"input": {"stdin": "+/8="}}), "{text}");
    }
    for text in ["*", "+/8===x", "a", "+/8 "] {
        let body = format!(r#"{{"input":{{"stdin":"{text}"}}}}"#);
        assert_eq!(post("Echo", &body).await.error().0, "invalid_argument", "{text}");
    }
}

#[tokio::test]
async fn defaults_vanish_and_chosen_members_stay() {
    assert_eq!(echoed("{}").await, json!({}));
    assert_eq!(echoed(r#"{"process":{"tag":""}}"#).await, json!({"process": {"tag": ""}}));
    assert_eq!(
        echoed(r#"{"process":{"pid":0},"input":{"stdin":""}}"#).await,
        json!({"process": {"pid": 0}, "input": {"stdin": ""}})
    );
}

#[tokio::test]
async fn numbers_may_be_strings_within_their_range() {
    for pid in ["7", "\"7\""] {
        assert_eq!(echoed(&format!(r#"{{"process":{{"pid":{pid}}}}}"#)).await, json!({"process": {"pid": 7}}));
    }
    for pid in ["-1", "4294967296", "\"x\"", "1.5", "true"] {
        let reply = post("Echo", &format!(r#"{{"process":{{"pid":{pid}}}}}"#)).await;
        assert_eq!((reply.status, reply.error().0.as_str()), (400, "invalid_argument"), "{pid}");
    }
}

#[tokio::test]
async fn two_members_of_a_oneof_are_refused_but_null_is_none() {
    for selector in [r#""pid":1,"tag":"a""#, r#""pid":1,"pid":2"#, r#""tag":"a","pid":1,"x":null"#] {
        let reply = post("Echo", &format!(r#"{{"process":{{{selector}}}}}"#)).await;
        assert_eq!((reply.status, reply.error().0.as_str()), (400, "invalid_argument"), "{selector}");
    }
    for selector in [r#""pid":1,"tag":null"#, r#""tag":null,"pid":1"#] {
        assert_eq!(echoed(&format!(r#"{{"process":{{{selector}}}}}"#)).await, json!({"process": {"pid": 1}}));
    }
    assert_eq!(echoed(r#"{"process":null,"input":{"stdin":null}}"#).await["process"], Value::Null);
}

#[tokio::test]
async fn wide_integers_are_strings_and_times_end_in_z() {
    let reply = post("Entry", r#"{"process":{"pid":13}}"#).await;
    assert_eq!(reply.json(), json!({"size": "13", "modifiedTime": "1970-01-01T00:00:13.120Z"}));
}
