//! One entry as clients see it.
//!
//! Symbolic links: type and mode bits are those of the final target, everything else is the link's own.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
};

use rustix::fs::{FileType as Kind, Stat};

use super::{
    error::{FilesystemError, is_missing},
    links, metadata,
};
use crate::{
    proto::{
        filesystem::{EntryInfo, FileType},
        timestamp::Timestamp,
    },
    system::{identity::Identity, path::base_name},
};

/// Makes [`EntryInfo`]s; remembers the names behind ids for as long as it lives, so make one for each call.
pub struct EntryReader<'a> {
    identity: &'a Identity,
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

impl<'a> EntryReader<'a> {
    /// A reader with nothing remembered.
    pub fn new(identity: &'a Identity) -> Self {
        Self { identity, users: HashMap::new(), groups: HashMap::new() }
    }

    /// The entry at `path`, shown under exactly this path. Blocking.
    ///
    /// # Errors
    /// [`FilesystemError::NotFound`] when nothing is there, else [`FilesystemError::Unreadable`].
    pub fn read(&mut self, path: &Path) -> Result<EntryInfo, FilesystemError> {
        self.read_as(path, path)
    }

    /// The entry at `path`, shown as `shown`. Blocking.
    ///
    /// # Errors
    /// As for [`EntryReader::read`].
    pub fn read_as(&mut self, path: &Path, shown: &Path) -> Result<EntryInfo, FilesystemError> {
        let stat = rustix::fs::lstat(path).map_err(|error| {
            let (path, source) = (path.to_owned(), io::Error::from(error));
            if is_missing(&source) {
                FilesystemError::NotFound { path, source }
            } else {
                FilesystemError::Unreadable { call: "lstat", path, source }
            }
        })?;
        Ok(self.describe(path, shown, &stat))
    }

    /// Like [`EntryReader::read_as`] for an entry whose lstat(2) is known already. Blocking.
    pub fn describe(&mut self, path: &Path, shown: &Path, stat: &Stat) -> EntryInfo {
        let (mut target, mut symlink_target) = (Some(*stat), None);
        if kind(stat) == Kind::Symlink {
            let resolved = links::canonicalize(path).ok();
            target = resolved.as_deref().and_then(|target| rustix::fs::lstat(target).ok());
            symlink_target = Some(lossy(resolved.as_deref().unwrap_or(path)));
        }
        // The kernel keeps user attributes on files and directories only.
        let can_have_metadata = target.is_some_and(|stat| matches!(kind(&stat), Kind::RegularFile | Kind::Directory));
        EntryInfo {
            name: base_name(shown).to_string_lossy().into_owned(),
            r#type: target.map_or(FileType::Unspecified, |stat| file_type(&stat)).into(),
            path: lossy(shown),
            size: stat.st_size,
            mode: target.map_or(0, |stat| stat.st_mode & 0o777),
            permissions: permissions(stat.st_mode),
            owner: self.users.entry(stat.st_uid).or_insert_with(|| self.identity.user_name(stat.st_uid)).clone(),
            group: self.groups.entry(stat.st_gid).or_insert_with(|| self.identity.group_name(stat.st_gid)).clone(),
            modified_time: modified_time(stat),
            symlink_target,
            metadata: if can_have_metadata { metadata::read(path).into_iter().collect() } else { HashMap::new() },
        }
    }
}

/// What an lstat(2) is about.
pub(super) fn kind(stat: &Stat) -> Kind {
    Kind::from_raw_mode(stat.st_mode)
}

/// File names are bytes, the wire carries text: what is not UTF-8 is replaced.
pub(super) fn lossy(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// `directory` joined with a path below it; the empty one means the directory itself.
pub(super) fn below(directory: &Path, relative: &Path) -> PathBuf {
    if relative.as_os_str().is_empty() { directory.to_owned() } else { directory.join(relative) }
}

fn file_type(stat: &Stat) -> FileType {
    match kind(stat) {
        Kind::RegularFile => FileType::File,
        Kind::Directory => FileType::Directory,
        _ => FileType::Unspecified,
    }
}

/// Letters for type and special bits, then nine `rwx`. All letters that apply are shown, in this order; special
/// bits do not change the nine, unlike in ls(1).
fn permissions(mode: u32) -> String {
    let kind = Kind::from_raw_mode(mode);
    let is_device = matches!(kind, Kind::BlockDevice | Kind::CharacterDevice);
    let letters = [
        (kind == Kind::Directory, 'd'),
        (kind == Kind::Symlink, 'L'),
        (is_device, 'D'),
        (kind == Kind::Fifo, 'p'),
        (kind == Kind::Socket, 'S'),
        (mode & 0o4000 != 0, 'u'),
        (mode & 0o2000 != 0, 'g'),
        (kind == Kind::CharacterDevice, 'c'),
        (mode & 0o1000 != 0, 't'),
        (kind == Kind::Unknown, '?'),
    ];
    let mut text: String = letters.iter().filter(|(applies, _)| *applies).map(|(_, letter)| *letter).collect();
    if text.is_empty() {
        text.push('-');
    }
    for (bit, letter) in (0..9).rev().zip("rwx".chars().cycle()) {
        text.push(if mode >> bit & 1 == 1 { letter } else { '-' });
    }
    text
}

/// Absent for exactly the epoch, which is how clients read "unknown".
fn modified_time(stat: &Stat) -> Option<Timestamp> {
    let nanos = i32::try_from(stat.st_mtime_nsec).unwrap_or_default();
    (stat.st_mtime != 0 || nanos != 0).then(|| Timestamp::clamped(stat.st_mtime, nanos))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]
mod tests {
    use std::{
        fs,
        os::unix::{fs::symlink, net::UnixListener},
        time::{Duration, SystemTime},
    };

    use rustix::fs::{Mode, XattrFlags, mknodat, setxattr};

    use super::*;

    #[test]
    fn permissions_show_every_letter_that_applies() {
        for (mode, text) in [
            (0o100_644, "-rw-r--r--"),
            (0o040_755, "drwxr-xr-x"),
            (0o120_777, "Lrwxrwxrwx"),
            (0o104_755, "urwxr-xr-x"),
            (0o106_711, "ugrwx--x--x"),
            (0o042_755, "dgrwxr-xr-x"),
            (0o041_777, "dtrwxrwxrwx"),
            (0o010_644, "prw-r--r--"),
            (0o140_755, "Srwxr-xr-x"),
            (0o020_666, "Dcrw-rw-rw-"),
            (0o060_600, "Drw-------"),
            (0o000_000, "?---------"),
        ] {
            assert_eq!(permissions(mode), text, "{mode:o}");
        }
    }

    fn read(path: &Path) -> EntryInfo {
        EntryReader::new(&Identity::system()).read(path).unwrap()
    }

    #[test]
    fn links_take_type_and_mode_from_their_target_and_the_rest_from_themselves() {
        let dir = tempfile::tempdir().unwrap();
        let root = links::canonicalize(dir.path()).unwrap();
        fs::create_dir(root.join("d")).unwrap();
        setxattr(root.join("d"), "user.e2b.k", b"v", XattrFlags::empty()).unwrap();
        symlink("d", root.join("hop")).unwrap();
        symlink("hop", root.join("link")).unwrap();
        let entry = read(&root.join("link"));
        assert_eq!((entry.r#type(), entry.mode), (FileType::Directory, 0o755));
        assert_eq!((entry.size, entry.permissions.as_str()), (3, "Lrwxrwxrwx"));
        assert_eq!(entry.symlink_target, Some(lossy(&root.join("d"))));
        assert_eq!(entry.metadata, HashMap::from([("k".to_owned(), "v".to_owned())]));
        // A trailing slash makes the kernel follow it.
        let entry = read(&root.join("link/"));
        assert_eq!((entry.symlink_target, entry.name.as_str()), (None, "link"));
        assert!(entry.path.ends_with("/link/"));
    }

    #[test]
    fn broken_and_cyclic_links_have_no_type_and_point_to_themselves() {
        let dir = tempfile::tempdir().unwrap();
        for target in ["gone", "link"] {
            let link = dir.path().join("link");
            symlink(target, &link).unwrap();
            let entry = read(&link);
            assert_eq!((entry.r#type(), entry.mode), (FileType::Unspecified, 0));
            assert_eq!(entry.symlink_target, Some(lossy(&link)));
            fs::remove_file(&link).unwrap();
        }
    }

    #[test]
    fn what_is_neither_file_nor_directory_has_no_type() {
        let dir = tempfile::tempdir().unwrap();
        let (fifo, socket) = (dir.path().join("fifo"), dir.path().join("socket"));
        mknodat(rustix::fs::CWD, &fifo, Kind::Fifo, Mode::from_raw_mode(0o644), 0).unwrap();
        let _listener = UnixListener::bind(&socket).unwrap();
        for (path, letter) in [(fifo.as_path(), 'p'), (&socket, 'S'), (Path::new("/dev/null"), 'D')] {
            let entry = read(path);
            assert_eq!((entry.r#type(), entry.permissions.chars().next()), (FileType::Unspecified, Some(letter)));
            assert_ne!(entry.mode, 0);
        }
    }

    #[test]
    fn times_keep_nanoseconds_and_only_the_epoch_is_absent() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let file = fs::File::create(&path).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_nanos(1_500_000_001)).unwrap();
        assert_eq!(read(&path).modified_time, Some(Timestamp { seconds: 1, nanos: 500_000_001 }));
        file.set_modified(SystemTime::UNIX_EPOCH - Duration::from_millis(500)).unwrap();
        assert_eq!(read(&path).modified_time, Some(Timestamp { seconds: -1, nanos: 500_000_000 }));
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(read(&path).modified_time, None);
        let mut stat = rustix::fs::lstat(&path).unwrap();
        stat.st_mtime = i64::MAX;
        assert!(modified_time(&stat).unwrap().seconds < i64::MAX, "a year beyond 9999 cannot be told");
    }
}
