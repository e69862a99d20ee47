//! Remove: an entry with everything below it. Links are unlinked, never followed.
//!
//! The walk holds one open directory whatever the depth: it goes down by name and up by `..`, and checks that it
//! has come back to where it was. So a tree nested a million times deep cannot exhaust the stack or the file
//! descriptors, and a directory that is moved away meanwhile cannot lead the walk out of the tree.

use std::{
    ffi::{CString, OsStr},
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, Dir, Mode, OFlags, fstat, openat, unlinkat},
    io::Errno,
};

use super::error::FilesystemError;
use crate::system::path::clean;

/// Removes what is at `path`, which is cleaned by text first: `x/..` means the parent of `x`. Nothing there is a
/// success. Blocking.
///
/// # Errors
/// [`FilesystemError::RootRemoval`] for `/`; [`FilesystemError::Remove`] for what cannot be removed, when other
/// entries may be gone already.
pub(super) fn remove(path: &Path) -> Result<(), FilesystemError> {
    let path = clean(path);
    if path.parent().is_none() {
        return Err(FilesystemError::RootRemoval);
    }
    match unlinkat(CWD, &path, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
        Err(Errno::ISDIR) => Walk::remove(&path),
        Err(errno) => Err(failure("unlink", path, errno)),
    }
}

fn failure(call: &'static str, path: PathBuf, errno: Errno) -> FilesystemError {
    FilesystemError::Remove { call, path, source: errno.into() }
}

/// The directories from the removed one down to the open one.
struct Walk<'a> {
    root: &'a Path,
    levels: Vec<Level>,
}

struct Level {
    /// In its parent; the root's name is not used.
    name: CString,
    identity: (u64, u64),
    /// Directories inside that are still to be removed.
    directories: Vec<CString>,
}

impl Walk<'_> {
    fn remove(root: &Path) -> Result<(), FilesystemError> {
        let mut walk = Walk { root, levels: Vec::new() };
        let Some(mut open) = walk.enter(CWD, root, CString::default())? else { return Ok(()) };
        while let Some(level) = walk.levels.last_mut() {
            if let Some(name) = level.directories.pop() {
                if let Some(below) = walk.enter(&open, name.as_c_str(), name.clone())? {
                    open = below;
                }
                continue;
            }
            let Some(done) = walk.levels.pop() else { break };
            let Some(parent) = walk.levels.last() else { break };
            let above = open_directory(&open, c"..").map_err(|errno| walk.failure("open", &done.name, errno))?;
            if identity_of(&above).map_err(|errno| walk.failure("fstat", c"", errno))? != parent.identity {
                return Err(walk.failure("open", &done.name, Errno::STALE));
            }
            open = above;
            match unlinkat(&open, &done.name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(walk.failure("rmdir", &done.name, errno)),
            }
        }
        match unlinkat(CWD, root, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(failure("rmdir", root.to_owned(), errno)),
        }
    }

    /// Opens a directory, unlinks all in it that is no directory, and makes it the last level. `None` when it is
    /// gone.
    fn enter<N: rustix::path::Arg + Copy>(
        &mut self,
        parent: impl std::os::fd::AsFd,
        path: N,
        name: CString,
    ) -> Result<Option<OwnedFd>, FilesystemError> {
        let open = match open_directory(&parent, path) {
            Ok(open) => open,
            Err(Errno::NOENT) => return Ok(None),
            // Replaced by something else meanwhile.
            Err(Errno::NOTDIR | Errno::LOOP) => match unlinkat(&parent, path, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => return Ok(None),
                Err(errno) => return Err(self.failure("unlink", &name, errno)),
            },
            Err(errno) => return Err(self.failure("open", &name, errno)),
        };
        let identity = identity_of(&open).map_err(|errno| self.failure("fstat", &name, errno))?;
        let entries = Dir::read_from(&open).map_err(|errno| self.failure("readdir", &name, errno))?;
        self.levels.push(Level { name, identity, directories: Vec::new() });
        let mut directories = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|errno| self.failure("readdir", c"", errno))?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            match unlinkat(&open, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::ISDIR) => directories.push(name.to_owned()),
                Err(errno) => return Err(self.failure("unlink", name, errno)),
            }
        }
        if let Some(level) = self.levels.last_mut() {
            level.directories = directories;
        }
        Ok(Some(open))
    }

    /// The error for an entry of the last level.
    fn failure(&self, call: &'static str, name: &std::ffi::CStr, errno: Errno) -> FilesystemError {
        let mut path = self.root.to_owned();
        for level in self.levels.iter().skip(1) {
            path.push(OsStr::from_bytes(level.name.to_bytes()));
        }
        if !name.is_empty() {
            path.push(OsStr::from_bytes(name.to_bytes()));
        }
        failure(call, path, errno)
    }
}

fn open_directory(parent: impl std::os::fd::AsFd, path: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    openat(parent, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

fn identity_of(directory: &OwnedFd) -> Result<(u64, u64), Errno> {
    fstat(directory).map(|stat| (stat.st_dev, stat.st_ino))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use rustix::fs::mkdirat;

    use super::*;

    #[test]
    fn everything_below_goes_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (kept, tree) = (dir.path().join("kept"), dir.path().join("tree"));
        fs::create_dir_all(kept.join("deep")).unwrap();
        for path in ["a/b/c", "a/d", "e"] {
            fs::create_dir_all(tree.join(path)).unwrap();
            fs::write(tree.join(path).join("f"), "x").unwrap();
        }
        symlink(&kept, tree.join("a/link")).unwrap();
        remove(&tree).unwrap();
        assert!(!tree.exists());
        symlink(&kept, &tree).unwrap();
        remove(&tree.join("")).unwrap();
        assert!(tree.symlink_metadata().is_err());
        assert!(kept.join("deep").exists());
    }

    #[test]
    fn missing_entries_are_removed_already() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("f"), "").unwrap();
        remove(&dir.path().join("gone/x")).unwrap();
        remove(&dir.path().join("f/x")).unwrap();
        assert!(dir.path().join("f").exists());
    }

    #[test]
    fn the_root_directory_is_refused_however_it_is_written() {
        for path in ["/", "//", "/.", "/..", "/tmp/..", "/nonexistent/../"] {
            assert!(matches!(remove(Path::new(path)), Err(FilesystemError::RootRemoval)), "{path}");
        }
    }

    #[test]
    fn dots_are_resolved_before_anything_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("x/y")).unwrap();
        remove(&dir.path().join("x/y/.")).unwrap();
        assert!(!dir.path().join("x/y").exists() && dir.path().join("x").exists());
        remove(&dir.path().join("x/y/..")).unwrap();
        assert!(!dir.path().join("x").exists() && dir.path().exists());
    }

    #[test]
    fn a_tree_deeper_than_any_path_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("deep");
        fs::create_dir(&root).unwrap();
        let mut open = open_directory(CWD, &root).unwrap();
        for _ in 0..5000 {
            mkdirat(&open, c"directory", Mode::from_raw_mode(0o755)).unwrap();
            open = open_directory(&open, c"directory").unwrap();
        }
        drop(open);
        remove(&root).unwrap();
        assert!(!root.exists());
    }

    #[test]
    fn what_cannot_be_removed_is_named() {
        let error = remove(Path::new("/proc/self")).unwrap_err().to_string();
        assert!(error.starts_with("error removing file or directory: unlink /proc/self: "), "{error}");
    }
}
