//! `POST /files` and `POST /files/compose`.

use std::{fs, os::unix::fs::MetadataExt};

use serde_json::{Value, json};

use crate::{agent::Agent, http1::Reply, stream::gzip};

const RAW: (&str, &str) = ("content-type", "application/octet-stream");
const FORM: (&str, &str) = ("content-type", "multipart/form-data; boundary=XX");

fn url(path: &str) -> String {
    let path = percent_encoding::utf8_percent_encode(path, percent_encoding::NON_ALPHANUMERIC);
    format!("/files?path={path}")
}

/// A form of parts, each with its disposition and its content.
fn form(parts: &[(&str, &str)]) -> String {
    let mut form = String::new();
    for (disposition, content) in parts {
        form.push_str(&format!("--XX\r\nContent-Disposition: form-data; {disposition}\r\n\r\n{content}\r\n"));
    }
    form + "--XX--\r\n"
}

fn told(name: &str, path: &str) -> Value {
    json!({ "name": name, "path": path, "type": "file" })
}

#[tokio::test(flavor = "multi_thread")]
async fn one_file_is_an_array_of_exactly_three_members() {
    let agent = Agent::start().await;
    let path = agent.path("new/deep/a b.txt");
    let reply = agent.send("POST", &url(&path), &[RAW], "content").await;
    assert_eq!(reply.assert_ok(), json!([told("a b.txt", &path)]));
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_eq!(fs::read_to_string(&path).unwrap(), "content");
    let meta = fs::metadata(&path).unwrap();
    assert_eq!(meta.mode() & 0o777, 0o644);
    assert_eq!(fs::metadata(agent.path("new/deep")).unwrap().mode() & 0o777, 0o755);
    // In place: the same inode with the same mode.
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(agent.send("POST", &url(&path), &[RAW], "").await.status, 200);
    let after = fs::metadata(&path).unwrap();
    assert_eq!((after.ino(), after.mode() & 0o777, after.len()), (meta.ino(), 0o600, 0));
    // A device takes what it is given.
    assert_eq!(
        agent.send("POST", &url("/dev/null"), &[RAW], "gone").await.assert_ok(),
        json!([told("null", "/dev/null")])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_the_kernel_are_written_in_place() {
    let agent = Agent::start().await;
    // The name of this very process, since the agent runs inside it.
    let comm = format!("/proc/{}/comm", std::process::id());
    let reply = agent.send("POST", &url(&comm), &[RAW], "wire-renamed").await;
    assert_eq!(reply.assert_ok(), json!([told("comm", &comm)]));
    assert_eq!(fs::read_to_string(&comm).unwrap(), "wire-renamed\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_in_their_order() {
    let agent = Agent::start().await;
    let post =
        async |target: &str, headers: &[(&str, &str)], body: &str| agent.send("POST", target, headers, body).await;
    let path = agent.path("f");
    let target = url(&path);
    let ghost = format!("{target}&username=ghost");

    let unsupported = "error decompressing request body: unsupported Content-Encoding: br, supported: [gzip]";
    post(&ghost, &[RAW, ("content-encoding", "br")], "x").await.assert_http_error(400, unsupported);
    let broken = post(&ghost, &[RAW, ("content-encoding", "gzip")], "no gzip at all").await;
    broken.assert_http_error_begins(400, "error decompressing request body: failed to create gzip reader: ");
    let unknown = "error looking up user 'ghost': user: unknown user ghost";
    post(&ghost, &[RAW, ("x-metadata-a", "\u{e4}")], "x").await.assert_http_error(401, unknown);
    let metadata = post(&target, &[("x-metadata-a", "\u{e4}")], "x").await;
    metadata.assert_http_error_begins(
        400,
        "invalid metadata: metadata value for key \"a\" contains non-printable-ASCII byte 0xc3 at offset 0",
    );
    let long = "k".repeat(247);
    let reply = post(&target, &[RAW, (&format!("x-metadata-{long}"), "v")], "x").await;
    reply.assert_http_error(400, &format!("invalid metadata: metadata key \"{long}\" exceeds 246 bytes"));
    let large = "v".repeat(4096 - 9);
    let reply = post(&target, &[RAW, ("x-metadata-k", &large)], "x").await;
    reply.assert_http_error(400, "invalid metadata: total metadata size 4097 exceeds 4096 bytes");
    for (content_type, shown) in
        [(None, ""), (Some("text/plain"), "text/plain"), (Some("application/json; x=y"), "application/json; x=y")]
    {
        let headers: Vec<_> = content_type.map(|value| ("content-type", value)).into_iter().collect();
        let told =
            format!("unsupported content type: {shown}, expected multipart/form-data or application/octet-stream");
        post(&target, &headers, "x").await.assert_http_error(400, &told);
    }
    assert!(!fs::exists(&path).unwrap(), "nothing was written");
    post("/files", &[RAW], "x").await.assert_http_error(400, "path query parameter is required for raw body upload");
    let work = agent.path("").trim_end_matches('/').to_owned();
    let directory = format!("path is a directory: {work}");
    for target in ["/files?path=".to_owned(), url(&work)] {
        post(&target, &[RAW], "x").await.assert_http_error(400, &directory);
    }
    post(&url("~nobody"), &[RAW], "x")
        .await
        .assert_http_error_begins(400, "error expanding and resolving path '~nobody': ");
    agent.file("file", "");
    let inside = agent.path("file/x/y");
    post(&url(&inside), &[RAW], "x")
        .await
        .assert_http_error(500, &format!("error ensuring directories: path is a file: {}", agent.path("file")));
    let slash = format!("{}/", agent.path("dir"));
    post(&url(&slash), &[RAW], "x").await.assert_http_error_begins(400, "path is a directory: ");
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_are_taken_part_by_part() {
    let agent = Agent::start().await;
    let (a, b) = (agent.path("dir/a.txt"), agent.path("b.txt"));
    let name = |path: &str| format!("name=\"file\"; filename=\"{path}\"");
    let body = form(&[(&name(&a), "A"), ("name=\"other\"", "skipped"), (&name(&b), "B\r\nB")]);
    let reply = agent.send("POST", "/files", &[FORM], &body).await;
    assert_eq!(reply.assert_ok(), json!([told("a.txt", &a), told("b.txt", &b)]));
    assert_eq!((fs::read_to_string(&a).unwrap(), fs::read_to_string(&b).unwrap()), ("A".into(), "B\r\nB".into()));
    // With a path, a bare field does.
    let one = agent.path("one");
    let reply = agent.send("POST", &url(&one), &[FORM], form(&[("name=\"file\"", "1")])).await;
    assert_eq!(reply.assert_ok(), json!([told("one", &one)]));
    assert_eq!(agent.send("POST", "/files", &[FORM], form(&[("name=\"x\"", "1")])).await.assert_ok(), json!([]));
    // The whole form may be compressed.
    let packed = gzip(form(&[(&name(&a), "packed")]));
    let reply = agent.send("POST", "/files", &[FORM, ("content-encoding", "GZIP")], packed).await;
    assert_eq!((reply.status, fs::read_to_string(&a).unwrap()), (200, "packed".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_forms_are_told() {
    let agent = Agent::start().await;
    let path = agent.path("f");
    let file = format!("name=\"file\"; filename=\"{path}\"");
    let post = async |content_type: &str, target: &str, body: &str| -> Reply {
        agent.send("POST", target, &[("content-type", content_type)], body).await
    };
    let not_form = "error parsing multipart form: request Content-Type isn't multipart/form-data";
    post("multipart/related; boundary=XX", "/files", "").await.assert_http_error(500, not_form);
    let no_boundary = "error parsing multipart form: no multipart boundary param in Content-Type";
    post("multipart/form-data", "/files", "").await.assert_http_error(500, no_boundary);
    for body in
        ["", "garbage", "--XX\r\nbroken", "--XX\r\nContent-Disposition: form-data; name=\"other\"\r\n\r\nno end"]
    {
        post(FORM.1, "/files", body).await.assert_http_error_begins(500, "error reading form: ");
    }
    let no_name = "error getting multipart custom part file name: filename not found in Content-Disposition header";
    post(FORM.1, "/files", &form(&[("name=\"file\"", "x")])).await.assert_http_error(400, no_name);
    let twice = form(&[(&file, "first"), (&file, "second")]);
    let same = format!(
        "you cannot upload multiple files to the same path '{path}' in one upload request, only the first specified \
         file was uploaded"
    );
    post(FORM.1, "/files", &twice).await.assert_http_error(400, &same);
    assert_eq!(fs::read_to_string(&path).unwrap(), "first");
    let (x, y) = (agent.path("x"), agent.path("y"));
    let name = |path: &str| format!("name=\"file\"; filename=\"{path}\"");
    let body = form(&[(&file, "1"), (&name(&x), "2"), (&name(&y), "3"), (&file, "4")]);
    let more = format!("{same}, also the following files were uploaded: ");
    post(FORM.1, "/files", &body).await.assert_http_error_begins(400, &more);
    let cut = format!("--XX\r\nContent-Disposition: form-data; {file}\r\n\r\nhalf a fi");
    post(FORM.1, "/files", &cut).await.assert_http_error(500, "error writing file: unexpected EOF");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_upload_is_told_and_harms_nobody() {
    let agent = Agent::start().await;
    let path = agent.path("f");
    let packed = gzip("some content that is long enough to be cut in half");
    let reply =
        agent.send("POST", &url(&path), &[RAW, ("content-encoding", "gzip")], &packed[..packed.len() / 2]).await;
    reply.assert_http_error(500, "error writing file: unexpected EOF");
    // The client goes away in the middle.
    let mut connection = agent.connect().await;
    let head = format!(
        "POST {} HTTP/1.1\r\nhost: x\r\ncontent-type: application/octet-stream\r\ncontent-length: 100\r\n\r\n12345678",
        url(&path)
    );
    connection.write(head.as_bytes()).await;
    drop(connection);
    agent.assert_alive().await;
    assert_eq!(agent.send("POST", &url(&path), &[RAW], "whole").await.status, 200);
    assert_eq!(fs::read_to_string(&path).unwrap(), "whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_is_replaced_as_a_whole() {
    let agent = Agent::start().await;
    let path = agent.path("f");
    let reply = agent.send("POST", &url(&path), &[RAW, ("X-Metadata-Key", "1"), ("x-metadata-other", "2")], "x").await;
    let metadata = reply.assert_ok()[0]["metadata"].take();
    assert_eq!(metadata, json!({ "key": "1", "other": "2" }));
    let moved = agent.path("moved");
    let reply = agent.filesystem("Move", json!({ "source": path, "destination": moved })).await.assert_ok();
    assert_eq!(reply["entry"]["metadata"], json!({ "key": "1", "other": "2" }));
    let reply = agent.send("POST", &url(&moved), &[RAW, ("x-metadata-third", "")], "x").await;
    assert_eq!(reply.assert_ok()[0]["metadata"], json!({ "third": "" }));
    assert_eq!(agent.send("POST", &url(&moved), &[RAW], "x").await.assert_ok(), json!([told("moved", &moved)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn composing_checks_everything_first() {
    let agent = Agent::start().await;
    let compose = async |body: Value| agent.send("POST", "/files/compose", &[], body.to_string()).await;
    for body in ["", "{", "[]", "1", r#"{"source_paths":"a"}"#, r#"{"source_paths":[1]}"#, r#"{"destination":1}"#] {
        let reply = agent.send("POST", "/files/compose", &[], body).await;
        reply.assert_http_error_begins(400, "invalid request body: ");
    }
    let (a, b, out) = (agent.file("a", "A"), agent.file("b", "B"), agent.path("new/out"));
    let (work, missing) = (agent.path(""), agent.path("missing"));
    compose(json!({})).await.assert_http_error(400, "source_paths must not be empty");
    compose(json!({ "source_paths": [a] })).await.assert_http_error(400, "destination is required");
    let ghost = json!({ "source_paths": [a], "destination": "~x", "username": "ghost" });
    compose(ghost).await.assert_http_error(401, "error looking up user 'ghost': user: unknown user ghost");
    for (sources, destination, status, told) in [
        (json!([a]), "~x", 400, "error resolving destination path: ".to_owned()),
        (json!(["~x"]), &*out, 400, "error resolving source path \"~x\": ".to_owned()),
        (json!([a, a]), &*a, 400, format!("source path \"{a}\" cannot be the same as destination")),
        (json!([missing]), &*out, 404, format!("source file not found: {missing}")),
        (json!([a, work]), &*out, 400, format!("source path is not a regular file: {work}")),
        (json!([a]), &*work, 500, "error finalizing compose".to_owned()),
    ] {
        let reply = compose(json!({ "source_paths": sources, "destination": destination })).await;
        reply.assert_http_error_begins(status, &told);
    }
    assert!(fs::exists(&a).unwrap() && !fs::exists(agent.path("new")).unwrap());
    let reply = compose(json!({ "source_paths": [a, b, a], "destination": out })).await;
    assert_eq!((reply.assert_ok(), reply.header("content-type")), (told("out", &out), Some("application/json")));
    assert_eq!(fs::read_to_string(&out).unwrap(), "ABA");
    assert!(!fs::exists(&a).unwrap() && !fs::exists(&b).unwrap(), "sources are used up");
    let left: Vec<_> = fs::read_dir(agent.work()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["new"], "no temporary file stays");
}
