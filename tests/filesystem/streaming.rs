//! Watching by stream.

use std::time::Duration;

use envd::proto::filesystem::{
    WatchDirRequest, WatchDirResponse, filesystem_server::Filesystem, watch_dir_response::Event,
};
use futures_util::StreamExt;
use tokio::time::timeout;

use super::*;

type Stream = <FilesystemService as Filesystem>::WatchDirStream;

/// Far beyond what any machine needs: a limit for failures.
const PATIENCE: Duration = Duration::from_secs(60);

impl Fixture {
    async fn stream(&self, headers: &[(&'static str, &str)]) -> tonic::Response<Stream> {
        let mut request = Request::new(WatchDirRequest { path: text(&self.root), ..Default::default() });
        for (name, value) in headers {
            request.metadata_mut().insert(*name, value.parse().unwrap());
        }
        self.service.watch_dir(request).await.unwrap()
    }
}

async fn next(stream: &mut Stream) -> Option<WatchDirResponse> {
    timeout(PATIENCE, stream.next()).await.expect("nothing came").transpose().unwrap()
}

async fn next_event(stream: &mut Stream) -> Event {
    next(stream).await.unwrap().event.unwrap()
}

#[tokio::test]
async fn start_comes_first_and_the_watch_is_armed_before_it() {
    let it = Fixture::new();
    let mut stream = it.stream(&[]).await.into_inner();
    // Nobody has polled the stream yet.
    upload(&it.path("f"), b"x");
    assert!(matches!(next_event(&mut stream).await, Event::Start(_)));
    for expected in ["f CREATE", "f CHMOD", "f WRITE"] {
        let Event::Filesystem(event) = next_event(&mut stream).await else { panic!("no event") };
        assert_eq!(short(&event), expected);
        assert_eq!(event.entry, None);
    }
}

#[tokio::test]
async fn an_idle_stream_is_kept_alive() {
    let it = Fixture::new();
    let mut stream = it.stream(&[("keepalive-ping-interval", "1")]).await.into_inner();
    assert!(matches!(next_event(&mut stream).await, Event::Start(_)));
    let begin = std::time::Instant::now();
    for _ in 0..2 {
        assert!(matches!(next_event(&mut stream).await, Event::Keepalive(_)));
    }
    assert!(begin.elapsed() > Duration::from_secs(1));
}

#[tokio::test]
async fn shutdown_ends_streams_cleanly() {
    let it = Fixture::new();
    let mut stream = it.stream(&[]).await.into_inner();
    assert!(next(&mut stream).await.is_some());
    let service = it.service.clone();
    let (end, ()) = tokio::join!(next(&mut stream), async move { service.shutdown() });
    assert!(end.is_none());
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_watch_along() {
    let it = Fixture::new();
    let stream = it.stream(&[]).await;
    assert_eq!(it.service.watches().count(), 1);
    drop(stream);
    assert_eq!(it.service.watches().count(), 0);
}

#[tokio::test]
async fn the_oldest_sdk_gets_its_own_schema() {
    let it = Fixture::new();
    let mut request = Request::new(WatchDirRequest { path: text(&it.root), include_entry: true, ..Default::default() });
    request.metadata_mut().insert("user-agent", "connect-python".parse().unwrap());
    let response = it.service.watch_dir(request).await.unwrap();
    assert_eq!(response.metadata().get("x-e2b-legacy-sdk").unwrap(), "true");
    let mut stream = response.into_inner();
    assert!(next(&mut stream).await.is_some());
    upload(&it.path("f"), b"x");
    let Event::Filesystem(event) = next_event(&mut stream).await else { panic!("no event") };
    assert_eq!((short(&event).as_str(), event.entry), ("f CREATE", None));
}

#[tokio::test(flavor = "multi_thread")]
async fn bursts_arrive_complete_and_in_order() {
    let it = Fixture::fast();
    let mut stream = it.stream(&[]).await.into_inner();
    assert!(next(&mut stream).await.is_some());
    let root = it.root.clone();
    let writer = tokio::task::spawn_blocking(move || {
        for n in 0..5000 {
            rustix::fs::mkdir(root.join(format!("d{n}")), 0o755.into()).unwrap();
        }
    });
    for n in 0..5000 {
        let Event::Filesystem(event) = next_event(&mut stream).await else { panic!("no event") };
        assert_eq!(short(&event), format!("d{n} CREATE"));
    }
    writer.await.unwrap();
}

#[tokio::test]
async fn failures_come_before_the_stream() {
    let it = Fixture::new();
    let path = it.text("gone");
    let missing = format!("path {path} not found: stat {path}: no such file or directory");
    let request = Request::new(WatchDirRequest { path, ..Default::default() });
    assert_eq!(failure(it.service.watch_dir(request).await), (Code::NotFound, missing));
}
