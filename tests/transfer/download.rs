use std::{
    fs::{self, FileTimes},
    io::Write,
    time::{Duration, UNIX_EPOCH},
};

use http_body_util::BodyExt;

use crate::fixture::{Fixture, gunzip, noise, query_of, request};

#[tokio::test]
async fn a_plain_file_comes_with_length_type_and_version() {
    let fixture = Fixture::new();
    let path = fixture.file("a.txt", "hello");
    let times = FileTimes::new().set_modified(UNIX_EPOCH + Duration::from_secs(784_111_777));
    fs::File::options().write(true).open(&path).unwrap().set_times(times).unwrap();
    let answer = fixture.get_path(&path, &[]).await;
    assert_eq!((answer.status, answer.text()), (200, "hello"));
    for (name, value) in [
        ("content-length", "5"),
        ("content-type", "text/plain; charset=utf-8"),
        ("accept-ranges", "bytes"),
        ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("content-disposition", "inline; filename=a.txt"),
        ("vary", "Accept-Encoding"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name}");
    }
    assert_eq!(answer.header("content-encoding"), None);
    assert!(answer.header("etag").unwrap().starts_with('"'));
}

#[tokio::test]
async fn paths_are_relative_to_the_home_of_the_user() {
    let fixture = Fixture::new();
    fixture.file("sub/a b", "x");
    for query in ["path=sub/a%20b", "path=~/sub/a+b", "path=./sub/../sub/a%20b&username=tester"] {
        assert_eq!(fixture.get(query, &[]).await.text(), "x", "{query}");
    }
}

#[tokio::test]
async fn failures_come_in_their_order() {
    let fixture = Fixture::new();
    let missing = fixture.path("none");
    let home = fixture.home();
    let home = home.display();
    let file = fixture.file("f", "x");
    let user = fixture.get("path=none&username=ghost", &[]).await;
    user.fails(401, "error looking up user 'ghost': user: unknown user ghost");
    fixture.get("username=", &[]).await.fails(401, "error looking up user '': user: unknown user ");
    Fixture::with_default_user("").get("path=x", &[]).await.fails(400, "username not provided");
    let foreign = fixture.get("path=~bob/x", &[]).await;
    assert_eq!(foreign.status, 400);
    assert!(foreign.json()["message"].as_str().unwrap().starts_with("error expanding and resolving path '~bob/x': "));
    let refused = [("accept-encoding", "*;q=0")];
    let answer = fixture.get_path(&missing, &refused).await;
    answer.fails(404, &format!("path '{}' does not exist", missing.display()));
    assert_eq!(answer.header("vary"), None);
    let through = file.join("x");
    fixture
        .get_path(&through, &[])
        .await
        .fails(500, &format!("error checking if path exists '{0}': stat {0}: not a directory", through.display()));
    fixture.get("", &refused).await.fails(400, &format!("path '{home}' is a directory"));
    fixture.get("path=", &[]).await.fails(400, &format!("path '{home}' is a directory"));
    let answer = fixture.get_path(&file, &refused).await;
    answer.fails(406, "error parsing Accept-Encoding: no acceptable encoding found, supported: [gzip]");
    assert_eq!(answer.header("vary"), Some("Accept-Encoding"));
    for condition in ["range", "if-none-match", "if-modified-since", "if-range"] {
        let answer = fixture.get_path(&file, &[("accept-encoding", "gzip, identity;q=0"), (condition, "x")]).await;
        answer.fails(406, "identity encoding not acceptable for Range or conditional request");
    }
}

#[tokio::test]
async fn an_empty_file_says_so_in_its_length() {
    let fixture = Fixture::new();
    let path = fixture.file("empty", "");
    let answer = fixture.get_path(&path, &[]).await;
    assert_eq!((answer.status, answer.header("content-length")), (200, Some("0")));
    assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
    let ranged = fixture.get_path(&path, &[("range", "bytes=0-9")]).await;
    assert_eq!((ranged.status, ranged.header("content-length")), (200, Some("0")));
    let zipped = fixture.get_path(&path, &[("accept-encoding", "gzip")]).await;
    assert_eq!(gunzip(&zipped.body), b"");
    assert_eq!(zipped.header("content-length"), Some(zipped.body.len().to_string().as_str()));
}

#[tokio::test]
async fn types_are_sniffed_without_an_extension() {
    let fixture = Fixture::new();
    for (name, content, expected) in [
        ("text", vec![b'a'; 70_000], "text/plain; charset=utf-8"),
        ("binary", vec![0; 70_000], "application/octet-stream"),
        ("small", b"%PDF-1.7".to_vec(), "application/pdf"),
        ("page.json", b"<html>".to_vec(), "application/json"),
    ] {
        let path = fixture.file(name, content);
        assert_eq!(fixture.get_path(&path, &[]).await.header("content-type"), Some(expected), "{name}");
    }
    let path = fixture.path("text");
    let zipped = fixture.get_path(&path, &[("accept-encoding", "gzip")]).await;
    assert_eq!(zipped.header("content-type"), Some("application/octet-stream"));
}

#[tokio::test]
async fn gzip_of_every_size_is_the_file() {
    let fixture = Fixture::new();
    for (name, content) in [
        ("small", b"hello".to_vec()),
        ("medium-noise", noise(50_000, 1)),
        ("medium-text", b"word ".repeat(10_000)),
        ("large-noise", noise(1_500_000, 2)),
        ("large-text", b"a line of text\n".repeat(100_000)),
    ] {
        let path = fixture.file(name, &content);
        let answer = fixture.get_path(&path, &[("accept-encoding", "gzip, deflate")]).await;
        assert_eq!((answer.status, answer.header("content-encoding")), (200, Some("gzip")), "{name}");
        assert!(gunzip(&answer.body) == content, "{name}");
        let length = answer.body.len().to_string();
        let expected = (answer.body.len() <= 2048).then_some(length.as_str());
        assert_eq!(answer.header("content-length"), expected, "{name}");
        assert_eq!(answer.header("last-modified"), None);
        assert_eq!(answer.header("accept-ranges"), None);
        assert!(answer.body.len() < content.len() + content.len() / 100 + 64, "{name}");
    }
}

#[tokio::test]
async fn large_files_arrive_whole() {
    let fixture = Fixture::new();
    let content = noise(3_000_001, 3);
    let path = fixture.file("large", &content);
    let answer = fixture.get_path(&path, &[]).await;
    assert_eq!(answer.header("content-length"), Some("3000001"));
    assert!(answer.body == content);
}

#[tokio::test]
async fn ranges_of_small_and_large_files() {
    let fixture = Fixture::new();
    for size in [1000_usize, 1_000_000] {
        let content = noise(size, 4);
        let path = fixture.file("f", &content);
        for (range, start, end) in
            [("bytes=0-99", 0, 100), ("bytes=900-", 900, size), ("bytes=-7", size - 7, size), ("bytes=5-5", 5, 6)]
        {
            let answer = fixture.get_path(&path, &[("range", range), ("accept-encoding", "gzip")]).await;
            assert_eq!(answer.status, 206, "{range}");
            assert!(answer.body == content[start..end], "{range}");
            let expected = format!("bytes {start}-{}/{size}", end - 1);
            assert_eq!(answer.header("content-range"), Some(expected.as_str()));
            assert_eq!(answer.header("content-length"), Some((end - start).to_string().as_str()));
            assert_eq!(answer.header("content-encoding"), None);
        }
        let answer = fixture.get_path(&path, &[("range", &format!("bytes={size}-"))]).await;
        assert_eq!((answer.status, answer.text()), (416, "invalid range: failed to overlap\n"));
        assert_eq!(answer.header("content-range"), Some(format!("bytes */{size}").as_str()));
        for malformed in ["bytes=9-1", "lines=1-2", "bytes=x-"] {
            let answer = fixture.get_path(&path, &[("range", malformed)]).await;
            assert_eq!((answer.status, answer.text()), (416, "invalid range\n"), "{malformed}");
        }
        let everything = fixture.get_path(&path, &[("range", "bytes=0-,0-")]).await;
        assert_eq!((everything.status, everything.body.len()), (200, size));
    }
}

#[tokio::test]
async fn several_ranges_come_as_one_multipart_body() {
    let fixture = Fixture::new();
    for size in [1000_usize, 1_000_000] {
        let content: Vec<u8> = b"0123456789".repeat(size / 10);
        let path = fixture.file("f.txt", &content);
        let answer = fixture.get_path(&path, &[("range", "bytes=1-3, 8-9, -2")]).await;
        assert_eq!(answer.status, 206);
        assert_eq!(answer.header("content-length"), Some(answer.body.len().to_string().as_str()));
        let boundary = answer.header("content-type").unwrap().strip_prefix("multipart/byteranges; boundary=").unwrap();
        let part = |range: &str, text: &str| {
            format!(
                "--{boundary}\r\nContent-Range: bytes {range}/{size}\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{text}\r\n"
            )
        };
        let last = format!("{}-{}", size - 2, size - 1);
        let expected = format!("{}{}{}--{boundary}--\r\n", part("1-3", "123"), part("8-9", "89"), part(&last, "89"));
        assert_eq!(answer.text(), expected);
    }
}

#[tokio::test]
async fn a_client_that_has_the_file_gets_no_body() {
    let fixture = Fixture::new();
    let path = fixture.file("f", "content");
    let first = fixture.get_path(&path, &[]).await;
    let (etag, modified) = (first.header("etag").unwrap(), first.header("last-modified").unwrap());
    for headers in [[("if-none-match", etag)], [("if-modified-since", modified)], [("if-none-match", "*")]] {
        let answer = fixture.get_path(&path, &headers).await;
        assert_eq!((answer.status, answer.body.len()), (304, 0), "{headers:?}");
        assert_eq!(answer.header("etag"), Some(etag));
        assert_eq!(answer.header("content-length"), None);
    }
    assert_eq!(fixture.get_path(&path, &[("if-match", "\"x\"")]).await.status, 412);
    let old = "Sun, 06 Nov 1994 08:49:37 GMT";
    assert_eq!(fixture.get_path(&path, &[("if-unmodified-since", old)]).await.status, 412);
    let gzip = ("accept-encoding", "gzip");
    assert_eq!(fixture.get_path(&path, &[("if-match", "\"x\""), gzip]).await.status, 200);
    for (validator, status) in [(etag, 206), (modified, 206), ("\"x\"", 200), (old, 200)] {
        let answer = fixture.get_path(&path, &[("range", "bytes=0-1"), ("if-range", validator)]).await;
        assert_eq!(answer.status, status, "{validator}");
    }
    fs::write(&path, "changed").unwrap();
    assert_eq!(fixture.get_path(&path, &[("if-none-match", etag)]).await.text(), "changed");
}

#[tokio::test]
async fn files_that_the_kernel_makes_up_are_read_to_their_end() {
    let fixture = Fixture::new();
    for path in ["/proc/version", "/proc/sys/kernel/ostype"] {
        let expected = fs::read_to_string(path).unwrap();
        let answer = fixture.get(&format!("path={path}"), &[]).await;
        assert_eq!((answer.status, answer.text()), (200, expected.as_str()));
        assert_eq!(answer.header("content-length"), Some(expected.len().to_string().as_str()));
        assert_eq!(answer.header("etag"), None);
        let zipped = fixture.get(&format!("path={path}"), &[("accept-encoding", "gzip")]).await;
        assert_eq!(gunzip(&zipped.body), expected.as_bytes());
    }
    let device = fixture.get("path=/dev/null", &[]).await;
    assert_eq!((device.status, device.body.len()), (200, 0));
    let state = "/sys/kernel/mm/transparent_hugepage/enabled";
    if let Ok(expected) = fs::read_to_string(state) {
        assert_eq!(fixture.get(&format!("path={state}"), &[]).await.text(), expected);
    }
}

#[tokio::test]
async fn an_endless_device_stops_with_its_reader() {
    let fixture = Fixture::new();
    let query = envd::files::transfer::FileQuery::parse(Some("path=/dev/zero")).unwrap();
    let response = fixture.transfers.download(query, request(&[], envd::Body::empty())).await;
    assert_eq!(response.status(), 200);
    assert!(response.headers().get("content-length").is_none());
    let mut body = response.into_body();
    let frame = body.frame().await.unwrap().unwrap();
    assert!(!frame.into_data().unwrap().is_empty());
}

#[tokio::test]
async fn a_fifo_is_read_while_its_writer_writes() {
    let fixture = Fixture::new();
    let path = fixture.path("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600), 0)
        .unwrap();
    let silent = fixture.get_path(&path, &[]).await;
    assert_eq!((silent.status, silent.body.len()), (200, 0), "without a writer there is nothing to wait for");
    // Opened for both, so that the writer exists before the reader.
    let mut writer = fs::File::options().read(true).write(true).open(&path).unwrap();
    writer.write_all(b"one ").unwrap();
    let query = envd::files::transfer::FileQuery::parse(Some(&query_of(&path))).unwrap();
    let mut body = fixture.transfers.download(query, request(&[], envd::Body::empty())).await.into_body();
    let mut content = body.frame().await.unwrap().unwrap().into_data().unwrap().to_vec();
    writer.write_all(b"two").unwrap();
    content.extend(body.frame().await.unwrap().unwrap().into_data().unwrap());
    drop(writer);
    assert!(body.frame().await.is_none());
    assert_eq!(content, b"one two");
}

#[tokio::test]
async fn a_file_that_shrinks_breaks_off() {
    let fixture = Fixture::new();
    let path = fixture.file("f", vec![1; 2_000_000]);
    let query = envd::files::transfer::FileQuery::parse(Some(&query_of(&path))).unwrap();
    let response = fixture.transfers.download(query, request(&[], envd::Body::empty())).await;
    fs::write(&path, "short").unwrap();
    assert!(response.into_body().collect().await.is_err());
}
