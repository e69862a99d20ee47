//! `GET /files`.

use std::{
    fs,
    os::unix::{ffi::OsStrExt, fs::symlink},
};

use crate::{agent::Agent, stream::gunzip};

fn url(path: &str) -> String {
    let path = percent_encoding::utf8_percent_encode(path, percent_encoding::NON_ALPHANUMERIC);
    format!("/files?path={path}")
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_in_their_order() {
    let agent = Agent::start().await;
    let missing = agent.path("missing");
    let told = format!("path '{missing}' does not exist");
    agent.get(&url(&missing)).await.assert_http_error(404, &told);
    let work = agent.path("").trim_end_matches('/').to_owned();
    let directory = format!("path '{work}' is a directory");
    for target in ["/files".to_owned(), "/files?path=".to_owned(), url(&work)] {
        agent.get(&target).await.assert_http_error(400, &directory);
    }
    agent.get(&url("~nobody")).await.assert_http_error_begins(400, "error expanding and resolving path '~nobody': ");
    let reply = agent.get(&url("/a\0b")).await;
    assert_eq!((reply.status, reply.json()["code"].as_u64()), (400, Some(400)));
    let unknown = "error looking up user 'ghost': user: unknown user ghost";
    agent.get(&format!("{}&username=ghost", url(&missing))).await.assert_http_error(401, unknown);
    let empty = "error looking up user '': user: unknown user ";
    agent.get(&format!("{}&username=", url(&missing))).await.assert_http_error(401, empty);
    let file = agent.file("file", "x");
    let through = format!("{file}/x");
    let reply = agent.get(&url(&through)).await;
    reply.assert_http_error_begins(500, &format!("error checking if path exists '{through}': "));
    let encoding = "error parsing Accept-Encoding: no acceptable encoding found, supported: [gzip]";
    for header in ["*;q=0", "br, identity;q=0", "identity;q=0, gzip;q=0"] {
        agent.send("GET", &url(&file), &[("accept-encoding", header)], "").await.assert_http_error(406, encoding);
    }
    let identity = "identity encoding not acceptable for Range or conditional request";
    for conditional in
        [("range", "bytes=0-0"), ("if-none-match", "\"x\""), ("if-modified-since", "x"), ("if-range", "x")]
    {
        let headers = [("accept-encoding", "gzip, identity;q=0"), conditional];
        agent.send("GET", &url(&file), &headers, "").await.assert_http_error(406, identity);
    }
    // What is missing is told before what is not acceptable.
    let reply = agent.send("GET", &url(&missing), &[("accept-encoding", "*;q=0")], "").await;
    reply.assert_http_error(404, &told);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_encoding_is_what_was_negotiated() {
    let agent = Agent::start().await;
    let file = agent.file("a.txt", "hello ".repeat(1000));
    for (header, gzip) in [
        (None, false),
        (Some("gzip"), true),
        (Some("deflate, gzip, br"), true),
        (Some("br;q=1, gzip;q=0.5"), true),
        (Some("gzip;q=0.5, identity;q=1"), false),
        (Some("*"), false),
        (Some("*, identity;q=0"), true),
        (Some("*;q=0, gzip"), true),
        (Some("gzip;q=0, br"), false),
        (Some("identity, gzip"), false),
        (Some("GZIP"), true),
        (Some("gzip;q=x"), true),
        (Some(""), false),
    ] {
        let headers: Vec<_> = header.map(|value| ("accept-encoding", value)).into_iter().collect();
        let reply = agent.send("GET", &url(&file), &headers, "").await;
        assert_eq!((reply.status, reply.header("content-encoding")), (200, gzip.then_some("gzip")), "{header:?}");
        assert_eq!(reply.header("vary"), Some("Accept-Encoding"));
        assert_eq!(reply.header("content-disposition"), Some("inline; filename=a.txt"));
        assert_eq!(reply.header("content-type"), Some("text/plain; charset=utf-8"));
        let content = if gzip { gunzip(&reply.body) } else { reply.body.clone() };
        assert_eq!(content, "hello ".repeat(1000).as_bytes());
        if !gzip {
            assert_eq!((reply.header("content-length"), reply.header("accept-ranges")), (Some("6000"), Some("bytes")));
            assert!(reply.header("last-modified").unwrap().ends_with(" GMT"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_are_served() {
    let agent = Agent::start().await;
    let file = agent.file("ten", "0123456789");
    for (range, status, content_range, body) in [
        ("bytes=0-0", 206, Some("bytes 0-0/10"), "0"),
        ("bytes=2-4", 206, Some("bytes 2-4/10"), "234"),
        ("bytes=7-", 206, Some("bytes 7-9/10"), "789"),
        ("bytes=-3", 206, Some("bytes 7-9/10"), "789"),
        ("bytes=-99", 206, Some("bytes 0-9/10"), "0123456789"),
        ("bytes=5-99", 206, Some("bytes 5-9/10"), "56789"),
        ("bytes=0-9,0-9", 200, None, "0123456789"),
        ("bytes=10-", 416, Some("bytes */10"), "invalid range: failed to overlap"),
        ("bytes=x", 416, None, "invalid range"),
        ("lines=0-1", 416, None, "invalid range"),
        ("bytes=4-2", 416, None, "invalid range"),
    ] {
        let headers = [("range", range), ("accept-encoding", "gzip")];
        let reply = agent.send("GET", &url(&file), &headers, "").await;
        assert_eq!((reply.status, reply.text().trim_end()), (status, body), "{range}");
        if content_range.is_some() || status == 200 {
            assert_eq!(reply.header("content-range"), content_range, "{range}");
        }
        assert_eq!(reply.header("content-encoding"), None, "{range}");
        assert_eq!(reply.header("vary"), Some("Accept-Encoding"), "{range}");
    }
    let reply = agent.send("GET", &url(&file), &[("range", "bytes=0-1,5-6")], "").await;
    assert_eq!(reply.status, 206);
    let boundary = reply.header("content-type").unwrap().strip_prefix("multipart/byteranges; boundary=").unwrap();
    let text = reply.text();
    assert_eq!(text.matches(&format!("--{boundary}")).count(), 3, "{text}");
    assert!(text.contains("bytes 0-1/10\r\n") && text.contains("bytes 5-6/10\r\n"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_are_kept() {
    let agent = Agent::start().await;
    let file = agent.file("file", "content");
    let modified = agent.get(&url(&file)).await.header("last-modified").unwrap().to_owned();
    let (past, future) = ("Thu, 01 Jan 2015 00:00:00 GMT", "Fri, 01 Jan 2100 00:00:00 GMT");
    for (name, value, status) in [
        ("if-modified-since", modified.as_str(), 304),
        ("if-modified-since", future, 304),
        ("if-modified-since", past, 200),
        ("if-modified-since", "nonsense", 200),
        ("if-none-match", "*", 304),
        ("if-none-match", "\"other\"", 200),
        ("if-match", "*", 200),
        ("if-match", "\"other\"", 412),
        ("if-unmodified-since", past, 412),
        ("if-unmodified-since", &modified, 200),
    ] {
        let reply = agent.send("GET", &url(&file), &[(name, value)], "").await;
        assert_eq!(reply.status, status, "{name}: {value}");
        assert_eq!(reply.text(), if status == 200 { "content" } else { "" }, "{name}: {value}");
    }
    for (value, status) in [(modified.as_str(), 206), (past, 200), ("\"tag\"", 200)] {
        let reply = agent.send("GET", &url(&file), &[("range", "bytes=0-1"), ("if-range", value)], "").await;
        assert_eq!(reply.status, status, "{value}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_told_in_every_alphabet() {
    let agent = Agent::start().await;
    for (name, disposition) in [
        (".env", "inline; filename=.env"),
        ("a.tar.gz", "inline; filename=a.tar.gz"),
        ("my document.pdf", "inline; filename=\"my document.pdf\""),
        ("a\"b\\c", "inline; filename=\"a\\\"b\\\\c\""),
        ("ä€.txt", "inline; filename*=utf-8''%C3%A4%E2%82%AC.txt"),
    ] {
        let file = agent.file(name, "x");
        let reply = agent.get(&url(&file)).await;
        assert_eq!((reply.status, reply.header("content-disposition")), (200, Some(disposition)));
    }
    for (name, content, content_type) in [
        ("empty", &b""[..], "text/plain; charset=utf-8"),
        ("binary", b"\0\x01\x02\xff", "application/octet-stream"),
        ("page", b"<html></html>", "text/html; charset=utf-8"),
        ("pic.png", b"no picture", "image/png"),
        ("text", b"just words", "text/plain; charset=utf-8"),
    ] {
        let reply = agent.get(&url(&agent.file(name, content))).await;
        assert_eq!((reply.header("content-type"), reply.body.as_slice()), (Some(content_type), content), "{name}");
        assert_eq!(reply.header("content-length"), Some(content.len().to_string().as_str()), "{name}");
    }
    let empty = agent.send("GET", &url(&agent.path("empty")), &[("accept-encoding", "gzip")], "").await;
    assert_eq!((empty.status, gunzip(&empty.body)), (200, Vec::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_files_are_read_and_do_not_hang() {
    let agent = Agent::start().await;
    let reply = agent.get(&url("/proc/version")).await;
    assert_eq!((reply.status, reply.text()), (200, fs::read_to_string("/proc/version").unwrap()));
    let fifo = agent.path("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    // Nobody writes into it; whatever the answer, there is one.
    let reply = agent.get(&url(&fifo)).await;
    assert!(reply.status >= 200, "{reply:?}");
    symlink("loop", agent.path("loop")).unwrap();
    agent.get(&url(&agent.path("loop"))).await.assert_http_error_begins(500, "error checking if path exists '");
    let odd = agent.work().join(std::ffi::OsStr::from_bytes(b"\xff\xfe"));
    fs::write(&odd, "x").unwrap();
    let reply = agent.get(&format!("/files?path={}/%FF%FE", agent.work().display())).await;
    assert!(reply.status < 500, "{}", reply.text());
    let listed = agent.filesystem("ListDir", serde_json::json!({ "path": agent.path("") })).await;
    assert_eq!(listed.status, 200, "one odd name does not hide the others");
    agent.assert_alive().await;
}
