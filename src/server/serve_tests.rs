#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed expectation is the test's failure, and one handler panics on purpose"
)]

use std::{net::SocketAddr, path::PathBuf};

use http::{Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    sync::mpsc,
};

use super::*;
use crate::{config::Address, server::errors::http::text};

/// A failure limit, not a measure.
const PATIENCE: Duration = Duration::from_secs(30);

struct Fixture {
    _dir: tempfile::TempDir,
    connections: Connections,
    tcp: SocketAddr,
    unix: PathBuf,
    /// Feeds the bodies of `/stream`.
    feed: mpsc::Sender<mpsc::Receiver<&'static str>>,
}

async fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let unix = dir.path().join("agent.sock");
    let (feed, feeds) = mpsc::channel(4);
    let feeds = Arc::new(tokio::sync::Mutex::new(feeds));
    let handler: SharedHandler = Arc::new(move |request: Request<Body>| {
        let feeds = feeds.clone();
        async move {
            match request.uri().path() {
                "/boom" => panic!("asked to"),
                "/echo" => {
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    Response::new(Body::new(http_body_util::Full::new(body)))
                }
                "/stream" => {
                    let mut feed: mpsc::Receiver<&'static str> = feeds.lock().await.recv().await.unwrap();
                    let frames = futures_util::stream::poll_fn(move |cx| {
                        feed.poll_recv(cx)
                            .map(|text| text.map(|text| Ok::<_, Infallible>(Frame::data(bytes::Bytes::from(text)))))
                    });
                    Response::new(Body::new(StreamBody::new(frames)))
                }
                path => text(StatusCode::OK, format!("{:?} {path}", request.version())),
            }
        }
    });
    let connections = Connections::new();
    let mut tcp = None;
    for address in [Address::Unix(unix.clone()), "tcp://127.0.0.1:0".parse().unwrap()] {
        let listener = Listener::bind(&address).await.unwrap();
        if let Address::Tcp(bound) = listener.address() {
            tcp = Some(*bound);
        }
        let (connections, handler) = (connections.clone(), handler.clone());
        tokio::spawn(async move { connections.accept(listener, handler).await });
    }
    Fixture { _dir: dir, connections, tcp: tcp.unwrap(), unix, feed }
}

/// Sends bytes and reads until the peer closes.
async fn exchange(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin, request: &[u8]) -> String {
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    let _ = time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
}

#[tokio::test]
async fn http1_is_served_over_tcp_and_socket_files() {
    let fixture = fixture().await;
    let tcp = TcpStream::connect(fixture.tcp).await.unwrap();
    assert!(exchange(tcp, get("/a").as_bytes()).await.ends_with("HTTP/1.1 /a"));
    let unix = UnixStream::connect(&fixture.unix).await.unwrap();
    assert!(exchange(unix, get("/b").as_bytes()).await.ends_with("HTTP/1.1 /b"));
}

#[tokio::test]
async fn http2_without_an_upgrade_is_served_on_the_same_port() {
    let fixture = fixture().await;
    for path in ["/c", "/boom", "/d"] {
        let status = http2_status(fixture.tcp, path).await;
        assert_eq!(status, if path == "/boom" { 500 } else { 200 }, "{path}");
    }
}

/// The status of one GET, by hand: the preface, empty settings, and a header block of literals.
async fn http2_status(address: SocketAddr, path: &str) -> u16 {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut block = vec![0x82, 0x86, 0x44, u8::try_from(path.len()).unwrap()];
    block.extend_from_slice(path.as_bytes());
    block.extend_from_slice(&[0x41, 1, b'x']);
    let mut request = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    request.extend_from_slice(&[0, 0, u8::try_from(block.len()).unwrap(), 1, 5, 0, 0, 0, 1]);
    request.extend_from_slice(&block);
    stream.write_all(&request).await.unwrap();
    loop {
        let mut head = [0; 9];
        time::timeout(PATIENCE, stream.read_exact(&mut head)).await.unwrap().unwrap();
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        time::timeout(PATIENCE, stream.read_exact(&mut payload)).await.unwrap().unwrap();
        if head[3] == 1 {
            // RFC 7541, appendix A: the indexed statuses.
            return match payload[0] {
                0x88 => 200,
                0x8e => 500,
                other => panic!("status field {other:#x}"),
            };
        }
    }
}

#[tokio::test]
async fn a_panic_costs_one_request_and_not_its_connection() {
    let fixture = fixture().await;
    let tcp = TcpStream::connect(fixture.tcp).await.unwrap();
    let requests = format!("GET /boom HTTP/1.1\r\nhost: x\r\n\r\n{}", get("/after"));
    let answer = exchange(tcp, requests.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
    assert!(answer.contains("{\"code\":500,\"message\":\"internal error\"}\n"), "{answer}");
    assert!(answer.ends_with("HTTP/1.1 /after"), "{answer}");
}

#[tokio::test]
async fn random_bytes_end_their_connection_only() {
    let fixture = fixture().await;
    for garbage in [&b"\0\0\0\0\r\n\r\n"[..], b"GET\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nxxxxxxxxxxxxxxxx"] {
        let tcp = TcpStream::connect(fixture.tcp).await.unwrap();
        exchange(tcp, garbage).await;
    }
    let tcp = TcpStream::connect(fixture.tcp).await.unwrap();
    assert!(exchange(tcp, get("/still").as_bytes()).await.ends_with("/still"));
}

#[tokio::test]
async fn many_and_large_header_fields_are_tolerated() {
    let fixture = fixture().await;
    let tcp = TcpStream::connect(fixture.tcp).await.unwrap();
    let fields: String = (0..200).map(|at| format!("x-{at}: {}\r\n", "v".repeat(1_000))).collect();
    let request = format!("GET /big HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{fields}\r\n");
    assert!(exchange(tcp, request.as_bytes()).await.ends_with("/big"));
}

#[tokio::test]
async fn bodies_arrive_whole_in_chunks() {
    let fixture = fixture().await;
    let tcp = TcpStream::connect(fixture.tcp).await.unwrap();
    let request = "POST /echo HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n\
                   3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    assert!(exchange(tcp, request.as_bytes()).await.ends_with("abcde"));
}

#[tokio::test]
async fn a_draining_server_lets_streams_finish_and_takes_no_more() {
    let fixture = fixture().await;
    let (text, body) = mpsc::channel(4);
    fixture.feed.send(body).await.unwrap();
    let mut tcp = TcpStream::connect(fixture.tcp).await.unwrap();
    tcp.write_all(b"GET /stream HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    text.send("first;").await.unwrap();
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("first;") {
        assert_ne!(time::timeout(PATIENCE, tcp.read_buf(&mut seen)).await.unwrap().unwrap(), 0);
    }
    let drain = tokio::spawn({
        let connections = fixture.connections.clone();
        async move { connections.drain(PATIENCE).await }
    });
    // The socket file goes with the listener.
    let gone = async {
        while fixture.unix.exists() {
            tokio::task::yield_now().await;
        }
    };
    time::timeout(PATIENCE, gone).await.unwrap();
    text.send("last;").await.unwrap();
    drop(text);
    time::timeout(PATIENCE, tcp.read_to_end(&mut seen)).await.unwrap().unwrap();
    let seen = String::from_utf8_lossy(&seen);
    assert!(seen.contains("last;") && seen.ends_with("0\r\n\r\n"), "{seen}");
    drain.await.unwrap();
}

#[tokio::test]
async fn a_stream_that_does_not_end_is_cut() {
    let fixture = fixture().await;
    let (_text, body) = mpsc::channel(4);
    fixture.feed.send(body).await.unwrap();
    let mut tcp = TcpStream::connect(fixture.tcp).await.unwrap();
    tcp.write_all(b"GET /stream HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut seen = vec![0; 4];
    time::timeout(PATIENCE, tcp.read_exact(&mut seen)).await.unwrap().unwrap();
    fixture.connections.drain(Duration::from_millis(1)).await;
    let mut rest = Vec::new();
    let _ = time::timeout(PATIENCE, tcp.read_to_end(&mut rest)).await.unwrap();
    assert!(!rest.ends_with(b"0\r\n\r\n"));
}
