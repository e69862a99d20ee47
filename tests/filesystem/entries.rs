//! Stat, MakeDir, Move, ListDir, Remove.

use std::os::unix::fs::{MetadataExt, symlink};

use envd::{
    proto::filesystem::{
        EntryInfo, FileType, ListDirRequest, MakeDirRequest, MoveRequest, RemoveRequest, StatRequest,
        filesystem_server::Filesystem,
    },
    system::{caller::RequestUser, identity::User},
};
use rustix::fs::{XattrFlags, setxattr};

use super::*;

impl Fixture {
    async fn stat(&self, path: &str) -> Result<EntryInfo, Status> {
        let response = self.service.stat(Request::new(StatRequest { path: path.to_owned() })).await?;
        Ok(response.into_inner().entry.unwrap())
    }

    async fn make_dir(&self, path: &str) -> Result<EntryInfo, Status> {
        let response = self.service.make_dir(Request::new(MakeDirRequest { path: path.to_owned() })).await?;
        Ok(response.into_inner().entry.unwrap())
    }

    async fn rename(&self, source: &str, destination: &str) -> Result<EntryInfo, Status> {
        let request = MoveRequest { source: source.to_owned(), destination: destination.to_owned() };
        Ok(self.service.r#move(Request::new(request)).await?.into_inner().entry.unwrap())
    }

    async fn list(&self, path: &str, depth: u32) -> Result<Vec<EntryInfo>, Status> {
        let request = ListDirRequest { path: path.to_owned(), depth };
        Ok(self.service.list_dir(Request::new(request)).await?.into_inner().entries)
    }

    async fn remove(&self, path: &str) -> Result<(), Status> {
        self.service.remove(Request::new(RemoveRequest { path: path.to_owned() })).await.map(drop)
    }
}

#[tokio::test]
async fn an_entry_has_all_its_details() {
    let it = Fixture::new();
    upload(&it.path("f.txt"), b"hello");
    setxattr(it.path("f.txt"), "user.e2b.k", b"v", XattrFlags::empty()).unwrap();
    let entry = it.stat("f.txt").await.unwrap();
    assert_eq!((entry.name.as_str(), entry.path.as_str()), ("f.txt", it.text("f.txt").as_str()));
    assert_eq!((entry.r#type(), entry.size, entry.mode), (FileType::File, 5, 0o644));
    assert_eq!(entry.permissions, "-rw-r--r--");
    assert_eq!((entry.owner.as_str(), entry.group.as_str()), ("me", "mine"));
    assert_eq!(entry.symlink_target, None);
    assert_eq!(entry.metadata.get("k").map(String::as_str), Some("v"));
    let time = entry.modified_time.unwrap();
    let meta = it.path("f.txt").metadata().unwrap();
    assert_eq!((time.seconds, i64::from(time.nanos)), (meta.mtime(), meta.mtime_nsec()));
}

#[tokio::test]
async fn absolute_paths_are_echoed_and_relative_ones_mean_home() {
    let it = Fixture::new();
    fs::create_dir_all(it.path("d/e")).unwrap();
    let odd = format!("{}/./d/../d/", it.root.display());
    let entry = it.stat(&odd).await.unwrap();
    assert_eq!((entry.path, entry.name.as_str()), (odd, "d"));
    assert_eq!(it.stat("d/./e/..").await.unwrap().path, it.text("d"));
    assert_eq!(it.stat("~/d").await.unwrap().path, it.text("d"));
    assert_eq!(it.stat("").await.unwrap().path, text(&it.root));
    assert_eq!(it.stat("/").await.unwrap().name, "/");
}

#[tokio::test]
async fn stat_failures() {
    let it = Fixture::new();
    upload(&it.path("f"), b"");
    let (gone, through) = (it.text("gone"), it.text("f/x"));
    let missing = format!("file not found: lstat {gone}: no such file or directory");
    assert_eq!(failure(it.stat(&gone).await), (Code::NotFound, missing));
    let not_dir = format!("file not found: lstat {through}: not a directory");
    assert_eq!(failure(it.stat(&through).await), (Code::NotFound, not_dir));
    let home = "failed to expand path '~bob' for user 'me': cannot expand user-specific home dir".to_owned();
    assert_eq!(failure(it.stat("~bob").await), (Code::InvalidArgument, home));
    assert_eq!(failure(it.stat("a\0b").await).0, Code::InvalidArgument);
    let long = it.text(&"n".repeat(300));
    let too_long = format!("error getting file info: lstat {long}: file name too long");
    assert_eq!(failure(it.stat(&long).await), (Code::Internal, too_long));
    symlink("loop", it.path("loop")).unwrap();
    assert_eq!(failure(it.stat(&it.text("loop/x")).await).0, Code::Internal);
}

#[tokio::test]
async fn the_default_user_is_needed_only_when_the_request_names_none() {
    let it = Fixture::new();
    let settings = Settings::new("nobody-here".to_owned(), None, BTreeMap::new());
    let service = FilesystemService::new(Identity::system(), settings.clone()).unwrap();
    let stat = || Request::new(StatRequest { path: "x".to_owned() });
    let unknown = failure(service.stat(stat()).await);
    assert_eq!(unknown, (Code::Unauthenticated, "invalid default user: 'nobody-here'".to_owned()));
    settings.set_default_user(String::new());
    assert_eq!(failure(service.stat(stat()).await), (Code::Unauthenticated, "no user specified".to_owned()));
    upload(&it.path("x"), b"");
    let mut request = stat();
    let user = User {
        name: "other".to_owned(),
        uid: 0,
        gid: 0,
        home: it.root.clone(),
        shell: "/bin/sh".into(),
        groups: Vec::new(),
    };
    request.extensions_mut().insert(RequestUser(user.into()));
    let entry = service.stat(request).await.unwrap().into_inner().entry.unwrap();
    assert_eq!(entry.path, it.text("x"));
}

#[tokio::test]
async fn directories_are_made_with_their_parents() {
    let it = Fixture::new();
    let entry = it.make_dir("a/b/c").await.unwrap();
    assert_eq!((entry.path, entry.mode), (it.text("a/b/c"), 0o755));
    symlink("a", it.path("link")).unwrap();
    let odd = format!("{}/link/./d/", it.root.display());
    assert_eq!(it.make_dir(&odd).await.unwrap().path, odd);
    assert!(it.path("a/d").is_dir());
}

#[tokio::test]
async fn make_dir_failures() {
    let it = Fixture::new();
    upload(&it.path("f"), b"");
    let (root, file, through) = (text(&it.root), it.text("f"), it.text("f/x"));
    let exists = format!("directory already exists: {root}");
    assert_eq!(failure(it.make_dir(&root).await), (Code::AlreadyExists, exists));
    let not_dir = format!("path already exists but it is not a directory: {file}");
    assert_eq!(failure(it.make_dir(&file).await), (Code::InvalidArgument, not_dir));
    let stat = format!("error getting file info: stat {through}: not a directory");
    assert_eq!(failure(it.make_dir(&through).await), (Code::Internal, stat));
    symlink("gone", it.path("broken")).unwrap();
    let (code, message) = failure(it.make_dir(&it.text("broken")).await);
    assert_eq!(code, Code::Internal);
    assert!(message.starts_with("failed to chown directory: "), "{message}");
    assert_eq!(failure(it.make_dir("~bob/x").await).0, Code::InvalidArgument);
}

#[tokio::test]
async fn moves_keep_what_belongs_to_the_entry_and_replace_files() {
    let it = Fixture::new();
    upload(&it.path("a"), b"new");
    setxattr(it.path("a"), "user.e2b.k", b"v", XattrFlags::empty()).unwrap();
    upload(&it.path("b"), b"old");
    let entry = it.rename("a", "b").await.unwrap();
    assert_eq!((entry.path, entry.size), (it.text("b"), 3));
    assert_eq!(entry.metadata.get("k").map(String::as_str), Some("v"));
    assert!(!it.path("a").exists());
    it.rename("b", "made/on/the/way").await.unwrap();
    assert_eq!(fs::read(it.path("made/on/the/way")).unwrap(), b"new");
    symlink("made", it.path("link")).unwrap();
    assert!(it.rename("link", "moved").await.unwrap().symlink_target.is_some());
    it.rename("made", "renamed").await.unwrap();
    assert!(it.path("renamed/on/the/way").exists());
}

#[tokio::test]
async fn move_failures() {
    let it = Fixture::new();
    upload(&it.path("f"), b"");
    fs::create_dir_all(it.path("d/inside")).unwrap();
    fs::create_dir(it.path("empty")).unwrap();
    let pair = |from: &str, to: &str| format!("{} {}", it.text(from), it.text(to));
    let missing = format!("source file not found: rename {}: no such file or directory", pair("gone", "new/x"));
    assert_eq!(failure(it.rename("gone", "new/x").await), (Code::NotFound, missing));
    assert!(!it.path("new").exists(), "nothing is made for a missing source");
    for (from, to) in [("f", "empty"), ("d", "empty"), ("d", "d")] {
        let exists = format!("error renaming: rename {}: file exists", pair(from, to));
        assert_eq!(failure(it.rename(from, to).await), (Code::Internal, exists));
    }
    let inside = format!("error renaming: rename {}: invalid argument", pair("d", "d/inside/x"));
    assert_eq!(failure(it.rename("d", "d/inside/x").await), (Code::Internal, inside));
    let onto_file = format!("error renaming: rename {}: not a directory", pair("d", "f"));
    assert_eq!(failure(it.rename("d", "f").await), (Code::Internal, onto_file));
    let blocked = format!("path is a file: {}", it.text("f"));
    assert_eq!(failure(it.rename("d", "f/x").await), (Code::Internal, blocked));
    let slash = format!("{}/", it.text("created"));
    let (code, message) = failure(it.rename("d", &slash).await);
    assert!(code == Code::Internal && message.ends_with(": file exists"), "{message}");
    assert_eq!(failure(it.rename("~bob", "x").await).0, Code::InvalidArgument);
    assert_eq!(failure(it.rename("f", "~bob").await).0, Code::InvalidArgument);
    assert_eq!(failure(it.rename("f", "/proc/x").await).0, Code::Internal);
    assert!(it.path("f").exists() && it.path("d/inside").exists());
}

#[tokio::test]
async fn lists_are_ordered_and_shown_below_the_requested_path() {
    let it = Fixture::new();
    fs::create_dir_all(it.path("d/sub")).unwrap();
    for file in ["d/b", "d/.hidden", "d/sub/x"] {
        upload(&it.path(file), b"");
    }
    symlink("sub", it.path("d/a-link")).unwrap();
    symlink("d", it.path("alias")).unwrap();
    let of = |entries: Vec<EntryInfo>| -> Vec<String> { entries.into_iter().map(|entry| entry.path).collect() };
    let one: Vec<String> = ["alias/.hidden", "alias/a-link", "alias/b", "alias/sub"].map(|path| it.text(path)).into();
    assert_eq!(of(it.list("alias", 0).await.unwrap()), one);
    let mut two = one.clone();
    two.push(it.text("alias/sub/x"));
    assert_eq!(of(it.list(&format!("{}/alias/", it.root.display()), 2).await.unwrap()), two);
    let link = &it.list("alias", 1).await.unwrap()[1];
    assert_eq!((link.r#type(), &link.symlink_target), (FileType::Directory, &Some(it.text("d/sub"))));
    assert!(it.list("d/sub/../sub/../../d/sub", 1).await.unwrap().len() == 1);
}

#[tokio::test]
async fn names_that_are_not_text_are_shown_with_replacements() {
    use std::os::unix::ffi::OsStrExt;
    let it = Fixture::new();
    fs::create_dir(it.path("d")).unwrap();
    upload(&it.path("d").join(std::ffi::OsStr::from_bytes(b"bad\xff")), b"");
    let entries = it.list("d", 1).await.unwrap();
    assert_eq!(entries[0].name, "bad\u{fffd}");
}

#[tokio::test]
async fn list_failures() {
    let it = Fixture::new();
    upload(&it.path("f"), b"");
    symlink("gone", it.path("dangling")).unwrap();
    symlink("loop", it.path("loop")).unwrap();
    let gone = it.text("gone");
    let missing = format!("path not found: lstat {gone}: no such file or directory");
    assert_eq!(failure(it.list(&gone, 1).await), (Code::NotFound, missing.clone()));
    assert_eq!(failure(it.list("dangling", 1).await), (Code::NotFound, missing));
    assert_eq!(failure(it.list("f/x", 1).await).0, Code::NotFound);
    let cyclic = format!("cyclic symlink or chain >255 links at \"{}\"", it.text("loop"));
    assert_eq!(failure(it.list("loop", 1).await), (Code::FailedPrecondition, cyclic));
    let not_dir = format!("path is not a directory: {}", it.text("f"));
    assert_eq!(failure(it.list("f", 1).await), (Code::InvalidArgument, not_dir));
    let (code, message) = failure(it.list(&"n".repeat(300), 1).await);
    assert!(code == Code::Internal && message.starts_with("error resolving symlink: lstat "), "{message}");
    assert_eq!(failure(it.list("~bob", 1).await).0, Code::InvalidArgument);
}

#[tokio::test]
async fn removal_is_recursive_and_missing_entries_are_fine() {
    let it = Fixture::new();
    fs::create_dir_all(it.path("d/sub")).unwrap();
    upload(&it.path("d/sub/f"), b"");
    it.remove("d").await.unwrap();
    it.remove("d").await.unwrap();
    assert!(!it.path("d").exists());
    assert_eq!(
        failure(it.remove("/proc/..").await),
        (Code::InvalidArgument, "refusing to remove the root directory".to_owned())
    );
    let (code, message) = failure(it.remove("/proc/self").await);
    assert!(code == Code::Internal && message.starts_with("error removing file or directory: "), "{message}");
    assert_eq!(failure(it.remove("~bob").await).0, Code::InvalidArgument);
}

#[tokio::test]
async fn the_oldest_sdk_gets_its_own_schema() {
    let it = Fixture::new();
    upload(&it.path("f"), b"hello");
    for (agent, is_legacy) in [("connect-python", true), ("connect-python/1.0", false), ("", false)] {
        let mut request = Request::new(StatRequest { path: it.text("f") });
        request.metadata_mut().insert("user-agent", agent.parse().unwrap());
        let response = it.service.stat(request).await.unwrap();
        let headers: Vec<_> = response.metadata().get_all("x-e2b-legacy-sdk").iter().cloned().collect();
        assert_eq!(headers, if is_legacy { vec!["true"] } else { vec![] });
        let entry = response.into_inner().entry.unwrap();
        let basic = EntryInfo { name: "f".to_owned(), r#type: 1, path: it.text("f"), ..Default::default() };
        assert_eq!(entry == basic, is_legacy, "{agent:?}");
    }
    let mut request = Request::new(ListDirRequest { path: text(&it.root), depth: 1 });
    request.metadata_mut().insert("user-agent", "connect-python".parse().unwrap());
    let response = it.service.list_dir(request).await.unwrap();
    assert!(response.metadata().contains_key("x-e2b-legacy-sdk"));
    assert!(response.get_ref().entries.iter().all(|entry| entry.owner.is_empty() && !entry.name.is_empty()));
}
