//! The filesystem service, driven through its trait methods on real directories.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed expectation is the test's failure"
)]

#[path = "filesystem/entries.rs"]
mod entries;
#[path = "filesystem/polling.rs"]
mod polling;
#[path = "filesystem/recursive.rs"]
mod recursive;
#[path = "filesystem/streaming.rs"]
mod streaming;

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::{OpenOptionsExt, fchown},
    path::{Path, PathBuf},
};

use envd::{
    files::{FilesystemService, links::canonicalize, transfer::Transfers},
    proto::filesystem::{
        CreateWatcherRequest, EventType, FilesystemEvent, GetWatcherEventsRequest, filesystem_server::Filesystem,
    },
    system::{identity::Identity, settings::Settings},
};
use tonic::{Code, Request, Status};

/// A service for the user that the tests run as, and a directory to work in.
struct Fixture {
    service: FilesystemService,
    /// Uploads that the service's watches know of.
    transfers: Transfers,
    root: PathBuf,
    /// Passwd and group file of the service; the user's home is `root`.
    _accounts: tempfile::TempDir,
    _dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        Self::on(tempfile::tempdir().unwrap())
    }

    /// In memory where the machine has such a place: for tests that make tens of thousands of entries.
    fn fast() -> Self {
        Self::on(tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap())
    }

    fn on(dir: tempfile::TempDir) -> Self {
        let accounts = tempfile::tempdir().unwrap();
        let root = canonicalize(dir.path()).unwrap();
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let (passwd, group) = (accounts.path().join("passwd"), accounts.path().join("group"));
        fs::write(&passwd, format!("me:x:{uid}:{gid}::{}:/bin/sh\n", root.display())).unwrap();
        fs::write(&group, format!("mine:x:{gid}:\n")).unwrap();
        let settings = Settings::new("me".to_owned(), None, BTreeMap::new());
        let identity = Identity::from_files(passwd, group, None);
        let service = FilesystemService::new(identity.clone(), settings.clone()).unwrap();
        let transfers = Transfers::new(identity, settings).with_watches(service.watches().clone());
        Self { service, transfers, root, _accounts: accounts, _dir: dir }
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    fn text(&self, relative: &str) -> String {
        text(&self.path(relative))
    }

    /// A polling watcher on a path below the root.
    async fn watch(&self, relative: &str, recursive: bool) -> Watcher<'_> {
        self.watch_with(CreateWatcherRequest { path: self.text(relative), recursive, ..Default::default() }).await
    }

    async fn watch_with(&self, request: CreateWatcherRequest) -> Watcher<'_> {
        let response = self.service.create_watcher(Request::new(request)).await.unwrap();
        Watcher { service: &self.service, id: response.into_inner().watcher_id }
    }
}

/// A polling watcher.
struct Watcher<'a> {
    service: &'a FilesystemService,
    id: String,
}

impl Watcher<'_> {
    async fn messages(&self) -> Vec<FilesystemEvent> {
        let request = GetWatcherEventsRequest { watcher_id: self.id.clone() };
        self.service.get_watcher_events(Request::new(request)).await.unwrap().into_inner().events
    }

    /// All events since the last call, as "name KIND".
    async fn events(&self) -> Vec<String> {
        self.messages().await.iter().map(short).collect()
    }
}

/// An event as "name KIND".
fn short(event: &FilesystemEvent) -> String {
    let kind = EventType::try_from(event.r#type).unwrap();
    format!("{} {}", event.name, kind.as_str_name().strip_prefix("EVENT_TYPE_").unwrap())
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// Writes a file with the system calls of an upload: open, give to the user, write.
fn upload(path: &Path, content: &[u8]) {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(path).unwrap();
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    fchown(&file, Some(uid), Some(gid)).unwrap();
    file.write_all(content).unwrap();
}

/// Code and message of a failed call.
fn failure<T>(result: Result<T, Status>) -> (Code, String) {
    let status = result.err().expect("the call should have failed");
    (status.code(), status.message().to_owned())
}
