//! Watching by polling: event counts, names, checks and limits.

use std::os::unix::fs::{PermissionsExt, symlink};

use envd::proto::filesystem::RemoveWatcherRequest;
use rustix::fs::{XattrFlags, setxattr};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_new_upload_is_exactly_three_events_right_after_it() {
    let it = Fixture::new();
    let watcher = it.watch("", false).await;
    for round in 0..200 {
        let name = format!("f{round}");
        upload(&it.path(&name), b"content");
        let expected = ["CREATE", "CHMOD", "WRITE"].map(|kind| format!("{name} {kind}"));
        assert_eq!(watcher.events().await, expected);
        assert!(watcher.events().await.is_empty());
    }
}

#[tokio::test]
async fn each_action_has_its_events() {
    let it = Fixture::new();
    fs::create_dir(it.path("w")).unwrap();
    fs::create_dir(it.path("w/sub")).unwrap();
    let watcher = it.watch("w", false).await;
    let path = |name: &str| it.path("w").join(name);

    upload(&path("f"), b"one");
    setxattr(path("f"), "user.e2b.k", b"v", XattrFlags::empty()).unwrap();
    assert_eq!(watcher.events().await, ["f CREATE", "f CHMOD", "f WRITE", "f CHMOD"]);

    upload(&path("f"), b"two");
    let over: Vec<String> = watcher.events().await;
    // The truncation and the write may be merged with the chown between them or not.
    assert!(over.iter().all(|event| event == "f CHMOD" || event == "f WRITE"), "{over:?}");
    assert!(over.contains(&"f CHMOD".to_owned()) && over.last().unwrap() == "f WRITE", "{over:?}");

    fs::rename(path("f"), path("g")).unwrap();
    assert_eq!(watcher.events().await, ["f RENAME", "g CREATE"]);
    fs::rename(path("g"), it.path("outside")).unwrap();
    assert_eq!(watcher.events().await, ["g RENAME"]);
    fs::rename(it.path("outside"), path("h")).unwrap();
    assert_eq!(watcher.events().await, ["h CREATE"]);
    symlink("h", path("link")).unwrap();
    fs::hard_link(path("h"), path("hard")).unwrap();
    let created: Vec<String> = watcher.events().await;
    assert_eq!(created.iter().filter(|event| event.ends_with("CREATE")).count(), 2, "{created:?}");
    OpenOptions::new().write(true).open(path("h")).unwrap().set_len(1).unwrap();
    assert_eq!(watcher.events().await, ["h WRITE"]);
    fs::remove_file(path("link")).unwrap();
    assert_eq!(watcher.events().await, ["link REMOVE"]);
    fs::set_permissions(it.path("w"), PermissionsExt::from_mode(0o700)).unwrap();
    assert_eq!(watcher.events().await, [". CHMOD"]);
    upload(&path("sub/x"), b"");
    fs::create_dir(path("sub/y")).unwrap();
    assert!(watcher.events().await.is_empty(), "what is in a subdirectory is not told");
    fs::create_dir(path("new")).unwrap();
    fs::set_permissions(path("new"), PermissionsExt::from_mode(0o700)).unwrap();
    assert_eq!(watcher.events().await, ["new CREATE", "new CHMOD"]);
    assert_eq!(fs::read(path("h")).unwrap(), b"t");
    assert!(watcher.events().await.is_empty(), "reads are not told");
}

#[tokio::test]
async fn a_removed_root_is_told_and_watched_again_when_it_returns() {
    let it = Fixture::new();
    fs::create_dir_all(it.path("p/w")).unwrap();
    let watcher = it.watch("p/w", false).await;
    fs::remove_dir(it.path("p/w")).unwrap();
    assert_eq!(watcher.events().await, [". REMOVE"]);
    upload(&it.path("p/other"), b"");
    assert!(watcher.events().await.is_empty());
    fs::remove_dir_all(it.path("p")).unwrap();
    assert!(watcher.events().await.is_empty());
    fs::create_dir(it.path("p")).unwrap();
    assert!(watcher.events().await.is_empty());
    fs::create_dir(it.path("p/w")).unwrap();
    assert_eq!(watcher.events().await, [". CREATE"]);
    upload(&it.path("p/w/f"), b"x");
    assert_eq!(watcher.events().await, ["f CREATE", "f CHMOD", "f WRITE"]);
}

#[tokio::test]
async fn a_root_that_returns_in_one_go_tells_its_content() {
    let it = Fixture::new();
    fs::create_dir_all(it.path("p/w")).unwrap();
    let watcher = it.watch("p/w", true).await;
    fs::remove_dir_all(it.path("p")).unwrap();
    fs::create_dir_all(it.path("p/w/sub")).unwrap();
    upload(&it.path("p/w/sub/f"), b"x");
    assert_eq!(watcher.events().await, [". REMOVE", ". CREATE", "sub CREATE", "sub/f CREATE"]);
    upload(&it.path("p/w/sub/g"), b"x");
    assert_eq!(watcher.events().await, ["sub/g CREATE", "sub/g CHMOD", "sub/g WRITE"]);
}

#[tokio::test]
async fn a_renamed_root_is_told_and_its_old_path_watched_again() {
    let it = Fixture::new();
    fs::create_dir(it.path("w")).unwrap();
    let watcher = it.watch("w", false).await;
    fs::rename(it.path("w"), it.path("moved")).unwrap();
    assert_eq!(watcher.events().await, [". RENAME"]);
    upload(&it.path("moved/f"), b"x");
    assert!(watcher.events().await.is_empty(), "the directory is no longer at the watched path");
    fs::rename(it.path("moved"), it.path("w")).unwrap();
    assert_eq!(watcher.events().await, [". CREATE", "f CREATE"]);
    upload(&it.path("w/g"), b"x");
    assert_eq!(watcher.events().await, ["g CREATE", "g CHMOD", "g WRITE"]);
}

#[tokio::test]
async fn two_watchers_on_one_directory_see_the_same_and_end_alone() {
    let it = Fixture::new();
    fs::create_dir_all(it.path("w/sub")).unwrap();
    symlink("w", it.path("alias")).unwrap();
    let (plain, recursive, alias) =
        (it.watch("w", false).await, it.watch("w", true).await, it.watch("alias", true).await);
    upload(&it.path("w/f"), b"x");
    upload(&it.path("w/sub/f"), b"x");
    let own = ["f CREATE", "f CHMOD", "f WRITE"];
    let all = [&own[..], &["sub/f CREATE", "sub/f CHMOD", "sub/f WRITE"]].concat();
    assert_eq!(plain.events().await, own);
    assert_eq!(recursive.events().await, all);
    assert_eq!(alias.events().await, all);
    let removal = || Request::new(RemoveWatcherRequest { watcher_id: recursive.id.clone() });
    it.service.remove_watcher(removal()).await.unwrap();
    let unknown = (Code::NotFound, format!("watcher with id {} not found", recursive.id));
    assert_eq!(failure(it.service.remove_watcher(removal()).await), unknown);
    let request = GetWatcherEventsRequest { watcher_id: recursive.id.clone() };
    assert_eq!(failure(it.service.get_watcher_events(Request::new(request)).await), unknown);
    upload(&it.path("w/g"), b"x");
    assert_eq!(plain.events().await, ["g CREATE", "g CHMOD", "g WRITE"]);
    assert_eq!(alias.events().await, ["g CREATE", "g CHMOD", "g WRITE"]);
}

#[tokio::test]
async fn a_new_watcher_does_not_see_the_past() {
    let it = Fixture::new();
    let old = it.watch("", false).await;
    upload(&it.path("f"), b"x");
    let new = it.watch("", false).await;
    assert!(new.events().await.is_empty());
    assert_eq!(old.events().await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_thousand_events_are_neither_lost_nor_reordered() {
    let it = Fixture::fast();
    let watcher = it.watch("", false).await;
    let expected: Vec<String> = (0..20_000).map(|n| format!("f{n} CREATE")).collect();
    let root = it.root.clone();
    let writer = tokio::task::spawn_blocking(move || {
        for n in 0..20_000 {
            rustix::fs::mkdir(root.join(format!("f{n}")), 0o755.into()).unwrap();
        }
    });
    writer.await.unwrap();
    let events = watcher.events().await;
    // On a machine that starves the reader the kernel drops events; then the client must have been told.
    if events != expected {
        assert_eq!(events.last().map(String::as_str), Some(". WRITE"), "{} events", events.len());
    }
}

#[tokio::test]
async fn thousands_of_watchers_share_one_instance() {
    let it = Fixture::fast();
    let mut watchers = Vec::new();
    for n in 0..1000 {
        let name = format!("d{n}");
        fs::create_dir(it.path(&name)).unwrap();
        watchers.push(it.watch(&name, false).await);
    }
    for n in [0, 500, 999] {
        upload(&it.path(&format!("d{n}/f")), b"x");
        assert_eq!(watchers[n].events().await.len(), 3);
        assert!(watchers[1].events().await.is_empty());
    }
}

#[tokio::test]
async fn entries_are_attached_to_what_is_there_and_only_when_asked() {
    let it = Fixture::new();
    fs::create_dir(it.path("w")).unwrap();
    symlink("w", it.path("alias")).unwrap();
    let path = format!("{}/./alias/", it.root.display());
    let watcher =
        it.watch_with(CreateWatcherRequest { path, include_entry: true, recursive: true, ..Default::default() }).await;
    upload(&it.path("w/f"), b"hello");
    for event in watcher.messages().await {
        let entry = event.entry.unwrap();
        assert_eq!((entry.name.as_str(), entry.path, entry.size), ("f", it.text("alias/f"), 5));
    }
    // Something new stands at the old name; it is not what was renamed.
    fs::rename(it.path("w/f"), it.path("w/g")).unwrap();
    upload(&it.path("w/f"), b"");
    fs::remove_file(it.path("w/g")).unwrap();
    for event in watcher.messages().await {
        let has_entry = event.name == "f" && event.r#type() != EventType::Rename;
        assert_eq!(event.entry.is_some(), has_entry, "{event:?}");
    }
}

#[tokio::test]
async fn names_that_are_not_text_are_told_with_replacements() {
    use std::os::unix::ffi::OsStrExt;
    let it = Fixture::new();
    let watcher = it.watch("", false).await;
    fs::create_dir(it.root.join(std::ffi::OsStr::from_bytes(b"bad\xff"))).unwrap();
    assert_eq!(watcher.events().await, ["bad\u{fffd} CREATE"]);
}

#[tokio::test]
async fn watcher_failures() {
    let it = Fixture::new();
    upload(&it.path("f"), b"");
    let create =
        |path: String| it.service.create_watcher(Request::new(CreateWatcherRequest { path, ..Default::default() }));
    for (name, reason) in [("gone", "no such file or directory"), ("f/x", "not a directory")] {
        let path = it.text(name);
        let missing = format!("path {path} not found: stat {path}: {reason}");
        assert_eq!(failure(create(path).await), (Code::NotFound, missing));
    }
    let not_dir = format!("path {} not a directory", it.text("f"));
    assert_eq!(failure(create(it.text("f")).await), (Code::InvalidArgument, not_dir));
    let long = it.text(&"n".repeat(300));
    let stat = format!("error statting path {long}: stat {long}: file name too long");
    assert_eq!(failure(create(long).await), (Code::Internal, stat));
    assert_eq!(failure(create("~bob".to_owned()).await).0, Code::InvalidArgument);
    assert_eq!(it.service.watches().count(), 0);
}

/// More directories than the kernel keeps events for; `None` where that would be too many to make.
fn overflowing_count() -> Option<usize> {
    let limit: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
    (limit <= 100_000).then_some(limit + 2000)
}

// On this runtime the reader cannot run between two awaits, so the kernel's queue overflows for certain.
#[tokio::test(flavor = "current_thread")]
async fn a_plain_watcher_is_told_when_the_kernel_dropped_events_and_goes_on() {
    let it = Fixture::fast();
    let Some(count) = overflowing_count() else { return };
    let watcher = it.watch("", false).await;
    for n in 0..count {
        rustix::fs::mkdir(it.path(&format!("d{n}")), 0o755.into()).unwrap();
    }
    let events = watcher.events().await;
    assert!(events.len() < count);
    assert_eq!((events[0].as_str(), events.last().map(String::as_str)), ("d0 CREATE", Some(". WRITE")));
    upload(&it.path("f"), b"x");
    assert_eq!(watcher.events().await, ["f CREATE", "f CHMOD", "f WRITE"]);
}

#[tokio::test(flavor = "current_thread")]
async fn a_recursive_watcher_finds_what_the_kernel_dropped() {
    let it = Fixture::fast();
    let Some(count) = overflowing_count() else { return };
    for path in ["gone/deep", "moved/deep", "kept"] {
        fs::create_dir_all(it.path(path)).unwrap();
    }
    let watcher = it.watch("", true).await;
    for n in 0..count {
        rustix::fs::mkdir(it.path(&format!("d{n}")), 0o755.into()).unwrap();
    }
    fs::remove_dir_all(it.path("gone")).unwrap();
    fs::rename(it.path("moved"), it.path("new")).unwrap();
    upload(&it.path(&format!("d{}/f", count - 1)), b"x");
    let mut counts = BTreeMap::<String, usize>::new();
    let events = watcher.events().await;
    for event in &events {
        *counts.entry(event.clone()).or_default() += 1;
    }
    let once = |event: String| assert_eq!(counts.get(&event), Some(&1), "{event}");
    (0..count).for_each(|n| once(format!("d{n} CREATE")));
    for event in ["gone REMOVE", "gone/deep REMOVE", "moved REMOVE", "new CREATE", "new/deep CREATE", ". WRITE"] {
        once(event.to_owned());
    }
    once(format!("d{}/f CREATE", count - 1));
    assert_eq!(events.last().map(String::as_str), Some(". WRITE"));
    for path in ["kept", "new/deep", &format!("d{}", count - 1)] {
        fs::create_dir(it.path(path).join("x")).unwrap();
        assert_eq!(watcher.events().await, [format!("{path}/x CREATE")]);
    }
}
