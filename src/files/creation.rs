//! MakeDir: a directory and its parents.

use std::{fs, io, path::Path};

use super::error::FilesystemError;
use crate::system::{identity::User, path::ensure_directories};

/// Makes `path` and every missing parent, all owned by `user`. Blocking.
///
/// # Errors
/// Something is there already, or a directory cannot be made.
pub(super) fn make(path: &Path, user: &User) -> Result<(), FilesystemError> {
    match fs::metadata(path) {
        Ok(meta) if meta.is_dir() => Err(FilesystemError::DirectoryExists(path.to_owned())),
        Ok(_) => Err(FilesystemError::NotADirectoryExists(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(ensure_directories(path, user).map(drop)?),
        Err(source) => Err(FilesystemError::Unreadable { call: "stat", path: path.to_owned(), source }),
    }
}
