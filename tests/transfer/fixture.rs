//! A user with a home in a temporary directory, and requests.

use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use envd::{
    Body,
    files::transfer::{FileQuery, Transfers},
    system::{identity::Identity, settings::Settings},
};
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};

pub(crate) struct Fixture {
    dir: tempfile::TempDir,
    pub(crate) transfers: Transfers,
}

/// A response that was read to its end.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self::with_default_user("tester")
    }

    pub(crate) fn with_default_user(default: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("home");
        fs::create_dir(&home).unwrap();
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let (passwd, group) = (dir.path().join("passwd"), dir.path().join("group"));
        fs::write(&passwd, format!("tester:x:{uid}:{gid}::{}:/bin/sh\n", home.display())).unwrap();
        fs::write(&group, "").unwrap();
        let settings = Settings::new(default.to_owned(), None, Default::default());
        Self { dir, transfers: Transfers::new(Identity::from_files(passwd, group, None), settings) }
    }

    /// The home directory.
    pub(crate) fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home().join(name)
    }

    /// A file in the home directory.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.home()).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    pub(crate) async fn get(&self, query: &str, headers: &[(&str, &str)]) -> Answer {
        let query = FileQuery::parse(Some(query)).unwrap();
        answer(self.transfers.download(query, request(headers, Body::empty())).await).await
    }

    pub(crate) async fn get_path(&self, path: &Path, headers: &[(&str, &str)]) -> Answer {
        self.get(&query_of(path), headers).await
    }

    pub(crate) async fn post(&self, query: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        self.post_body(query, headers, Body::new(Full::new(body.into()))).await
    }

    pub(crate) async fn post_body(&self, query: &str, headers: &[(&str, &str)], body: Body) -> Answer {
        let query = FileQuery::parse(Some(query)).unwrap();
        answer(self.transfers.upload(query, request(headers, body)).await).await
    }

    /// A raw upload that tells its length.
    pub(crate) async fn put_sized(&self, path: &Path, content: impl Into<Bytes>) -> Answer {
        let content = content.into();
        let length = content.len().to_string();
        self.post(&query_of(path), &[RAW, ("content-length", &length)], content).await
    }

    /// A raw upload.
    pub(crate) async fn put(&self, path: &Path, content: impl Into<Bytes>) -> Answer {
        self.post(&query_of(path), &[RAW], content).await
    }

    /// A form upload with parts of (disposition, content).
    pub(crate) async fn form(&self, query: &str, parts: &[(&str, &str)]) -> Answer {
        self.post(query, &[FORM], form_body(parts)).await
    }

    pub(crate) async fn compose(&self, body: impl Into<Bytes>) -> Answer {
        answer(self.transfers.compose(request(&[], Body::new(Full::new(body.into())))).await).await
    }
}

pub(crate) const RAW: (&str, &str) = ("content-type", "application/octet-stream");
pub(crate) const FORM: (&str, &str) = ("content-type", "multipart/form-data; boundary=BOUND");

pub(crate) fn form_body(parts: &[(&str, &str)]) -> String {
    let mut body = String::new();
    for (disposition, content) in parts {
        body += &format!("--BOUND\r\nContent-Disposition: {disposition}\r\n\r\n{content}\r\n");
    }
    body + "--BOUND--\r\n"
}

pub(crate) fn query_of(path: &Path) -> String {
    format!(
        "path={}",
        percent_encoding::percent_encode(path.to_str().unwrap().as_bytes(), percent_encoding::NON_ALPHANUMERIC)
    )
}

pub(crate) fn request(headers: &[(&str, &str)], body: Body) -> Request<Body> {
    let mut request = Request::builder().uri("/files");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body).unwrap()
}

/// A body that arrives in chunks and may break off.
pub(crate) fn chunked(chunks: Vec<Result<Bytes, std::io::Error>>) -> Body {
    let frames = chunks.into_iter().map(|chunk| chunk.map(Frame::data));
    Body::new(StreamBody::new(futures_util::stream::iter(frames)))
}

pub(crate) async fn answer(response: Response<Body>) -> Answer {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes().to_vec();
    Answer { status: parts.status.as_u16(), headers: parts.headers, body }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.text()))
    }

    /// Checks the shape that all errors have, and what this one says.
    #[track_caller]
    pub(crate) fn fails(&self, status: u16, message: &str) {
        assert_eq!((self.status, self.text()), (status, error_body(status, message).as_str()));
        assert_eq!(self.header("content-type"), Some("application/json; charset=utf-8"));
        assert_eq!(self.header("x-content-type-options"), Some("nosniff"));
    }

    /// Checks an upload's answer: one file at `path`.
    #[track_caller]
    pub(crate) fn wrote(&self, path: &Path) {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert_eq!(self.status, 200, "{}", self.text());
        assert_eq!(self.text(), format!(r#"[{{"name":"{name}","path":"{}","type":"file"}}]"#, path.display()));
        assert_eq!(self.header("content-type"), Some("application/json"));
    }
}

fn error_body(status: u16, message: &str) -> String {
    format!("{{\"code\":{status},\"message\":{}}}\n", serde_json::to_string(message).unwrap())
}

pub(crate) fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn gunzip(compressed: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    GzDecoder::new(compressed).read_to_end(&mut plain).unwrap();
    plain
}

/// Bytes that do not compress, the same in each run.
pub(crate) fn noise(length: usize, mut seed: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        bytes.extend_from_slice(&seed.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
