//! What can go wrong with an entry. Texts follow the shape "operation path: reason" that clients show to users.

use std::{io, path::PathBuf};

use thiserror::Error;

use super::links::LinkError;
use crate::system::{
    blocking::Lost,
    caller::CallerError,
    path::{PathError, errno_text},
};

/// Why a call of the filesystem service failed.
#[derive(Debug, Error)]
pub enum FilesystemError {
    /// Nobody to act for.
    #[error(transparent)]
    Caller(#[from] CallerError),
    /// The path cannot be used, or the directories on its way cannot be made.
    #[error(transparent)]
    Path(#[from] PathError),
    /// There is no entry.
    #[error("file not found: lstat {}: {}", path.display(), errno_text(source))]
    NotFound {
        /// Which entry.
        path: PathBuf,
        /// ENOENT or ENOTDIR.
        source: io::Error,
    },
    /// An entry cannot be looked at.
    #[error("error getting file info: {call} {}: {}", path.display(), errno_text(source))]
    Unreadable {
        /// The system call that failed.
        call: &'static str,
        /// Which entry.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The directory to make is there already.
    #[error("directory already exists: {}", .0.display())]
    DirectoryExists(PathBuf),
    /// Something else stands where a directory should be made.
    #[error("path already exists but it is not a directory: {}", .0.display())]
    NotADirectoryExists(PathBuf),
    /// There is nothing to move.
    #[error("source file not found: rename {} {}: {}", from.display(), to.display(), errno_text(source))]
    SourceNotFound {
        /// Source.
        from: PathBuf,
        /// Destination.
        to: PathBuf,
        /// ENOENT or ENOTDIR.
        source: io::Error,
    },
    /// The move was refused.
    #[error("error renaming: rename {} {}: {}", from.display(), to.display(), errno_text(source))]
    Rename {
        /// Source.
        from: PathBuf,
        /// Destination.
        to: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The directory to list is not there.
    #[error("path not found: {}", .0)]
    PathNotFound(LinkError),
    /// The links on the way to the directory never end.
    #[error("{}", .0)]
    CyclicLinks(LinkError),
    /// A link on the way to the directory cannot be followed.
    #[error("error resolving symlink: {}", .0)]
    Unresolvable(LinkError),
    /// Only directories can be listed.
    #[error("path is not a directory: {}", .0.display())]
    NotADirectory(PathBuf),
    /// A directory below the listed one cannot be read.
    #[error("error reading directory {}: {call} {}: {}", root.display(), path.display(), errno_text(source))]
    List {
        /// The system call that failed.
        call: &'static str,
        /// The listed directory.
        root: PathBuf,
        /// The one that cannot be read.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The path means the root directory.
    #[error("refusing to remove the root directory")]
    RootRemoval,
    /// Something could not be removed; other entries may be gone already.
    #[error("error removing file or directory: {call} {}: {}", path.display(), errno_text(source))]
    Remove {
        /// The system call that failed.
        call: &'static str,
        /// Which entry.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The directory to watch is not there.
    #[error("path {} not found: stat {}: {}", path.display(), path.display(), errno_text(source))]
    WatchNotFound {
        /// Which directory.
        path: PathBuf,
        /// ENOENT or ENOTDIR.
        source: io::Error,
    },
    /// The directory to watch cannot be looked at.
    #[error("error statting path {}: stat {}: {}", path.display(), path.display(), errno_text(source))]
    WatchStat {
        /// Which directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Only directories can be watched.
    #[error("path {} not a directory", .0.display())]
    WatchNotADirectory(PathBuf),
    /// inotify(7) does not see what other machines change.
    #[error("cannot watch path on network filesystem: {}", .0.display())]
    NetworkMount(PathBuf),
    /// The file system of the directory is unknown.
    #[error("error checking mount status: statfs {}: {}", path.display(), errno_text(source))]
    MountStatus {
        /// Which directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel refused the watch: ENOSPC means that `fs.inotify.max_user_watches` is used up.
    #[error("error adding path {} to watcher: {}", path.display(), errno_text(source))]
    Watch {
        /// Which directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No polling watcher has this id.
    #[error("watcher with id {0} not found")]
    UnknownWatcher(String),
    /// There is no thread to do it, or it failed.
    #[error(transparent)]
    Lost(#[from] Lost),
}

/// Whether nothing is there: no such entry, or the path runs through something that is not a directory.
pub(super) fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
