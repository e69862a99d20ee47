#![allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::system::settings::Environment;

fn init() -> Init {
    let first = Environment::from([("FIRST".to_owned(), "1".to_owned())]);
    let settings = Settings::new("root".to_owned(), None, first);
    settings.set_internal("E2B_SANDBOX", "false");
    Init::with_clock(Gate::default(), settings, None)
}

async fn post(init: &Init, body: impl Into<bytes::Bytes>) -> Response<Body> {
    let body = Body::new(http_body_util::Full::new(body.into()));
    let response = init.call(Request::new(body)).await;
    assert_eq!(response.headers()["x-envd-version"], "0.6.13");
    response
}

async fn status(init: &Init, body: &str) -> u16 {
    post(init, body.to_owned()).await.status().as_u16()
}

fn environment(init: &Init) -> String {
    serde_json::to_string(&init.settings.environment()).unwrap()
}

#[tokio::test]
async fn the_token_is_set_once_and_kept_by_who_knows_it() {
    let init = init();
    assert_eq!(status(&init, "").await, 204);
    assert_eq!(status(&init, r#"{"accessToken":""}"#).await, 400);
    assert_eq!(status(&init, r#"{"accessToken":"tok","envVars":{"A":"1","E2B_SANDBOX":"x"}}"#).await, 204);
    assert_eq!(environment(&init), r#"{"A":"1","E2B_SANDBOX":"false"}"#);
    let refused = post(&init, r#"{"accessToken":"other","envVars":{"A":"2"}}"#).await;
    assert_eq!(refused.status(), 401);
    assert_eq!(refused.into_body().collect().await.unwrap().to_bytes(), "access token validation failed");
    let refused = post(&init, "{}").await;
    assert_eq!(refused.status(), 401);
    assert_eq!(refused.into_body().collect().await.unwrap().to_bytes(), "access token reset not authorized");
    assert_eq!(environment(&init), r#"{"A":"1","E2B_SANDBOX":"false"}"#);
    assert_eq!(status(&init, r#"{"accessToken":"tok","envVars":{}}"#).await, 204);
    assert_eq!(environment(&init), r#"{"E2B_SANDBOX":"false"}"#);
}

#[tokio::test]
async fn wrong_types_are_refused_with_an_empty_body_and_change_nothing() {
    let init = init();
    for body in [
        "{",
        "[]",
        "1",
        "{} x",
        r#"{"accessToken":1}"#,
        r#"{"accessToken":"a\\b"}"#,
        r#"{"accessToken":"a\u0062"}"#,
        r#"{"envVars":[]}"#,
        r#"{"envVars":{"A":1}}"#,
        r#"{"timestamp":"yesterday"}"#,
        r#"{"timestamp":5}"#,
        r#"{"defaultUser":{}}"#,
        r#"{"defaultWorkdir":false}"#,
        r#"{"volumeMounts":{}}"#,
        r#"{"volumeMounts":[{"path":1}]}"#,
        r#"{"caBundle":[]}"#,
        r#"{"hyperloopIP":1}"#,
        r#"{"lifecycleID":1}"#,
    ] {
        let response = post(&init, body.to_owned()).await;
        assert_eq!(response.status(), 400, "{body}");
        assert!(response.into_body().collect().await.unwrap().to_bytes().is_empty(), "{body}");
    }
    assert_eq!(environment(&init), r#"{"E2B_SANDBOX":"false","FIRST":"1"}"#);
    assert_eq!(init.gate.admit_reset(None), Ok(()));
}

#[tokio::test]
async fn absent_and_null_leave_things_and_unknown_keys_are_ignored() {
    let init = init();
    for body in ["null", "{}", r#"{"envVars":null,"accessToken":null,"timestamp":null,"volumeMounts":null}"#] {
        assert_eq!(status(&init, body).await, 204, "{body}");
    }
    assert_eq!(status(&init, r#"{"newKey":{"a":[1]},"defaultUser":"","defaultWorkdir":""}"#).await, 204);
    assert_eq!(environment(&init), r#"{"E2B_SANDBOX":"false","FIRST":"1"}"#);
    assert_eq!(init.settings.default_user(), "root");
    assert_eq!(init.settings.default_workdir(), None);
    assert_eq!(status(&init, r#"{"defaultUser":"user","defaultWorkdir":"/srv"}"#).await, 204);
    assert_eq!(init.settings.default_user(), "user");
    assert_eq!(init.settings.default_workdir().as_deref(), Some("/srv"));
}

#[tokio::test]
async fn what_is_not_served_yet_does_not_fail_the_start() {
    let body = r#"{"hyperloopIP":"192.0.2.2","caBundle":"PEM","lifecycleID":"a","envVars":{"A":"1"},
                   "volumeMounts":[{"nfs_target":"192.0.2.1:/v","path":"/v"}]}"#;
    let init = init();
    assert_eq!(status(&init, body).await, 204);
    assert_eq!(environment(&init), r#"{"A":"1","E2B_SANDBOX":"false"}"#);
}

#[tokio::test]
async fn the_newest_timestamp_stands_to_the_nanosecond() {
    let init = init();
    let at = async |time: &str, value: &str| {
        let body = format!(r#"{{"timestamp":"{time}","envVars":{{"A":"{value}"}}}}"#);
        assert_eq!(status(&init, &body).await, 204);
        init.settings.environment().get("A").cloned().unwrap()
    };
    assert_eq!(at("2025-01-01T00:00:00.000000002Z", "second").await, "second");
    assert_eq!(at("2025-01-01T00:00:00.000000001Z", "stale").await, "second");
    assert_eq!(at("2025-01-01T00:00:00.000000002Z", "equal").await, "equal");
    assert_eq!(at("2025-01-01T01:00:00.000000003+01:00", "zone").await, "zone");
    assert_eq!(status(&init, r#"{"envVars":{"A":"none"}}"#).await, 204);
    assert_eq!(at("2025-01-01T00:00:00Z", "older").await, "none");
}

#[tokio::test]
async fn a_stale_request_is_still_checked_for_its_token() {
    let init = init();
    assert_eq!(status(&init, r#"{"timestamp":"2025-01-02T00:00:00Z","accessToken":"tok"}"#).await, 204);
    assert_eq!(status(&init, r#"{"timestamp":"2025-01-01T00:00:00Z"}"#).await, 401);
    assert_eq!(status(&init, r#"{"timestamp":"2025-01-01T00:00:00Z","accessToken":"tok"}"#).await, 204);
}

#[tokio::test]
async fn the_clock_is_set_when_it_is_far_off() {
    static SET_TO: AtomicU64 = AtomicU64::new(0);
    let init = Init {
        step_clock: Some(|reference| {
            SET_TO.store(reference.as_secs(), Ordering::Relaxed);
            Ok(())
        }),
        ..init()
    };
    assert_eq!(status(&init, r#"{"timestamp":"2100-01-01T00:00:00Z"}"#).await, 204);
    assert_eq!(SET_TO.swap(0, Ordering::Relaxed), 4_102_444_800);
    assert_eq!(status(&init, r#"{"timestamp":"2000-01-01T00:00:00Z"}"#).await, 204);
    assert_eq!(SET_TO.load(Ordering::Relaxed), 0, "a stale timestamp set the clock");
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused() {
    let init = init();
    let padded = |length: usize| {
        let mut body = br#"{"envVars":{}}"#.to_vec();
        body.resize(length, b' ');
        body
    };
    assert_eq!(post(&init, padded(MAX_BODY)).await.status(), 204);
    assert_eq!(post(&init, padded(MAX_BODY + 1)).await.status(), 400);
}
