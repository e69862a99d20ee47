//! Watching trees: directories that appear, move, leave and vanish.

use std::{
    os::unix::fs::{PermissionsExt, symlink},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use envd::{
    files::transfer::FileQuery,
    proto::filesystem::{MakeDirRequest, MoveRequest},
};
use tokio::{runtime::Handle, task::block_in_place, time::timeout};

use super::*;

impl Fixture {
    async fn make(&self, path: &str) {
        self.service.make_dir(Request::new(MakeDirRequest { path: self.text(path) })).await.unwrap();
    }
}

#[tokio::test]
async fn existing_directories_are_watched_at_every_depth() {
    let it = Fixture::new();
    fs::create_dir_all(it.path("a/b/c")).unwrap();
    let watcher = it.watch("", true).await;
    upload(&it.path("a/b/c/f"), b"x");
    assert_eq!(watcher.events().await, ["a/b/c/f CREATE", "a/b/c/f CHMOD", "a/b/c/f WRITE"]);
}

#[tokio::test]
async fn every_level_of_a_new_path_is_told_once() {
    let it = Fixture::new();
    let watcher = it.watch("", true).await;
    for round in 0..50 {
        fs::create_dir_all(it.path(&format!("a{round}/b/c"))).unwrap();
        let expected = ["", "/b", "/b/c"].map(|below| format!("a{round}{below} CREATE"));
        assert_eq!(watcher.events().await, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn new_paths_are_told_once_while_the_reader_races() {
    let it = Fixture::fast();
    let watcher = it.watch("", true).await;
    let root = it.root.clone();
    let writer = tokio::task::spawn_blocking(move || {
        for n in 0..300 {
            fs::create_dir_all(root.join(format!("a{n}/b/c/d"))).unwrap();
            upload(&root.join(format!("a{n}/b/c/d/f")), b"x");
        }
    });
    writer.await.unwrap();
    let mut counts = BTreeMap::<String, usize>::new();
    for event in watcher.events().await {
        *counts.entry(event).or_default() += 1;
    }
    for n in 0..300 {
        for below in ["", "/b", "/b/c", "/b/c/d", "/b/c/d/f"] {
            assert_eq!(counts.get(&format!("a{n}{below} CREATE")), Some(&1), "a{n}{below}");
        }
        // Content shows before the kernel tells the write, so a scan in between tells it a second time.
        assert!(counts.contains_key(&format!("a{n}/b/c/d/f WRITE")), "a{n}");
    }
}

#[tokio::test]
async fn a_directory_made_through_the_service_is_watched_when_the_answer_is_there() {
    let it = Fixture::new();
    let watcher = it.watch("", true).await;
    it.make("d").await;
    upload(&it.path("d/f"), b"x");
    // The chmod of the new directory is its change of owner.
    assert_eq!(watcher.events().await, ["d CREATE", "d CHMOD", "d/f CREATE", "d/f CHMOD", "d/f WRITE"]);
}

#[tokio::test]
async fn an_upload_into_new_directories_is_told_step_by_step() {
    let it = Fixture::new();
    let watcher = it.watch("", true).await;
    for round in 0..50 {
        let path = it.text(&format!("d{round}/e/f"));
        let query = FileQuery { path: Some(path), ..FileQuery::default() };
        let request = http::Request::new(envd::Body::new("content".to_owned()));
        let (mut parts, body) = request.into_parts();
        parts.headers.insert("content-type", http::HeaderValue::from_static("application/octet-stream"));
        assert_eq!(it.transfers.upload(query, http::Request::from_parts(parts, body)).await.status(), 200);
        let events = watcher.events().await;
        let of_file: Vec<_> = events.iter().filter(|event| event.contains("/f ")).collect();
        let expected = ["CREATE", "CHMOD", "WRITE"].map(|kind| format!("d{round}/e/f {kind}"));
        assert!(of_file.into_iter().eq(&expected), "{events:?}");
    }
}

#[tokio::test]
async fn a_file_written_before_its_directory_was_watched_is_told_as_written() {
    let it = Fixture::new();
    let watcher = it.watch("", true).await;
    fs::create_dir(it.path("d")).unwrap();
    upload(&it.path("d/f"), b"x");
    upload(&it.path("d/empty"), b"");
    assert_eq!(watcher.events().await, ["d CREATE", "d/empty CREATE", "d/f CREATE", "d/f WRITE"]);
}

#[tokio::test]
async fn moved_in_directories_tell_their_content_and_are_watched() {
    let it = Fixture::new();
    fs::create_dir(it.path("w")).unwrap();
    fs::create_dir_all(it.path("out/sub")).unwrap();
    upload(&it.path("out/sub/f"), b"x");
    let watcher = it.watch("w", true).await;
    fs::rename(it.path("out"), it.path("w/in")).unwrap();
    assert_eq!(watcher.events().await, ["in CREATE", "in/sub CREATE", "in/sub/f CREATE"]);
    upload(&it.path("w/in/sub/g"), b"x");
    assert_eq!(watcher.events().await.len(), 3);
}

#[tokio::test]
async fn directories_renamed_inside_keep_being_watched_under_the_new_name() {
    let it = Fixture::new();
    for path in ["foo/deep", "foobar/deep", "other"] {
        fs::create_dir_all(it.path(path)).unwrap();
    }
    let watcher = it.watch("", true).await;
    fs::rename(it.path("foo"), it.path("other/new")).unwrap();
    assert_eq!(watcher.events().await, ["foo RENAME", "other/new CREATE"]);
    fs::create_dir(it.path("other/new/deep/x")).unwrap();
    assert_eq!(watcher.events().await, ["other/new/deep/x CREATE"]);
    fs::create_dir(it.path("foobar/deep/x")).unwrap();
    assert_eq!(watcher.events().await, ["foobar/deep/x CREATE"], "a name that only starts alike stays");
    let request = MoveRequest { source: it.text("other"), destination: it.text("o2") };
    it.service.r#move(Request::new(request)).await.unwrap();
    fs::remove_dir(it.path("o2/new/deep/x")).unwrap();
    assert_eq!(watcher.events().await, ["other RENAME", "o2 CREATE", "o2/new/deep/x REMOVE"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_storm_of_renames_holds_nobody_up() {
    let it = Fixture::fast();
    let _watcher = it.watch("", true).await;
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for storm in 0..2 {
            let (one, other) = (it.path(&format!("{storm}a")), it.path(&format!("{storm}b")));
            fs::create_dir(&one).unwrap();
            let is_over = &is_over;
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    fs::rename(&one, &other).unwrap();
                    fs::rename(&other, &one).unwrap();
                }
            });
        }
        let calls = async {
            for call in 0..20 {
                it.make(&format!("made{call}")).await;
            }
        };
        let outcome = block_in_place(|| Handle::current().block_on(timeout(Duration::from_secs(60), calls)));
        is_over.store(true, Ordering::Relaxed);
        outcome.unwrap();
    });
}

#[tokio::test]
async fn a_directory_renamed_over_an_empty_one_takes_its_place() {
    let it = Fixture::new();
    fs::create_dir_all(it.path("a/deep")).unwrap();
    fs::create_dir(it.path("b")).unwrap();
    let watcher = it.watch("", true).await;
    fs::rename(it.path("a"), it.path("b")).unwrap();
    assert_eq!(watcher.events().await, ["a RENAME", "b CREATE"]);
    fs::create_dir(it.path("b/deep/x")).unwrap();
    assert_eq!(watcher.events().await, ["b/deep/x CREATE"]);
}

#[tokio::test]
async fn two_directories_can_change_places() {
    let it = Fixture::new();
    fs::create_dir_all(it.path("a/in-a")).unwrap();
    fs::create_dir_all(it.path("b/in-b")).unwrap();
    let watcher = it.watch("", true).await;
    for (from, to) in [("a", "tmp"), ("b", "a"), ("tmp", "b")] {
        fs::rename(it.path(from), it.path(to)).unwrap();
    }
    assert_eq!(watcher.events().await.len(), 6);
    fs::create_dir(it.path("a/in-b/x")).unwrap();
    fs::create_dir(it.path("b/in-a/y")).unwrap();
    assert_eq!(watcher.events().await, ["a/in-b/x CREATE", "b/in-a/y CREATE"]);
}

#[tokio::test]
async fn moved_out_directories_are_silent() {
    let it = Fixture::new();
    fs::create_dir_all(it.path("w/d/deep")).unwrap();
    fs::create_dir(it.path("other")).unwrap();
    let (watcher, other) = (it.watch("w", true).await, it.watch("other", true).await);
    fs::rename(it.path("w/d"), it.path("other/d")).unwrap();
    assert_eq!(watcher.events().await, ["d RENAME"]);
    assert_eq!(other.events().await, ["d CREATE", "d/deep CREATE"]);
    upload(&it.path("other/d/deep/f"), b"x");
    assert!(watcher.events().await.is_empty());
    assert_eq!(other.events().await.len(), 3);
}

#[tokio::test]
async fn changes_of_a_subdirectory_are_told_once() {
    let it = Fixture::new();
    fs::create_dir_all(it.path("d")).unwrap();
    let watcher = it.watch("", true).await;
    fs::set_permissions(it.path("d"), PermissionsExt::from_mode(0o700)).unwrap();
    assert_eq!(watcher.events().await, ["d CHMOD"]);
}

#[tokio::test]
async fn recursive_removal_tells_each_entry_once_children_first() {
    let it = Fixture::new();
    fs::create_dir_all(it.path("d/e")).unwrap();
    upload(&it.path("d/e/f"), b"");
    let watcher = it.watch("", true).await;
    fs::remove_dir_all(it.path("d")).unwrap();
    assert_eq!(watcher.events().await, ["d/e/f REMOVE", "d/e REMOVE", "d REMOVE"]);
    fs::create_dir(it.path("d")).unwrap();
    upload(&it.path("d/g"), b"");
    assert_eq!(watcher.events().await, ["d CREATE", "d/g CREATE"]);
}

#[tokio::test]
async fn a_symlinked_root_is_followed_and_links_below_are_not() {
    let it = Fixture::new();
    fs::create_dir_all(it.path("w/sub")).unwrap();
    fs::create_dir(it.path("elsewhere")).unwrap();
    symlink("w", it.path("alias")).unwrap();
    symlink("../elsewhere", it.path("w/link")).unwrap();
    let watcher = it.watch("alias", true).await;
    fs::create_dir(it.path("w/sub/x")).unwrap();
    fs::create_dir(it.path("elsewhere/y")).unwrap();
    assert_eq!(watcher.events().await, ["sub/x CREATE"]);
}

#[tokio::test]
async fn nested_watchers_each_use_their_own_names() {
    let it = Fixture::new();
    fs::create_dir_all(it.path("a/b")).unwrap();
    let (outer, inner) = (it.watch("", true).await, it.watch("a/b", true).await);
    fs::create_dir_all(it.path("a/b/new/deep")).unwrap();
    assert_eq!(outer.events().await, ["a/b/new CREATE", "a/b/new/deep CREATE"]);
    assert_eq!(inner.events().await, ["new CREATE", "new/deep CREATE"]);
    fs::rename(it.path("a/b"), it.path("a/c")).unwrap();
    assert_eq!(outer.events().await, ["a/b RENAME", "a/c CREATE"]);
    assert_eq!(inner.events().await, [". RENAME"]);
    fs::create_dir(it.path("a/c/new/deep/x")).unwrap();
    assert_eq!(outer.events().await, ["a/c/new/deep/x CREATE"]);
    assert!(inner.events().await.is_empty());
}
