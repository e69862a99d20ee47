//! ListDir: what is below a directory, parents before their children, names in byte order.
//!
//! One directory is open at a time and its entries are looked at relative to it, so neither a deep tree nor a
//! renamed parent can lead the walk astray or use up file descriptors. Entries and directories that vanish during
//! the walk are skipped.

use std::{
    ffi::OsString,
    io,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use rustix::{
    fd::OwnedFd,
    fs::{AtFlags, CWD, Dir, FileType as Kind, Mode, OFlags, Stat, openat, statat},
    io::Errno,
};

use super::{
    entry::{EntryReader, below, kind},
    error::{FilesystemError, is_missing},
    links::{LinkError, canonicalize},
};
use crate::{
    proto::filesystem::EntryInfo,
    system::{identity::Identity, path::clean},
};

/// Lists what is below `requested`, down to `depth` levels; 0 means 1. Symbolic links are followed on the way to
/// the directory, not below it. Entries are shown below the requested path, whatever it leads to. Blocking.
///
/// # Errors
/// No such directory, something else, endless links, and directories that cannot be read.
pub(super) fn list(requested: &Path, depth: u32, identity: &Identity) -> Result<Vec<EntryInfo>, FilesystemError> {
    let root = canonicalize(requested).map_err(|error| match error {
        LinkError::Component { ref source, .. } if is_missing(source) => FilesystemError::PathNotFound(error),
        LinkError::Component { .. } => FilesystemError::Unresolvable(error),
        LinkError::Cyclic(_) => FilesystemError::CyclicLinks(error),
    })?;
    let shown = clean(requested);
    let mut reader = EntryReader::new(identity);
    let mut entries = Vec::new();
    // Directories still to be opened, the next one last; paths are relative to the root.
    let mut open: Vec<Pending> = vec![Pending { relative: PathBuf::new(), depth: 1, entry: None }];
    while let Some(Pending { relative, depth: level, entry }) = open.pop() {
        if let Some(stat) = entry {
            entries.push(reader.describe(&root.join(&relative), &shown.join(&relative), &stat));
            if kind(&stat) != Kind::Directory || level > depth.max(1) {
                continue;
            }
        }
        let children = match read_directory(&below(&root, &relative)) {
            Ok(children) => children,
            Err(failure) => match failure.of(&root, &relative) {
                Some(error) => return Err(error),
                None => continue,
            },
        };
        // The stack hands them out in reverse, so that a directory's own entries come before its next sibling.
        open.extend(children.into_iter().rev().map(|(name, stat)| Pending {
            relative: relative.join(name),
            depth: level + 1,
            entry: Some(stat),
        }));
    }
    Ok(entries)
}

/// An entry that is found but not yet shown; the listed directory itself has no `entry`.
struct Pending {
    relative: PathBuf,
    /// The level of what is below it.
    depth: u32,
    entry: Option<Stat>,
}

struct ReadFailure {
    call: &'static str,
    errno: Errno,
}

impl ReadFailure {
    /// The error to report; a directory that vanished, or is none any more, below the root is no error.
    fn of(self, root: &Path, relative: &Path) -> Option<FilesystemError> {
        let is_root = relative.as_os_str().is_empty();
        match self.errno {
            Errno::NOTDIR | Errno::LOOP if is_root => Some(FilesystemError::NotADirectory(root.to_owned())),
            Errno::NOENT if is_root => Some(FilesystemError::PathNotFound(LinkError::Component {
                path: root.to_owned(),
                source: self.errno.into(),
            })),
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP => None,
            errno => Some(FilesystemError::List {
                call: self.call,
                root: root.to_owned(),
                path: below(root, relative),
                source: io::Error::from(errno),
            }),
        }
    }
}

/// The names and the lstat(2) of everything in one directory, in byte order of the names.
fn read_directory(path: &Path) -> Result<Vec<(OsString, Stat)>, ReadFailure> {
    let failure = |call| move |errno| ReadFailure { call, errno };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let directory: OwnedFd = openat(CWD, path, flags, Mode::empty()).map_err(failure("open"))?;
    let mut children = Vec::new();
    for item in Dir::read_from(&directory).map_err(failure("readdir"))? {
        let item = item.map_err(failure("readdir"))?;
        let name = item.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        match statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => children.push((OsString::from_vec(name.to_bytes().to_vec()), stat)),
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(ReadFailure { call: "lstat", errno }),
        }
    }
    children.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    Ok(children)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn order_is_lexical_with_parents_first_and_depth_counts_levels() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["b/c/d", "a", "b.d", "b!"] {
            fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        fs::write(dir.path().join("a/f"), "").unwrap();
        let names = |depth| -> Vec<String> {
            let entries = list(dir.path(), depth, &Identity::system()).unwrap();
            let root = format!("{}/", dir.path().display());
            entries.iter().map(|entry| entry.path.strip_prefix(&root).unwrap().to_owned()).collect()
        };
        assert_eq!(names(0), ["a", "b", "b!", "b.d"]);
        assert_eq!(names(1), names(0));
        assert_eq!(names(2), ["a", "a/f", "b", "b/c", "b!", "b.d"]);
        assert_eq!(names(u32::MAX), ["a", "a/f", "b", "b/c", "b/c/d", "b!", "b.d"]);
    }

    #[test]
    fn the_root_directory_can_be_listed() {
        let entries = list(Path::new("/"), 1, &Identity::system()).unwrap();
        assert!(entries.iter().any(|entry| entry.path == "/etc" && entry.name == "etc"));
    }
}
