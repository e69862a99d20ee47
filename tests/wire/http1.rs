//! HTTP/1.1 by hand, so that a test decides about every byte.

use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

use crate::agent::PATIENCE;

/// A response with its whole body.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The chunks of the body as they were sent; empty without `Transfer-Encoding: chunked`.
    pub chunks: Vec<Vec<u8>>,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// All values of a header that may occur more than once.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {} {}", self.status, self.text()))
    }

    /// Status, code and message of a failed unary call.
    #[track_caller]
    pub fn assert_rpc_error(&self, status: u16, code: &str, message: &str) {
        assert_eq!((self.status, self.text()), (status, error_json(code, message)), "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/json"));
        assert_eq!(self.header("content-encoding"), None);
    }

    /// The same with only the beginning of the message.
    #[track_caller]
    pub fn assert_rpc_error_begins(&self, status: u16, code: &str, message: &str) {
        let json = self.json();
        assert_eq!((self.status, json["code"].as_str()), (status, Some(code)), "{}", self.text());
        let told = json["message"].as_str().unwrap_or_default();
        assert!(told.starts_with(message), "{told:?} does not begin with {message:?}");
    }

    /// The form of errors on plain routes: an integer code, a newline at the end.
    #[track_caller]
    pub fn assert_http_error(&self, status: u16, message: &str) {
        let expected = format!("{}\n", serde_json::json!({ "code": status, "message": message }));
        assert_eq!((self.status, self.text()), (status, expected));
        assert_eq!(self.header("content-type"), Some("application/json; charset=utf-8"));
        assert_eq!(self.header("x-content-type-options"), Some("nosniff"));
    }

    #[track_caller]
    pub fn assert_http_error_begins(&self, status: u16, message: &str) {
        let json = self.json();
        assert_eq!((self.status, json["code"].as_u64()), (status, Some(status.into())), "{}", self.text());
        let told = json["message"].as_str().unwrap_or_default();
        assert!(told.starts_with(message), "{told:?} does not begin with {message:?}");
    }

    #[track_caller]
    pub fn assert_ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()
    }
}

pub fn error_json(code: &str, message: &str) -> String {
    serde_json::json!({ "code": code, "message": message }).to_string()
}

fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

/// A connection with what was read ahead.
pub struct Exchange<S> {
    pub stream: S,
    ahead: Vec<u8>,
}

/// Status line and header fields.
#[derive(Debug)]
pub struct Head {
    pub status: u16,
    pub headers: Vec<(String, String)>,
}

impl Head {
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Exchange<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, ahead: Vec::new() }
    }

    /// One request on a connection that stays open.
    pub async fn send(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        self.write(&request(method, target, headers, body)).await;
        self.receive(method).await
    }

    pub async fn write(&mut self, bytes: &[u8]) {
        timeout(PATIENCE, self.stream.write_all(bytes)).await.unwrap().unwrap();
    }

    pub async fn receive(&mut self, method: &str) -> Reply {
        let Head { status, headers } = self.head().await;
        let (mut body, mut chunks) = (Vec::new(), Vec::new());
        if find(&headers, "transfer-encoding").is_some_and(|value| value == "chunked") {
            while let Some(chunk) = self.chunk().await {
                body.extend_from_slice(&chunk);
                chunks.push(chunk);
            }
        } else if method != "HEAD" {
            let length = find(&headers, "content-length").map_or(0, |value| value.parse().unwrap());
            body = self.exactly(length).await;
        }
        Reply { status, headers, body, chunks }
    }

    pub async fn head(&mut self) -> Head {
        let line = self.line().await;
        let status = line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).map(|code| code.parse().unwrap());
        let status = status.unwrap_or_else(|| panic!("no status line: {line:?}"));
        let mut headers = Vec::new();
        loop {
            let line = self.line().await;
            if line.is_empty() {
                return Head { status, headers };
            }
            let (name, value) = line.split_once(':').unwrap();
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    /// The next chunk; `None` at the end of the body.
    pub async fn chunk(&mut self) -> Option<Vec<u8>> {
        let line = self.line().await;
        let length = usize::from_str_radix(&line, 16).unwrap_or_else(|_| panic!("no chunk: {line:?}"));
        let chunk = self.exactly(length).await;
        assert_eq!(self.line().await, "");
        (length > 0).then_some(chunk)
    }

    /// Whatever comes until the peer closes the connection.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut rest = std::mem::take(&mut self.ahead);
        let _ = timeout(PATIENCE, self.stream.read_to_end(&mut rest)).await.expect("the connection stays open");
        rest
    }

    /// Some bytes of a body with a length.
    pub async fn body(&mut self, length: usize) -> Vec<u8> {
        self.exactly(length).await
    }

    async fn line(&mut self) -> String {
        loop {
            if let Some(at) = self.ahead.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.ahead.drain(..at + 2).take(at).collect();
                return String::from_utf8(line).unwrap();
            }
            self.more().await;
        }
    }

    async fn exactly(&mut self, length: usize) -> Vec<u8> {
        while self.ahead.len() < length {
            self.more().await;
        }
        let rest = self.ahead.split_off(length);
        std::mem::replace(&mut self.ahead, rest)
    }

    async fn more(&mut self) {
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.ahead)).await.expect("nothing comes").unwrap();
        assert_ne!(read, 0, "the connection ended after {:?}", String::from_utf8_lossy(&self.ahead));
    }
}

/// The bytes of a request.
pub fn request(method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{method} {target} HTTP/1.1\r\nhost: agent\r\n").into_bytes();
    for (name, value) in headers {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    let chunked = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("transfer-encoding"));
    if !chunked && (!body.is_empty() || method == "POST") {
        bytes.extend_from_slice(format!("content-length: {}\r\n", body.len()).as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}
