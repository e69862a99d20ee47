//! What the filesystem service refuses, and the entries it tells.

use std::os::unix::fs::{PermissionsExt, symlink};

use serde_json::{Value, json};

use crate::{
    agent::{Agent, FILESYSTEM_UNARY},
    stream::frames,
};

const WATCH: &str = "/filesystem.Filesystem/WatchDir";

/// Methods with one path.
const PATHS: [&str; 5] = ["Stat", "MakeDir", "ListDir", "Remove", "CreateWatcher"];

async fn entry(agent: &Agent, path: &str) -> Value {
    agent.filesystem("Stat", json!({ "path": path })).await.assert_ok()["entry"].take()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_home_is_an_invalid_argument_everywhere() {
    let agent = Agent::start().await;
    let told = "failed to expand path ";
    for method in PATHS {
        for path in ["~nobody", "~nobody/x", "~~"] {
            let reply = agent.filesystem(method, json!({ "path": path })).await;
            reply.assert_rpc_error_begins(400, "invalid_argument", told);
            assert!(reply.text().contains("cannot expand user-specific home dir"), "{}", reply.text());
        }
        let reply = agent.filesystem(method, json!({ "path": "/a\0b" })).await;
        reply.assert_rpc_error_begins(400, "invalid_argument", "");
    }
    for (source, destination) in [("~nobody", "/x"), ("/x", "~nobody")] {
        let reply = agent.filesystem("Move", json!({ "source": source, "destination": destination })).await;
        reply.assert_rpc_error_begins(400, "invalid_argument", told);
    }
    let told = agent.stream(WATCH, &[], json!({ "path": "~nobody" })).await.all().await;
    assert_eq!(told.close["error"]["code"], "invalid_argument");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_not_found() {
    let agent = Agent::start().await;
    let (missing, there) = (agent.path("missing"), agent.file("file", ""));
    let told = format!("file not found: lstat {missing}: no such file or directory");
    agent.filesystem("Stat", json!({ "path": missing })).await.assert_rpc_error(404, "not_found", &told);
    // A path through a file is missing, too.
    let reply = agent.filesystem("Stat", json!({ "path": format!("{there}/x") })).await;
    reply.assert_rpc_error_begins(404, "not_found", "file not found: ");
    let told = format!("path not found: lstat {missing}: no such file or directory");
    agent.filesystem("ListDir", json!({ "path": missing })).await.assert_rpc_error(404, "not_found", &told);
    symlink("nowhere", agent.path("dangling")).unwrap();
    let reply = agent.filesystem("ListDir", json!({ "path": agent.path("dangling") })).await;
    reply.assert_rpc_error_begins(404, "not_found", "path not found: ");
    let to = agent.path("new/deep");
    let told = format!("source file not found: rename {missing} {to}: no such file or directory");
    let body = json!({ "source": missing, "destination": to });
    agent.filesystem("Move", body).await.assert_rpc_error(404, "not_found", &told);
    let told = format!("path {missing} not found: stat {missing}: no such file or directory");
    agent.filesystem("CreateWatcher", json!({ "path": missing })).await.assert_rpc_error(404, "not_found", &told);
    agent.stream(WATCH, &[], json!({ "path": missing })).await.assert_error("not_found", &told).await;
    for method in ["GetWatcherEvents", "RemoveWatcher"] {
        for id in ["w1234", "", "../x"] {
            let told = format!("watcher with id {id} not found");
            agent.filesystem(method, json!({ "watcherId": id })).await.assert_rpc_error(404, "not_found", &told);
        }
    }
    assert_eq!(agent.filesystem("Remove", json!({ "path": missing })).await.text(), "{}");
    assert_eq!(agent.filesystem("Remove", json!({ "path": format!("{there}/x") })).await.text(), "{}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_directory_is_an_invalid_argument() {
    let agent = Agent::start().await;
    let file = agent.file("file", "");
    let canonical = std::fs::canonicalize(&file).unwrap();
    let told = format!("path is not a directory: {}", canonical.display());
    agent.filesystem("ListDir", json!({ "path": file })).await.assert_rpc_error(400, "invalid_argument", &told);
    let told = format!("path already exists but it is not a directory: {file}");
    agent.filesystem("MakeDir", json!({ "path": file })).await.assert_rpc_error(400, "invalid_argument", &told);
    let told = format!("path {file} not a directory");
    agent.filesystem("CreateWatcher", json!({ "path": file })).await.assert_rpc_error(400, "invalid_argument", &told);
    agent.stream(WATCH, &[], json!({ "path": file })).await.assert_error("invalid_argument", &told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_are_made_once_with_their_parents() {
    let agent = Agent::start().await;
    let deep = agent.path("a/b/c");
    let made = agent.filesystem("MakeDir", json!({ "path": deep })).await.assert_ok();
    let made = &made["entry"];
    assert_eq!(
        (&made["type"], &made["path"], &made["permissions"]),
        (&json!("FILE_TYPE_DIRECTORY"), &json!(deep), &json!("drwxr-xr-x"))
    );
    let told = format!("directory already exists: {deep}");
    agent.filesystem("MakeDir", json!({ "path": deep })).await.assert_rpc_error(409, "already_exists", &told);
    let told = format!("directory already exists: {deep}/");
    agent.filesystem("MakeDir", json!({ "path": format!("{deep}/") })).await.assert_rpc_error(
        409,
        "already_exists",
        &told,
    );
    agent.file("file", "");
    let reply = agent.filesystem("MakeDir", json!({ "path": agent.path("file/x") })).await;
    reply.assert_rpc_error_begins(500, "internal", "error getting file info: ");
    symlink("nowhere", agent.path("dangling")).unwrap();
    let reply = agent.filesystem("MakeDir", json!({ "path": agent.path("dangling") })).await;
    assert_eq!((reply.status, reply.json()["code"].as_str()), (500, Some("internal")));
}

#[tokio::test(flavor = "multi_thread")]
async fn moves_replace_files_and_nothing_else() {
    let agent = Agent::start().await;
    let (a, b) = (agent.file("a", "A"), agent.file("b", "B"));
    let (dir, other) = (agent.path("dir"), agent.path("other"));
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::create_dir_all(&other).unwrap();
    let go = async |from: &str, to: &str| agent.filesystem("Move", json!({ "source": from, "destination": to })).await;
    for (from, to) in [(&a, &dir), (&dir, &other), (&dir, &dir)] {
        let told = format!("error renaming: rename {from} {to}: file exists");
        go(from, to).await.assert_rpc_error(500, "internal", &told);
    }
    let inside = format!("{dir}/sub");
    let told = format!("error renaming: rename {dir} {inside}: invalid argument");
    go(&dir, &inside).await.assert_rpc_error(500, "internal", &told);
    go(&a, &format!("{b}/x")).await.assert_rpc_error_begins(500, "internal", &format!("path is a file: {b}"));
    let moved = go(&a, &b).await.assert_ok();
    assert_eq!((&moved["entry"]["path"], std::fs::read_to_string(&b).unwrap()), (&json!(b), "A".to_owned()));
    assert!(!std::path::Path::new(&a).exists());
    symlink("anywhere", agent.path("link")).unwrap();
    assert_eq!(go(&agent.path("link"), &agent.path("new/link")).await.status, 200);
    assert_eq!(std::fs::read_link(agent.path("new/link")).unwrap().to_str(), Some("anywhere"));
    let device = |path: &str| std::fs::metadata(path).ok().map(|meta| std::os::unix::fs::MetadataExt::dev(&meta));
    if device("/dev/shm").is_some_and(|shm| Some(shm) != device(&b)) {
        let far = format!("/dev/shm/envd-wire-{}", std::process::id());
        let told = format!("error renaming: rename {b} {far}: invalid cross-device link");
        go(&b, &far).await.assert_rpc_error(500, "internal", &told);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cyclic_links_are_a_failed_precondition() {
    let agent = Agent::start().await;
    symlink("loop", agent.path("loop")).unwrap();
    let reply = agent.filesystem("ListDir", json!({ "path": agent.path("loop") })).await;
    reply.assert_rpc_error_begins(400, "failed_precondition", "cyclic symlink or chain >255 links at ");
    let link = entry(&agent, &agent.path("loop")).await;
    assert_eq!(link["symlinkTarget"], agent.path("loop"));
    assert!(link.get("type").is_none() && link.get("mode").is_none(), "{link}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_root_is_not_removed_and_dots_are_cleaned_first() {
    let agent = Agent::start().await;
    for path in ["/", "//", "/.", "/..", "/tmp/.."] {
        let reply = agent.filesystem("Remove", json!({ "path": path })).await;
        reply.assert_rpc_error(400, "invalid_argument", "refusing to remove the root directory");
    }
    agent.file("tree/a/b", "");
    agent.file("keep", "");
    symlink("keep", agent.path("tree/link")).unwrap();
    let reply = agent.filesystem("Remove", json!({ "path": agent.path("tree/./a/..") })).await;
    assert_eq!(reply.text(), "{}");
    assert!(!agent.work().join("tree").exists() && agent.work().join("keep").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn absolute_paths_are_told_as_they_were_written() {
    let agent = Agent::start().await;
    agent.file("dir/file", "x");
    for path in [agent.path("dir/../dir"), agent.path("dir/"), agent.path("./dir//file")] {
        assert_eq!(entry(&agent, &path).await["path"], path);
    }
    assert_eq!(entry(&agent, "/").await["name"], "/");
    assert_eq!(entry(&agent, "").await["path"], agent.path("").trim_end_matches('/'));
    let home = entry(&agent, "~").await["path"].as_str().unwrap().to_owned();
    assert_eq!(entry(&agent, "a/../.").await["path"], home);
    // A listing is about the path as written, too, with what is below it cleaned.
    symlink("dir", agent.path("link")).unwrap();
    let listed = agent.filesystem("ListDir", json!({ "path": agent.path("link/") })).await.assert_ok();
    assert_eq!(listed["entries"][0]["path"], agent.path("link/file"));
}

#[tokio::test(flavor = "multi_thread")]
async fn listings_are_in_order_and_as_deep_as_asked() {
    let agent = Agent::start().await;
    for name in ["root/b/x/y", "root/a", "root/b/c", "root/B", "root/.hidden"] {
        agent.file(name, "");
    }
    for (depth, expected) in
        [(0, ".hidden B a b"), (1, ".hidden B a b"), (2, ".hidden B a b b/c b/x"), (9, ".hidden B a b b/c b/x b/x/y")]
    {
        let listed =
            agent.filesystem("ListDir", json!({ "path": agent.path("root"), "depth": depth })).await.assert_ok();
        let root = agent.path("root/");
        let paths: Vec<_> = listed["entries"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| entry["path"].as_str().unwrap().strip_prefix(&root).unwrap())
            .collect();
        assert_eq!(paths.join(" "), expected, "{depth}");
    }
    std::fs::create_dir(agent.path("empty")).unwrap();
    assert_eq!(agent.filesystem("ListDir", json!({ "path": agent.path("empty") })).await.text(), "{}");
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_look_as_clients_expect() {
    let agent = Agent::start().await;
    let file = agent.file("file", "12345");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o4755)).unwrap();
    symlink("file", agent.path("link")).unwrap();
    symlink("nowhere", agent.path("dangling")).unwrap();
    assert!(
        std::process::Command::new("mkfifo").args(["-m", "644"]).arg(agent.path("fifo")).status().unwrap().success()
    );
    let told = entry(&agent, &file).await;
    assert_eq!(
        (&told["permissions"], &told["mode"], &told["size"]),
        (&json!("urwxr-xr-x"), &json!(0o755), &json!("5"))
    );
    let link = entry(&agent, &agent.path("link")).await;
    assert_eq!(
        (&link["type"], &link["mode"], &link["permissions"]),
        (&json!("FILE_TYPE_FILE"), &json!(0o755), &json!("Lrwxrwxrwx"))
    );
    assert_eq!((&link["symlinkTarget"], &link["size"]), (&json!(std::fs::canonicalize(&file).unwrap()), &json!("4")));
    let dangling = entry(&agent, &agent.path("dangling")).await;
    assert!(dangling.get("type").is_none(), "{dangling}");
    assert_eq!(dangling["symlinkTarget"], agent.path("dangling"));
    let fifo = entry(&agent, &agent.path("fifo")).await;
    assert_eq!((fifo.get("type"), &fifo["permissions"]), (None, &json!("prw-r--r--")));
    assert_eq!(entry(&agent, "/dev/null").await["permissions"], "Dcrw-rw-rw-");
    assert_eq!(entry(&agent, "/tmp/").await["permissions"].as_str().unwrap().get(..1), Some("d"));
    let reply = agent.filesystem("Stat", json!({ "path": format!("{file}/") })).await;
    assert_eq!(reply.status, 404, "{}", reply.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_client_gets_the_oldest_schema() {
    let agent = Agent::start().await;
    let file = agent.file("dir/file", "12345");
    let json = ("content-type", "application/json");
    let old = [json, ("user-agent", "connect-python")];
    let send = async |method: &str, headers: &[(&str, &str)], body: Value| {
        agent.send("POST", &format!("/filesystem.Filesystem/{method}"), headers, body.to_string()).await
    };
    let reply = send("Stat", &old, json!({ "path": file })).await;
    assert_eq!(reply.json(), json!({ "entry": { "name": "file", "type": "FILE_TYPE_FILE", "path": file } }));
    assert_eq!(reply.all("x-e2b-legacy-sdk"), ["true"]);
    let reply = send("ListDir", &old, json!({ "path": agent.path("dir") })).await;
    assert_eq!(reply.json(), json!({ "entries": [{ "name": "file", "type": "FILE_TYPE_FILE", "path": file }] }));
    let reply = send("CreateWatcher", &old, json!({ "path": agent.path("dir"), "includeEntry": true })).await;
    assert_eq!(reply.all("x-e2b-legacy-sdk"), ["true"]);
    let id = reply.assert_ok();
    agent.file("dir/new", "");
    let reply = send("GetWatcherEvents", &old, id.clone()).await;
    assert_eq!(reply.json()["events"][0], json!({ "name": "new", "type": "EVENT_TYPE_CREATE" }));
    assert_eq!(reply.all("x-e2b-legacy-sdk"), ["true"]);
    for (method, body) in [
        ("MakeDir", json!({ "path": agent.path("made") })),
        ("Move", json!({ "source": agent.path("made"), "destination": agent.path("moved") })),
    ] {
        let reply = send(method, &old, body).await;
        assert_eq!(reply.assert_ok()["entry"].as_object().unwrap().len(), 3, "{method}");
        assert_eq!(reply.all("x-e2b-legacy-sdk"), ["true"]);
    }
    assert_eq!(send("Remove", &old, json!({ "path": agent.path("moved") })).await.all("x-e2b-legacy-sdk"), ["true"]);
    assert_eq!(send("RemoveWatcher", &old, id).await.all("x-e2b-legacy-sdk"), ["true"]);
    let stream = agent.stream(WATCH, &[("user-agent", "connect-python")], json!({ "path": "/" })).await;
    assert_eq!(stream.head.header("x-e2b-legacy-sdk"), Some("true"));
    // Not on failures, not for others, not elsewhere.
    for method in FILESYSTEM_UNARY {
        let reply = send(method, &old, json!({ "path": "~x", "source": "~x" })).await;
        assert_eq!((reply.status >= 400, reply.header("x-e2b-legacy-sdk")), (true, None), "{method}");
    }
    for agent_name in ["connect-python/1", "Connect-Python", "e2b-python-sdk/2", "connect-python "] {
        let reply = send("Stat", &[json, ("user-agent", agent_name)], json!({ "path": file })).await;
        let legacy = agent_name.trim() == "connect-python";
        assert_eq!(reply.json()["entry"].get("owner").is_none(), legacy, "{agent_name:?}");
    }
    let reply = agent.send("POST", "/process.Process/List", &old, "{}").await;
    assert_eq!(reply.header("x-e2b-legacy-sdk"), None);
    let missing = [("content-type", "application/connect+json"), ("user-agent", "connect-python")];
    let body = crate::stream::frame(0, r#"{"path":"/missing"}"#);
    let reply = agent.send("POST", WATCH, &missing, body).await;
    assert_eq!((reply.header("x-e2b-legacy-sdk"), frames(&reply.body).len()), (None, 1));
}
