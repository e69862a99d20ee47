//! Events of directories, told in streams and on request.

use serde_json::{Value, json};

use crate::agent::Agent;

const WATCH: &str = "/filesystem.Filesystem/WatchDir";
const RAW: (&str, &str) = ("content-type", "application/octet-stream");

async fn watcher(agent: &Agent, more: Value) -> Value {
    let mut body = json!({ "path": agent.path("").trim_end_matches('/') });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    agent.filesystem("CreateWatcher", body).await.assert_ok()
}

/// Name and type of what has happened since the last call.
async fn events(agent: &Agent, id: &Value) -> Vec<(String, String)> {
    let reply = agent.filesystem("GetWatcherEvents", id.clone()).await.assert_ok();
    let Some(events) = reply["events"].as_array() else { return Vec::new() };
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let kind = |value: &Value| text(value).strip_prefix("EVENT_TYPE_").unwrap().to_owned();
    events.iter().map(|event| (text(&event["name"]), kind(&event["type"]))).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(name, kind)| ((*name).to_owned(), (*kind).to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_exactly_three_events_right_after_its_answer() {
    let agent = Agent::start().await;
    let id = watcher(&agent, json!({})).await;
    assert_eq!(events(&agent, &id).await, []);
    for round in 0..20 {
        let name = format!("f{round}");
        let target = format!("/files?path={}", agent.path(&name));
        assert_eq!(agent.send("POST", &target, &[RAW], "content").await.status, 200);
        assert_eq!(events(&agent, &id).await, pairs(&[(&name, "CREATE"), (&name, "CHMOD"), (&name, "WRITE")]));
    }
    assert_eq!(agent.filesystem("RemoveWatcher", id.clone()).await.text(), "{}");
    assert_eq!(agent.filesystem("RemoveWatcher", id.clone()).await.status, 404);
    assert_eq!(agent.filesystem("GetWatcherEvents", id).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn moves_and_removals_have_their_names() {
    let agent = Agent::start().await;
    let (a, b) = (agent.file("a", ""), agent.path("b"));
    let id = watcher(&agent, json!({ "includeEntry": true })).await;
    agent.filesystem("Move", json!({ "source": a, "destination": b })).await.assert_ok();
    let reply = agent.filesystem("GetWatcherEvents", id.clone()).await.assert_ok();
    let told = reply["events"].as_array().unwrap();
    assert_eq!((&told[0], told.len()), (&json!({ "name": "a", "type": "EVENT_TYPE_RENAME" }), 2));
    assert_eq!(
        (&told[1]["name"], &told[1]["type"], &told[1]["entry"]["path"]),
        (&json!("b"), &json!("EVENT_TYPE_CREATE"), &json!(b))
    );
    agent.filesystem("Remove", json!({ "path": b })).await.assert_ok();
    assert_eq!(events(&agent, &id).await, pairs(&[("b", "REMOVE")]));
    // Nothing that happens inside a directory below, unless asked for.
    agent.filesystem("MakeDir", json!({ "path": agent.path("sub") })).await.assert_ok();
    agent.file("sub/x", "y");
    let told = events(&agent, &id).await;
    assert!(told.contains(&("sub".into(), "CREATE".into())) && told.iter().all(|(name, _)| name == "sub"), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn new_directories_are_watched_at_once_where_asked() {
    let agent = Agent::start().await;
    let id = watcher(&agent, json!({ "recursive": true })).await;
    agent.filesystem("MakeDir", json!({ "path": agent.path("new/nested") })).await.assert_ok();
    let target = format!("/files?path={}", agent.path("new/nested/f"));
    assert_eq!(agent.send("POST", &target, &[RAW], "content").await.status, 200);
    let told = events(&agent, &id).await;
    for expected in [("new", "CREATE"), ("new/nested", "CREATE"), ("new/nested/f", "CREATE"), ("new/nested/f", "WRITE")]
    {
        assert!(told.contains(&(expected.0.into(), expected.1.into())), "{expected:?} in {told:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_tells_everything_after_its_start() {
    let agent = Agent::start().await;
    let body = json!({ "path": agent.path(""), "includeEntry": true });
    let mut stream = agent.stream(WATCH, &[], body).await;
    assert_eq!(stream.message().await.unwrap(), json!({ "start": {} }));
    let path = agent.path("f");
    assert_eq!(agent.send("POST", &format!("/files?path={path}"), &[RAW], "content").await.status, 200);
    for kind in ["CREATE", "CHMOD", "WRITE"] {
        let event = stream.event_of("filesystem").await;
        assert_eq!((&event["name"], &event["type"]), (&json!("f"), &json!(format!("EVENT_TYPE_{kind}"))));
        assert_eq!(event["entry"]["path"], path);
    }
    // Removed and made again: the watch survives, and tells the directory's own events as a dot.
    std::fs::set_permissions(agent.work(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let event = stream.event_of("filesystem").await;
    assert_eq!((&event["name"], &event["type"]), (&json!("."), &json!("EVENT_TYPE_CHMOD")));
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_watchers_cost_no_instances() {
    let agent = Agent::start().await;
    let mut ids = Vec::new();
    for _ in 0..200 {
        ids.push(watcher(&agent, json!({})).await);
    }
    agent.file("f", "");
    for id in &ids {
        assert_eq!(events(&agent, id).await.first(), Some(&("f".to_owned(), "CREATE".to_owned())));
    }
}
