//! Why a transfer failed, in the words that clients show to people.

use std::{
    io,
    path::{Path, PathBuf},
};

use rustix::io::Errno;
use thiserror::Error;

use super::headers::MetadataError;
use crate::system::{
    blocking::Lost,
    identity::IdentityError,
    path::{PathError, errno_text},
};

/// What can go wrong with a file route; statuses are given in `server::errors`.
#[derive(Debug, Error)]
pub enum Error {
    /// Neither the request nor the settings name a user.
    #[error("username not provided")]
    NoUser,
    /// The user is unknown or cannot be served.
    #[error("error looking up user '{name}': {source}")]
    User {
        /// As asked for.
        name: String,
        /// Why.
        source: IdentityError,
    },
    /// The path has no meaning for this user.
    #[error("error expanding and resolving path '{raw}': {source}")]
    Path {
        /// As the client wrote it.
        raw: String,
        /// Why.
        source: PathError,
    },
    /// Nothing to download.
    #[error("path '{}' does not exist", .0.display())]
    Missing(PathBuf),
    /// The file to download cannot be looked at.
    #[error("error checking if path exists '{}': stat {}: {}", path.display(), path.display(), errno_text(source))]
    Check {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A directory cannot be downloaded.
    #[error("path '{}' is a directory", .0.display())]
    DownloadDirectory(PathBuf),
    /// The client refuses all that we can send.
    #[error("error parsing Accept-Encoding: no acceptable encoding found, supported: [gzip]")]
    NoEncoding,
    /// Ranges and conditions are about the plain file, which the client refuses.
    #[error("identity encoding not acceptable for Range or conditional request")]
    IdentityRefused,
    /// The file to download cannot be opened or read.
    #[error("error opening file '{}': open {}: {}", path.display(), path.display(), errno_text(source))]
    OpenDownload {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An upload is compressed in a way that we do not know.
    #[error("error decompressing request body: unsupported Content-Encoding: {0}, supported: [gzip]")]
    ContentEncoding(String),
    /// An upload is said to be gzip and does not begin like it.
    #[error("error decompressing request body: failed to create gzip reader: {0}")]
    GzipHeader(&'static str),
    /// The metadata headers break a rule.
    #[error("invalid metadata: {0}")]
    Metadata(#[from] MetadataError),
    /// Neither raw bytes nor a form.
    #[error("unsupported content type: {0}, expected multipart/form-data or application/octet-stream")]
    ContentType(String),
    /// Raw bytes without a place to put them.
    #[error("path query parameter is required for raw body upload")]
    PathRequired,
    /// A `multipart` type that is no form.
    #[error("error parsing multipart form: request Content-Type isn't multipart/form-data")]
    NotForm,
    /// A form without a boundary.
    #[error("error parsing multipart form: no multipart boundary param in Content-Type")]
    NoBoundary,
    /// The form's structure is broken between files.
    #[error("error reading form: {0}")]
    Form(String),
    /// A file without a name and no path for it.
    #[error("error getting multipart custom part file name: filename not found in Content-Disposition header")]
    NoFileName,
    /// Two files of one request go to one path.
    #[error(
        "you cannot upload multiple files to the same path '{}' in one upload request, only the first specified file \
         was uploaded{}", path.display(), also(others)
    )]
    SamePath {
        /// Which path.
        path: PathBuf,
        /// The other files that were uploaded.
        others: Vec<String>,
    },
    /// The directories on the way cannot be made.
    #[error("error ensuring directories: {0}")]
    Directories(#[source] PathError),
    /// A directory stands where the file should go.
    #[error("path is a directory: {}", .0.display())]
    UploadDirectory(PathBuf),
    /// The target cannot be looked at.
    #[error("error getting file info: stat {}: {}", path.display(), errno_text(source))]
    Info {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file cannot be given to the user.
    #[error("error changing file ownership: chown {}: {}", path.display(), errno_text(source))]
    Chown {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No inode is left for a new file.
    #[error("not enough inodes available: open {}: {}", path.display(), errno_text(source))]
    Inodes {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The target cannot be opened for writing.
    #[error("error opening file: open {}: {}", path.display(), errno_text(source))]
    OpenUpload {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The content does not fit.
    #[error("{}not enough disk space available", attempted(*.0))]
    Space(
        /// The length of the request's body in bytes, where it was told.
        Option<u64>,
    ),
    /// The content cannot be written, or did not arrive in full.
    #[error("error writing file: {0}")]
    Write(String),
    /// The client stopped sending.
    #[error("upload stalled: no data for {0} seconds")]
    Stalled(u64),
    /// The metadata does not fit.
    #[error("not enough space for file metadata: {}", errno_text(.0))]
    MetadataSpace(#[source] io::Error),
    /// The metadata cannot be written; the content is.
    #[error("error writing file metadata: {}", errno_text(.0))]
    MetadataWrite(#[source] io::Error),
    /// The body of a compose request cannot be read.
    #[error("invalid request body: {0}")]
    ComposeBody(String),
    /// Nothing to compose from.
    #[error("source_paths must not be empty")]
    NoSources,
    /// Nowhere to compose to.
    #[error("destination is required")]
    NoDestination,
    /// The destination has no meaning for this user.
    #[error("error resolving destination path: {0}")]
    Destination(#[source] PathError),
    /// A source has no meaning for this user.
    #[error("error resolving source path \"{raw}\": {source}")]
    Source {
        /// As the client wrote it.
        raw: String,
        /// Why.
        source: PathError,
    },
    /// A source is the destination, maybe under another name.
    #[error("source path \"{0}\" cannot be the same as destination")]
    SourceIsDestination(String),
    /// A source is not there.
    #[error("source file not found: {0}")]
    SourceMissing(String),
    /// A source is no regular file.
    #[error("source path is not a regular file: {0}")]
    SourceIrregular(String),
    /// The file to compose into cannot be made.
    #[error("error creating destination file: {}", errno_text(.0))]
    CreateDestination(#[source] io::Error),
    /// A source cannot be appended.
    #[error("error composing source {}: {}", path.display(), errno_text(source))]
    Append {
        /// Which source.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The composed file cannot be put in its place.
    #[error("error finalizing compose: {}", errno_text(.0))]
    Finalize(#[source] io::Error),
    /// There is no thread to do it, or it failed.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// The temporary file was taken away already.
    #[error("file transfer interrupted")]
    Interrupted,
}

/// Whether the reason is a full disk or a used-up quota.
pub(super) fn is_no_space(error: &io::Error) -> bool {
    [Errno::NOSPC, Errno::DQUOT].iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

impl Error {
    /// The failure to open `path` for writing.
    pub(super) fn open_upload(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        if is_no_space(&source) { Self::Inodes { path, source } } else { Self::OpenUpload { path, source } }
    }
}

fn attempted(bytes: Option<u64>) -> String {
    bytes.map_or_else(String::new, |bytes| format!("attempted to write {bytes} bytes: "))
}

/// One other file goes unmentioned.
fn also(others: &[String]) -> String {
    if others.len() < 2 {
        return String::new();
    }
    format!(", also the following files were uploaded: {}", others.join(", "))
}
