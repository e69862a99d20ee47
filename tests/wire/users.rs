//! The user that a request names.

use base64_simd::STANDARD;
use serde_json::json;

use crate::{
    agent::{Agent, START, sh},
    stream::{frame, frames},
};

fn basic(name: &str) -> String {
    format!("Basic {}", STANDARD.encode_to_string(format!("{name}:ignored:password")))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_user_is_refused_everywhere_in_the_shape_of_the_protocol() {
    let agent = Agent::start().await;
    for name in ["nobody-has-this-name", "", "0", "ROOT", "root "] {
        let credentials = basic(name);
        let user = ("authorization", credentials.as_str());
        let told = format!("invalid username: '{name}'");
        for (method, path) in [
            ("GET", "/health"),
            ("POST", "/init"),
            ("GET", "/files"),
            ("POST", "/files"),
            ("GET", "/nope"),
            ("POST", "/process.Process/List"),
            ("POST", "/filesystem.Filesystem/GetWatcherEvents"),
        ] {
            let reply = agent.send(method, path, &[user, ("content-type", "application/json")], "{}").await;
            reply.assert_rpc_error(401, "unauthenticated", &told);
        }
        for path in
            [START, "/process.Process/Connect", "/process.Process/StreamInput", "/filesystem.Filesystem/WatchDir"]
        {
            for content_type in ["application/connect+json", "application/connect+proto"] {
                let reply = agent.send("POST", path, &[user, ("content-type", content_type)], frame(0, "{}")).await;
                let end = json!({ "error": { "code": "unauthenticated", "message": told } }).to_string();
                assert_eq!((reply.status, frames(&reply.body)), (200, vec![(2, end.into_bytes())]), "{path}");
                assert_eq!(reply.header("content-type"), Some(content_type));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_schemes_and_no_header_mean_the_default_user() {
    let agent = Agent::start().await;
    let me = whoami(&agent, &[]).await;
    for header in ["Bearer abc", "Basic", "Basic !!!", "Digest x", ""] {
        assert_eq!(whoami(&agent, &[("authorization", header)]).await, me, "{header:?}");
    }
    assert_eq!(whoami(&agent, &[("authorization", &basic(&me))]).await, me);
}

async fn whoami(agent: &Agent, headers: &[(&str, &str)]) -> String {
    agent.stream(START, headers, sh("printf %s \"$USER\"")).await.all().await.stdout()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_default_user_who_does_not_exist_fails_only_what_needs_one() {
    let agent = Agent::start().await;
    assert_eq!(agent.send("POST", "/init", &[], r#"{"defaultUser":"ghost"}"#).await.status, 204);
    let told = "invalid default user: 'ghost'";
    for method in ["Stat", "MakeDir", "Move", "ListDir", "Remove", "CreateWatcher"] {
        agent.filesystem(method, json!({})).await.assert_rpc_error(401, "unauthenticated", told);
    }
    agent.stream(START, &[], sh("true")).await.assert_error("unauthenticated", told).await;
    agent.stream("/filesystem.Filesystem/WatchDir", &[], "{}").await.assert_error("unauthenticated", told).await;
    for (method, status) in [("List", 200), ("SendSignal", 501), ("CloseStdin", 501)] {
        assert_eq!(agent.process(method, json!({})).await.status, status, "{method}");
    }
    for method in ["GetWatcherEvents", "RemoveWatcher"] {
        assert_eq!(agent.filesystem(method, json!({"watcherId":"x"})).await.status, 404, "{method}");
    }
    agent
        .get("/files?path=/etc/passwd")
        .await
        .assert_http_error(401, "error looking up user 'ghost': user: unknown user ghost");
}
