//! Streams of enveloped messages.

use std::{io::Read as _, net::SocketAddr};

use base64_simd::STANDARD;
use envd::proto::process::SpawnFailure;
use prost::Message as _;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::http1::{Exchange, Head, request};

/// One envelope: flags, length, payload.
pub fn frame(flags: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    [&[flags][..], &u32::try_from(payload.len()).unwrap().to_be_bytes(), payload].concat()
}

/// The envelopes of a body: flags and payload.
pub fn frames(body: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let (mut rest, mut frames) = (body, Vec::new());
    while let Some((head, tail)) = rest.split_first_chunk::<5>() {
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        frames.push((head[0], tail[..length].to_vec()));
        rest = &tail[length..];
    }
    assert!(rest.is_empty(), "half a frame: {rest:?}");
    frames
}

pub fn gzip(plain: impl AsRef<[u8]>) -> Vec<u8> {
    let mut packed = Vec::new();
    flate2::read::GzEncoder::new(plain.as_ref(), flate2::Compression::default()).read_to_end(&mut packed).unwrap();
    packed
}

pub fn gunzip(packed: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(packed).read_to_end(&mut plain).unwrap();
    plain
}

/// A stream whose head has arrived. Every chunk has to be exactly one frame: that is how messages leave at once.
pub struct EventStream {
    pub exchange: Exchange<TcpStream>,
    pub head: Head,
    ended: Option<Value>,
    /// A short response may have a length instead of chunks.
    short: Option<Vec<(u8, Vec<u8>)>>,
}

/// Everything that a process stream told.
#[derive(Debug, Default)]
pub struct Told {
    pub pid: u64,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub pty: Vec<u8>,
    pub keepalives: usize,
    pub end: Value,
    /// Payload of the frame that ended the stream.
    pub close: Value,
}

impl Told {
    pub fn stdout(&self) -> String {
        String::from_utf8(self.stdout.clone()).unwrap()
    }
}

impl EventStream {
    pub async fn open(address: SocketAddr, path: &str, headers: &[(&str, &str)], json: &str) -> Self {
        let mut all = vec![("content-type", "application/connect+json"), ("connect-protocol-version", "1")];
        all.extend_from_slice(headers);
        Self::send(address, &request("POST", path, &all, &frame(0, json))).await
    }

    /// Sends a whole request as it is.
    pub async fn send(address: SocketAddr, request: &[u8]) -> Self {
        let mut exchange = Exchange::new(TcpStream::connect(address).await.unwrap());
        exchange.write(request).await;
        Self::receive(exchange).await
    }

    /// Waits for the answer to a request that has been written.
    pub async fn receive(mut exchange: Exchange<TcpStream>) -> Self {
        let head = exchange.head().await;
        let mut stream = Self { exchange, head, ended: None, short: None };
        assert_eq!(stream.head.status, 200);
        if let Some(length) = stream.head.header("content-length").map(|length| length.parse::<usize>().unwrap()) {
            let mut short = frames(&stream.exchange.body(length).await);
            short.reverse();
            stream.short = Some(short);
        }
        stream
    }

    /// The next frame; `None` at the end of the body.
    pub async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        if let Some(short) = &mut self.short {
            return short.pop();
        }
        let chunk = self.exchange.chunk().await?;
        let mut frames = frames(&chunk);
        assert_eq!(frames.len(), 1, "one chunk for each frame");
        frames.pop()
    }

    /// The next message; `None` after the frame that ends the stream.
    pub async fn message(&mut self) -> Option<Value> {
        let (flags, payload) = self.frame().await.expect("a stream ends with a frame");
        let payload: Value = serde_json::from_slice(&payload).unwrap();
        if flags == 0 {
            return Some(payload);
        }
        assert_eq!(flags, 2);
        self.ended = Some(payload);
        assert!(self.frame().await.is_none(), "nothing follows the end");
        None
    }

    /// The event of the next message.
    pub async fn event(&mut self) -> Value {
        let message = self.message().await;
        message.unwrap_or_else(|| panic!("the stream ended: {:?}", self.ended))["event"].take()
    }

    pub async fn started(&mut self) -> u64 {
        let event = self.event().await;
        event["start"]["pid"].as_u64().unwrap_or_else(|| panic!("{event} came before the start"))
    }

    /// A member of the next message, for streams whose messages have no `event` around them.
    pub async fn event_of(&mut self, name: &str) -> Value {
        let message = self.message().await;
        message.unwrap_or_else(|| panic!("the stream ended: {:?}", self.ended))[name].take()
    }

    /// Reads output until it contains the text.
    pub async fn until(&mut self, text: &str) -> Vec<u8> {
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains(text) {
            let event = self.event().await;
            for name in ["stdout", "stderr", "pty"] {
                if let Some(data) = event["data"][name].as_str() {
                    seen.extend_from_slice(&STANDARD.decode_to_vec(data).unwrap());
                }
            }
        }
        seen
    }

    /// Reads to the end.
    pub async fn all(mut self) -> Told {
        let mut told = Told::default();
        while let Some(mut message) = self.message().await {
            assert!(told.end.is_null(), "{message} after the end");
            let event = message["event"].take();
            let (name, value) = event.as_object().and_then(|event| event.iter().next()).unwrap();
            match name.as_str() {
                "start" => told.pid = value["pid"].as_u64().unwrap(),
                "end" => told.end = value.clone(),
                "keepalive" => told.keepalives += 1,
                "data" => {
                    let (name, data) = value.as_object().and_then(|data| data.iter().next()).unwrap();
                    let data = STANDARD.decode_to_vec(data.as_str().unwrap()).unwrap();
                    assert!(!data.is_empty(), "an empty chunk");
                    match name.as_str() {
                        "stdout" => told.stdout.extend(data),
                        "stderr" => told.stderr.extend(data),
                        "pty" => told.pty.extend(data),
                        other => panic!("{other}"),
                    }
                }
                other => panic!("{other}"),
            }
        }
        told.close = self.ended.take().unwrap();
        told
    }

    /// Asserts that the stream ends with this error of a start, its detail about this stage and error, and no message.
    #[track_caller]
    pub fn assert_spawn_failure(self, code: &str, message: &str, stage: &str, errno: &str) -> impl Future<Output = ()> {
        let expected = serde_json::json!({ "code": code, "message": message });
        let expected_detail = (stage.to_owned(), errno.to_owned());
        async move {
            let mut told = self.all().await;
            let mut details = told.close["error"].as_object_mut().unwrap().remove("details").unwrap();
            assert_eq!(told.close, serde_json::json!({ "error": expected }));
            assert_eq!((told.pid, &told.end), (0, &Value::Null));
            let [detail] = details.as_array_mut().unwrap().as_slice() else { panic!("{details}") };
            assert_eq!(detail["type"], "process.SpawnFailure");
            let value = base64_simd::STANDARD_NO_PAD.decode_to_vec(detail["value"].as_str().unwrap()).unwrap();
            let failure = SpawnFailure::decode(value.as_slice()).unwrap();
            assert_eq!((failure.stage, failure.errno), expected_detail);
        }
    }

    /// Asserts that the stream ends with this error and no message.
    #[track_caller]
    pub fn assert_error(self, code: &str, message: &str) -> impl Future<Output = ()> {
        let expected = serde_json::json!({ "error": { "code": code, "message": message } });
        async move {
            let told = self.all().await;
            assert_eq!(told.close, expected);
            assert_eq!((told.pid, &told.end), (0, &Value::Null));
        }
    }
}
