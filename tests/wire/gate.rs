//! The access token, `/init`, and the small routes.

use serde_json::json;

use crate::{
    agent::{Agent, CONNECT, FILESYSTEM_UNARY, PROCESS_UNARY, START},
    stream::frame,
};

const REFUSED: &str = "unauthorized access, please provide a valid access token or method signing if supported";

#[tokio::test(flavor = "multi_thread")]
async fn health_is_204_whatever_happens() {
    let agent = Agent::start().await;
    for _ in 0..2 {
        let reply = agent.get("/health").await;
        assert_eq!((reply.status, reply.header("cache-control"), reply.body.len()), (204, Some("no-store"), 0));
        agent.send("POST", "/init", &[], r#"{"accessToken":"tok"}"#).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_closes_every_route_but_four() {
    let agent = Agent::start().await;
    assert_eq!(agent.send("POST", "/init", &[], r#"{"accessToken":"tok"}"#).await.status, 204);
    let mut routes: Vec<(&str, String)> = [
        ("GET", "/metrics"),
        ("GET", "/envs"),
        ("POST", "/files/compose"),
        ("GET", "/nope"),
        ("HEAD", "/health"),
        ("POST", "/health"),
        ("GET", "/init"),
        ("HEAD", "/files"),
        ("PUT", "/files"),
        ("GET", "/health/"),
        ("GET", "/files/"),
        ("POST", START),
        ("POST", CONNECT),
        ("POST", "/process.Process/StreamInput"),
        ("POST", "/filesystem.Filesystem/WatchDir"),
        ("POST", "/process.Process/Nope"),
    ]
    .map(|(method, path)| (method, path.to_owned()))
    .into();
    routes.extend(PROCESS_UNARY.map(|method| ("POST", format!("/process.Process/{method}"))));
    routes.extend(FILESYSTEM_UNARY.map(|method| ("POST", format!("/filesystem.Filesystem/{method}"))));
    for (method, path) in &routes {
        for headers in [
            &[("content-type", "application/json")][..],
            &[("content-type", "application/connect+json")],
            &[("content-type", "application/proto"), ("x-access-token", "")],
            &[("x-access-token", "toktok")],
            &[("x-access-token", "Tok"), ("authorization", "Basic bm9ib2R5Og==")],
        ] {
            let reply = agent.send(method, path, headers, "").await;
            if *method == "HEAD" {
                assert_eq!(reply.status, 401, "{method} {path}");
            } else {
                reply.assert_http_error(401, REFUSED);
            }
        }
    }
    let token = ("x-access-token", "tok");
    for (method, path, status) in [
        ("GET", "/metrics", 200),
        ("GET", "/nope", 404),
        ("HEAD", "/health", 405),
        ("POST", "/process.Process/List", 200),
        ("POST", "/files/compose", 400),
    ] {
        let reply = agent.send(method, path, &[token, ("content-type", "application/json")], "{}").await;
        assert_eq!(reply.status, status, "{method} {path}");
    }
    // A stream is refused with a status, too, not with a frame.
    let stream = frame(0, "{}");
    agent
        .send("POST", START, &[("content-type", "application/connect+json")], stream)
        .await
        .assert_http_error(401, REFUSED);
}

#[tokio::test(flavor = "multi_thread")]
async fn init_sets_changes_and_keeps_what_it_is_told() {
    let agent = Agent::start().await;
    let init = async |body: &str| agent.send("POST", "/init", &[], body).await;
    let envs = async || agent.send("GET", "/envs", &[("x-access-token", "tok")], "").await;

    let reply = init("").await;
    assert_eq!((reply.status, reply.header("x-envd-version")), (204, Some("0.6.13")));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    let reply = init(r#"{"accessToken":""}"#).await;
    assert_eq!((reply.status, reply.body.len(), reply.header("x-envd-version")), (400, 0, Some("0.6.13")));
    assert_eq!(init(r#"{"accessToken":"tok","envVars":{"A":"1","E2B_SANDBOX":"x"}}"#).await.status, 204);
    assert_eq!(agent.get("/envs").await.status, 401);
    let reply = envs().await;
    assert_eq!(
        (reply.assert_ok(), reply.header("cache-control")),
        (json!({"A":"1","E2B_SANDBOX":"false"}), Some("no-store"))
    );
    let reply = init(r#"{"accessToken":"other"}"#).await;
    assert_eq!((reply.status, reply.text().trim_end()), (401, "access token validation failed"));
    assert!(reply.header("content-type").unwrap().starts_with("text/plain"));
    let reply = init("{}").await;
    assert_eq!((reply.status, reply.text().trim_end()), (401, "access token reset not authorized"));
    assert_eq!(envs().await.json()["A"], "1", "a refused request changes nothing");
    assert_eq!(init(r#"{"accessToken":"tok"}"#).await.status, 204);
    assert_eq!(init(r#"{"accessToken":"tok","envVars":null}"#).await.status, 204);
    assert_eq!(envs().await.json()["A"], "1", "no set of variables leaves the last one");
    assert_eq!(init(r#"{"accessToken":"tok","envVars":{}}"#).await.status, 204);
    assert_eq!(envs().await.json(), json!({"E2B_SANDBOX":"false"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_init_bodies_are_400_without_a_text_and_change_nothing() {
    let agent = Agent::start().await;
    for body in [
        "{",
        "[]",
        "1",
        "\"x\"",
        r#"{"envVars":[]}"#,
        r#"{"envVars":{"A":1}}"#,
        r#"{"accessToken":1}"#,
        r#"{"accessToken":""}"#,
        r#"{"accessToken":"a\\b"}"#,
        r#"{"accessToken":"\u0061"}"#,
        r#"{"timestamp":"yesterday"}"#,
        r#"{"timestamp":1}"#,
        r#"{"defaultUser":1}"#,
        r#"{"volumeMounts":{}}"#,
        r#"{"caBundle":false}"#,
        r#"{"envVars":{"A":"1"}}trailing"#,
        "\u{0}",
    ] {
        let reply = agent.send("POST", "/init", &[], body).await;
        assert_eq!((reply.status, reply.body.len()), (400, 0), "{body}");
        assert_eq!(reply.header("x-envd-version"), Some("0.6.13"));
    }
    let invalid = b"{\"accessToken\":\"\xff\xfe\"}";
    assert_eq!(agent.send("POST", "/init", &[], invalid).await.status, 400);
    assert_eq!(agent.get("/envs").await.assert_ok(), json!({"E2B_SANDBOX":"false"}));
    for body in ["null", r#"{"unknown":[1,{"a":null}],"accessToken":null}"#, " {} "] {
        assert_eq!(agent.send("POST", "/init", &[("content-type", "text/html")], body).await.status, 204, "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_init_does_not_undo_a_newer_one() {
    let agent = Agent::start().await;
    for (timestamp, value, shown) in [
        ("2024-05-01T00:00:00.000000002Z", "new", "new"),
        ("2024-05-01T00:00:00.000000001Z", "old", "new"),
        ("2024-05-01T00:00:00.000000002Z", "equal", "equal"),
        ("2024-05-01T02:00:00.000000001+02:00", "old elsewhere", "equal"),
    ] {
        let body = json!({ "timestamp": timestamp, "envVars": { "A": value } });
        assert_eq!(agent.send("POST", "/init", &[], body.to_string()).await.status, 204);
        assert_eq!(agent.get("/envs").await.json()["A"], shown, "{timestamp}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_one_flat_object_in_a_fixed_order() {
    let agent = Agent::start().await;
    let reply = agent.get("/metrics").await;
    let metrics = reply.assert_ok();
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let keys: Vec<_> = metrics.as_object().unwrap().keys().map(String::as_str).collect();
    let expected =
        "ts cpu_count cpu_used_pct mem_total_mib mem_used_mib mem_total mem_used mem_cache disk_used disk_total";
    assert_eq!(keys.join(" "), expected);
    for (name, value) in metrics.as_object().unwrap() {
        assert!(value.is_number(), "{name}");
        assert!(name == "cpu_used_pct" || value.is_u64(), "{name} is an integer");
    }
    let percent = metrics["cpu_used_pct"].as_f64().unwrap();
    assert!((0.0..=100.0).contains(&percent), "{percent}");
}
