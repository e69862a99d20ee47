use std::{
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
    time::Duration,
};

use bytes::Bytes;
use envd::files::transfer::FileQuery;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use serde_json::json;

use crate::fixture::{FORM, Fixture, RAW, answer, chunked, form_body, gzip, noise, query_of, request};

#[tokio::test]
async fn a_raw_body_becomes_a_file_with_its_directories() {
    let fixture = Fixture::new();
    let path = fixture.path("new/deep/f.txt");
    fixture.put(&path, "hello").await.wrote(&path);
    assert_eq!(fs::read_to_string(&path).unwrap(), "hello");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
    assert_eq!(fs::metadata(fixture.path("new")).unwrap().permissions().mode() & 0o777, 0o755);
    fixture.post("path=~/g&username=tester", &[RAW], "").await.wrote(&fixture.path("g"));
    assert_eq!(fs::read(fixture.path("g")).unwrap(), b"");
}

#[tokio::test]
async fn an_existing_file_keeps_inode_mode_and_links() {
    let fixture = Fixture::new();
    let path = fixture.file("f", "a long old content");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::hard_link(&path, fixture.path("hard")).unwrap();
    symlink("f", fixture.path("soft")).unwrap();
    let before = fs::metadata(&path).unwrap();
    let soft = fixture.path("soft");
    fixture.put(&soft, "new").await.wrote(&soft);
    let after = fs::metadata(&path).unwrap();
    assert_eq!((before.ino(), before.mode()), (after.ino(), after.mode()));
    assert_eq!(fs::read_to_string(fixture.path("hard")).unwrap(), "new");
    symlink("target", fixture.path("dangling")).unwrap();
    fixture.put(&fixture.path("dangling"), "there").await.wrote(&fixture.path("dangling"));
    assert_eq!(fs::read_to_string(fixture.path("target")).unwrap(), "there");
}

#[tokio::test]
async fn failures_come_in_their_order() {
    let fixture = Fixture::new();
    let brotli = ("content-encoding", "br; x=1");
    let plain = ("content-type", "text/plain; a=b");
    let no_user = Fixture::with_default_user("");
    no_user.post("path=f", &[brotli, plain], "x").await.fails(400, "username not provided");
    let unsupported = "error decompressing request body: unsupported Content-Encoding: br; x=1, supported: [gzip]";
    fixture.post("username=ghost", &[brotli, plain], "x").await.fails(400, unsupported);
    let zipped = ("content-encoding", "GZIP");
    for (body, cause) in [("", "EOF"), ("x", "unexpected EOF"), ("not gzip at all", "gzip: invalid header")] {
        let message = format!("error decompressing request body: failed to create gzip reader: {cause}");
        fixture.post("username=ghost", &[zipped, plain], body).await.fails(400, &message);
    }
    let unknown = "error looking up user 'ghost': user: unknown user ghost";
    fixture.post("username=ghost", &[plain, ("x-metadata-a", "\t")], "x").await.fails(401, unknown);
    fixture.post("", &[plain, ("x-metadata-a", "b\tc")], "x").await.fails(
        400,
        "invalid metadata: metadata value for key \"a\" contains non-printable-ASCII byte 0x09 at offset 1",
    );
    let expected = "expected multipart/form-data or application/octet-stream";
    fixture
        .post("path=f", &[plain], "x")
        .await
        .fails(400, &format!("unsupported content type: text/plain; a=b, {expected}"));
    fixture.post("path=f", &[], "x").await.fails(400, &format!("unsupported content type: , {expected}"));
    fixture.post("", &[RAW], "x").await.fails(400, "path query parameter is required for raw body upload");
    assert!(fixture.names().is_empty());
}

#[tokio::test]
async fn what_stands_in_the_way_is_named() {
    let fixture = Fixture::new();
    let directory = format!("path is a directory: {}", fixture.home().display());
    fixture.put(&fixture.home(), "x").await.fails(400, &directory);
    fixture.post("path=", &[RAW], "x").await.fails(400, &directory);
    let slash = fixture.path("made/");
    fixture.put(&slash, "x").await.fails(400, &format!("path is a directory: {}", slash.display()));
    assert!(fixture.path("made").is_dir());
    let file = fixture.file("f", "x");
    let below = file.join("g");
    fixture
        .put(&below, "x")
        .await
        .fails(500, &format!("error ensuring directories: path is a file: {}", file.display()));
    let long = fixture.path(&"n".repeat(300));
    fixture
        .put(&long, "x")
        .await
        .fails(500, &format!("error getting file info: stat {}: file name too long", long.display()));
    let foreign = fixture.post("path=~bob/x", &[RAW], "x").await;
    assert_eq!(foreign.status, 400);
}

#[tokio::test]
async fn a_running_program_is_not_touched() {
    let fixture = Fixture::new();
    let path = fixture.path("sleep");
    fs::copy("/bin/sleep", &path).unwrap();
    let before = fs::metadata(&path).unwrap();
    let mut child = std::process::Command::new(&path).arg("60").spawn().unwrap();
    let answer = fixture.put(&path, "x").await;
    child.kill().unwrap();
    child.wait().unwrap();
    answer.fails(500, &format!("error opening file: open {}: text file busy", path.display()));
    let after = fs::metadata(&path).unwrap();
    assert_eq!((before.len(), before.ctime_nsec()), (after.len(), after.ctime_nsec()));
}

#[tokio::test]
async fn large_and_compressed_bodies_arrive_in_any_pieces() {
    let fixture = Fixture::new();
    let content = [noise(2_500_000, 5), vec![0; 3_000_000]].concat();
    let pieces = |bytes: &[u8]| chunked(bytes.chunks(99_991).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect());
    let path = fixture.path("plain");
    fixture.post_body(&query_of(&path), &[RAW], pieces(&content)).await.wrote(&path);
    assert!(fs::read(&path).unwrap() == content);
    let path = fixture.path("zipped");
    let zipped = ("content-encoding", "gzip");
    fixture.post_body(&query_of(&path), &[RAW, zipped], pieces(&gzip(&content))).await.wrote(&path);
    assert!(fs::read(&path).unwrap() == content);
    let form = form_body(&[("form-data; name=\"file\"; filename=\"z\"", &"zip me ".repeat(300_000))]);
    let answer = fixture.post_body("", &[FORM, zipped], pieces(&gzip(form.as_bytes()))).await;
    answer.wrote(&fixture.path("z"));
    assert_eq!(fs::read_to_string(fixture.path("z")).unwrap(), "zip me ".repeat(300_000));
}

#[tokio::test]
async fn a_body_that_breaks_off_leaves_no_new_file() {
    let fixture = Fixture::new();
    let path = fixture.path("f");
    for length in [10, 3_000_000] {
        let cut = chunked(vec![Ok(Bytes::from(vec![1; length])), Err(io::ErrorKind::ConnectionReset.into())]);
        fixture.post_body(&query_of(&path), &[RAW], cut).await.fails(500, "error writing file: unexpected EOF");
        assert!(fixture.names().is_empty());
    }
    let mut compressed = gzip(&noise(200_000, 6));
    compressed.truncate(compressed.len() - 3);
    let zipped = ("content-encoding", "gzip");
    let answer = fixture.post(&query_of(&path), &[RAW, zipped], compressed).await;
    answer.fails(500, "error writing file: unexpected EOF");
    assert!(fixture.names().is_empty());
    let old = fixture.file("old", "old content");
    let cut = chunked(vec![Ok(Bytes::from_static(b"new")), Err(io::ErrorKind::ConnectionReset.into())]);
    fixture.post_body(&query_of(&old), &[RAW], cut).await.fails(500, "error writing file: unexpected EOF");
    assert!(old.exists(), "a file that was there before stays");
}

#[tokio::test]
async fn several_files_of_one_form_keep_their_directories() {
    let fixture = Fixture::new();
    let answer = fixture
        .form(
            "",
            &[
                ("form-data; name=\"file\"; filename=\"a/one.txt\"", "1"),
                ("form-data; name=\"other\"; filename=\"skipped\"", "x"),
                ("form-data", "x"),
                ("form-data; name=\"file\"; filename=\"with \\\"quote\\\"\"", "2"),
                ("form-data; name=\"file\"; filename=\"%22b\"", "3"),
                ("form-data; name=\"file\"; filename*=UTF-8''%C3%A9", "4"),
            ],
        )
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let names: Vec<_> = answer.json().as_array().unwrap().iter().map(|file| file["name"].clone()).collect();
    assert_eq!(names, ["one.txt", "with \"quote\"", "\"b", "é"]);
    assert_eq!(answer.json()[0]["path"], json!(fixture.path("a/one.txt")));
    assert_eq!(fixture.names(), ["\"b", "a", "with \"quote\"", "é"]);
    assert_eq!(fs::read_to_string(fixture.path("é")).unwrap(), "4");
}

#[tokio::test]
async fn a_form_with_a_path_needs_no_file_name() {
    let fixture = Fixture::new();
    let answer = fixture.form("path=f", &[("form-data; name=\"file\"", "x")]).await;
    answer.wrote(&fixture.path("f"));
    fixture
        .form("", &[("form-data; name=\"file\"", "x")])
        .await
        .fails(400, "error getting multipart custom part file name: filename not found in Content-Disposition header");
    let empty = fixture.form("", &[("form-data; name=\"x\"", "x")]).await;
    assert_eq!((empty.status, empty.text()), (200, "[]"));
}

#[tokio::test]
async fn one_path_is_written_once_in_a_request() {
    let fixture = Fixture::new();
    let part = |name: &str| format!("form-data; name=\"file\"; filename=\"{name}\"");
    let same = |path: &Path, tail: &str| {
        format!(
            "you cannot upload multiple files to the same path '{}' in one upload request, only the first specified \
             file was uploaded{tail}",
            path.display()
        )
    };
    let a = fixture.path("a");
    let answer = fixture.form("path=a", &[(&part("x"), "1"), (&part("y"), "2")]).await;
    answer.fails(400, &same(&a, ""));
    assert_eq!(fs::read_to_string(&a).unwrap(), "1");
    let (b, c) = (fixture.path("b"), fixture.path("c"));
    let parts = [(&*part("a"), "1"), (&*part("b"), "2"), (&*part("./a"), "3")];
    fixture.form("", &parts).await.fails(400, &same(&a, ""));
    let parts = [(&*part("a"), "1"), (&*part("b"), "2"), (&*part("c"), "3"), (&*part("a"), "4")];
    let tail = format!(", also the following files were uploaded: {}, {}", b.display(), c.display());
    fixture.form("", &parts).await.fails(400, &same(&a, &tail));
}

#[tokio::test]
async fn broken_forms_are_told() {
    let fixture = Fixture::new();
    let post = async |kind: &str, body: &str| fixture.post("", &[("content-type", kind)], body.to_owned()).await;
    let prefix = "error parsing multipart form:";
    post("multipart/form-data", "x").await.fails(500, &format!("{prefix} no multipart boundary param in Content-Type"));
    post("multipart/related; boundary=B", "x")
        .await
        .fails(500, &format!("{prefix} request Content-Type isn't multipart/form-data"));
    for (body, message) in [
        ("", "error reading form: unexpected EOF"),
        ("no boundary at all", "error reading form: unexpected EOF"),
        ("--B\r\nno colon\r\n\r\n", "error reading form: malformed MIME header line"),
        ("--B junk\r\n", "error reading form: multipart: expecting a new part"),
        (
            "--B\r\nContent-Disposition: form-data; name=file; filename=f\r\n\r\ncut",
            "error writing file: unexpected EOF",
        ),
    ] {
        post("multipart/form-data; boundary=\"B\"", body).await.fails(500, message);
    }
    assert!(fixture.names().is_empty());
    let mixed = "--B\r\nContent-Disposition: form-data; name=file; filename=f\r\n\r\n\r\n--B--";
    post("multipart/mixed; boundary=B", mixed).await.wrote(&fixture.path("f"));
}

#[tokio::test]
async fn metadata_replaces_the_whole_set() {
    let fixture = Fixture::new();
    let path = fixture.path("f");
    let answer = fixture.post(&query_of(&path), &[RAW, ("X-Metadata-Author", "me"), ("x-metadata-B", "")], "1").await;
    let expected = json!([{"name": "f", "path": path, "type": "file", "metadata": {"author": "me", "b": ""}}]);
    assert_eq!(answer.json(), expected);
    assert_eq!(envd::files::metadata::read(&path).len(), 2);
    fixture.put(&path, "2").await.wrote(&path);
    assert!(envd::files::metadata::read(&path).is_empty());
    let devnull = fixture.post("path=/dev/null", &[RAW, ("x-metadata-a", "b")], "x").await;
    devnull.wrote(Path::new("/dev/null"));
}

#[tokio::test]
async fn a_watcher_sees_create_chmod_and_one_write() {
    let fixture = Fixture::new();
    let watch = inotify::init(CreateFlags::NONBLOCK).unwrap();
    let flags = WatchFlags::CREATE | WatchFlags::MODIFY | WatchFlags::ATTRIB | WatchFlags::DELETE | WatchFlags::MOVE;
    inotify::add_watch(&watch, fixture.home(), flags).unwrap();
    let seen = || {
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&watch, &mut buffer);
        let mut events = Vec::new();
        while let Ok(event) = reader.next() {
            events.push(event.events());
        }
        events
    };
    let (create, chmod, write) = (ReadFlags::CREATE, ReadFlags::ATTRIB, ReadFlags::MODIFY);
    let path = fixture.path("f");
    fixture.put(&path, noise(200_000, 7)).await.wrote(&path);
    assert_eq!(seen(), [create, chmod, write]);
    let pieces = || chunked((0..50).map(|_| Ok(Bytes::from_static(b"piece"))).collect());
    let path = fixture.path("g");
    fixture.post_body(&query_of(&path), &[RAW, ("x-metadata-a", "1")], pieces()).await;
    assert_eq!(seen(), [create, chmod, write, chmod]);
    fixture.post_body(&query_of(&path), &[RAW, ("x-metadata-a", "1")], pieces()).await;
    assert_eq!(seen(), [chmod, write, chmod]);
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_of_one_file_do_not_mix() {
    let fixture = Fixture::new();
    let path = fixture.path("f");
    symlink("f", fixture.path("g")).unwrap();
    let uploads = (0..16_u8).map(|writer| {
        let chunks = (0..24).map(|_| Ok(Bytes::from(vec![writer; 100_000]))).collect();
        let name = if writer % 2 == 0 { "path=f" } else { "path=g" };
        let transfers = fixture.transfers.clone();
        tokio::spawn(async move {
            let query = FileQuery::parse(Some(name)).unwrap();
            answer(transfers.upload(query, request(&[RAW], chunked(chunks))).await).await.status
        })
    });
    for upload in uploads.collect::<Vec<_>>() {
        assert_eq!(upload.await.unwrap(), 200);
    }
    let content = fs::read(&path).unwrap();
    assert_eq!(content.len(), 2_400_000);
    assert!(content.iter().all(|byte| *byte == content[0]));
}

#[tokio::test]
async fn uploads_into_one_new_tree_share_its_directories() {
    let fixture = Fixture::new();
    let paths: Vec<_> = (0..8).map(|n| fixture.path(&format!("new/tree/{n}"))).collect();
    let answers = futures_util::future::join_all(paths.iter().map(|path| fixture.put(path, "x"))).await;
    for (answer, path) in answers.iter().zip(&paths) {
        answer.wrote(path);
    }
}

#[tokio::test]
async fn a_silent_client_is_given_up() {
    let fixture = Fixture::new();
    let transfers = fixture.transfers.clone().with_idle_limit(Duration::from_millis(50));
    let start = futures_util::stream::iter([Ok::<_, io::Error>(http_body::Frame::data(Bytes::from(vec![1; 1 << 21])))]);
    let stalled = futures_util::StreamExt::chain(start, futures_util::stream::pending());
    let body = envd::Body::new(http_body_util::StreamBody::new(stalled));
    let query = FileQuery::parse(Some("path=f")).unwrap();
    answer(transfers.upload(query, request(&[RAW], body)).await)
        .await
        .fails(408, "upload stalled: no data for 0 seconds");
    assert!(fixture.names().is_empty());
}

#[tokio::test]
async fn a_fifo_without_a_reader_is_an_error() {
    let fixture = Fixture::new();
    let path = fixture.path("fifo");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let answer = fixture.put(&path, "x").await;
    answer.fails(500, &format!("error opening file: open {}: no such device or address", path.display()));
    assert!(path.exists());
}

#[tokio::test]
async fn random_requests_never_panic() {
    let fixture = Fixture::new();
    let words: &[&[u8]] = &[
        b"--BOUND",
        b"\r\n",
        b"--",
        b"Content-Disposition: form-data; name=\"file\"",
        b"; filename=\"a\"",
        b"\x1f\x8b\x08",
        b"\0\xff",
        b"\r\n\r\n",
        b": ",
        b";",
        b"\"",
    ];
    for seed in 1..400_usize {
        let bytes = noise(64, (seed as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let body: Vec<u8> = bytes.iter().flat_map(|byte| words[*byte as usize % words.len()].to_vec()).collect();
        let pieces = body.chunks(1 + seed % 40).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        let headers: &[(&str, &str)] = match seed % 4 {
            0 => &[FORM],
            1 => &[FORM, ("content-encoding", "gzip")],
            2 => &[RAW, ("content-encoding", "gzip")],
            _ => &[("content-type", "multipart/form-data; boundary=\"")],
        };
        let answer = fixture.post_body("path=f", headers, chunked(pieces)).await;
        assert!([200, 400, 500].contains(&answer.status), "{}", answer.text());
        assert_ne!(answer.json()["message"], "file transfer interrupted", "seed {seed}");
    }
}
