//! Move: rename(2) with the rules that clients know. Files are replaced, directories never.

use std::{
    io,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, FileType as Kind, RenameFlags, lstat, rename, renameat_with},
    io::Errno,
};

use super::{
    entry::{kind, lossy},
    error::{FilesystemError, is_missing},
};
use crate::system::{identity::User, path::ensure_directories};

/// Moves `from` to `to` and makes the missing parents of `to` for `user`. Owner, mode and attributes stay. Blocking.
///
/// Nothing is made when the source is missing.
///
/// # Errors
/// A missing source, a directory at the destination, another file system, and what rename(2) refuses.
pub(super) fn relocate(from: &Path, to: &Path, user: &User) -> Result<(), FilesystemError> {
    let refused = |source: io::Error| {
        let (from, to) = (from.to_owned(), to.to_owned());
        if is_missing(&source) && lstat(&from).is_err() {
            FilesystemError::SourceNotFound { from, to, source }
        } else {
            FilesystemError::Rename { from, to, source }
        }
    };
    let is_directory = lstat(from).map(|stat| kind(&stat) == Kind::Directory).map_err(|errno| refused(errno.into()))?;
    ensure_directories(&parent(to), user)?;
    let moved = if is_directory { rename_directory(from, to) } else { rename(from, to) };
    moved.map_err(|errno| {
        // "File exists" says more than "is a directory" about what stands in the way.
        let errno = if errno == Errno::ISDIR { Errno::EXIST } else { errno };
        refused(errno.into())
    })
}

/// rename(2) would replace an empty directory, so the kernel is asked not to replace anything.
fn rename_directory(from: &Path, to: &Path) -> Result<(), Errno> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // EINVAL and ENOSYS: perhaps the file system does not know the flag.
        Err(Errno::EXIST | Errno::INVAL | Errno::NOSYS) => match lstat(to) {
            Ok(stat) if kind(&stat) == Kind::Directory => Err(Errno::EXIST),
            Ok(_) => Err(Errno::NOTDIR),
            Err(_) => rename(from, to),
        },
        other => other,
    }
}

/// The directory that must exist before the move; with a trailing slash the destination itself.
fn parent(to: &Path) -> PathBuf {
    if lossy(to).ends_with('/') { to.to_owned() } else { to.parent().unwrap_or(to).to_owned() }
}
