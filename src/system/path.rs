//! From what a client wrote to an absolute path, and the directories on the way to it.
//!
//! Relative paths and `~` mean the user's home; only an *empty* path means the default working directory.
//! Absolute paths are kept verbatim: clients compare them with what they sent.

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::{ffi::OsStrExt, fs::DirBuilderExt},
    path::{Component, Path, PathBuf},
};

use thiserror::Error;

use super::identity::User;

/// Why a path cannot be used.
#[derive(Debug, Error)]
pub enum PathError {
    /// `~name`: homes of other users are not expanded.
    #[error("failed to expand path '{path}' for user '{user}': cannot expand user-specific home dir")]
    ForeignHome {
        /// As the client wrote it.
        path: String,
        /// The user it was resolved for.
        user: String,
    },
    /// A NUL byte, which no path can hold.
    #[error("path contains a NUL byte")]
    Nul,
    /// Something on the way is not a directory.
    #[error("path is a file: {}", .0.display())]
    IsFile(PathBuf),
    /// An ancestor cannot be looked at.
    #[error("failed to stat directory: stat {}: {}", path.display(), errno_text(source))]
    Stat {
        /// Which ancestor.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A missing ancestor cannot be made.
    #[error("failed to create directory: mkdir {}: {}", path.display(), errno_text(source))]
    Create {
        /// Which ancestor.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A new ancestor cannot be given to the user.
    #[error("failed to chown directory: chown {}: {}", path.display(), errno_text(source))]
    Chown {
        /// Which ancestor.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The lower-case strerror(3) text, as in "no such file or directory". The same with every C library: musl words some
/// of them in its own way, and clients compare.
pub fn errno_text(error: &io::Error) -> String {
    if let Some(text) = error.raw_os_error().and_then(usual_text) {
        return text.to_owned();
    }
    let text = error.to_string();
    let text = text.split(" (os error ").next().unwrap_or_default();
    let mut letters = text.chars();
    // "Is a directory" but "RPC ..." stays: only a capital followed by a lower-case letter is a sentence start.
    match (letters.next(), letters.clone().next()) {
        (Some(first), Some(second)) if second.is_lowercase() || second == ' ' => {
            first.to_lowercase().chain(letters).collect()
        }
        _ => text.to_owned(),
    }
}

/// The GNU C library's text for the numbers that musl words otherwise.
fn usual_text(errno: i32) -> Option<&'static str> {
    Some(match errno {
        libc::EIO => "input/output error",
        libc::ENXIO => "no such device or address",
        libc::ECHILD => "no child processes",
        libc::ENOMEM => "cannot allocate memory",
        libc::EBUSY => "device or resource busy",
        libc::EXDEV => "invalid cross-device link",
        libc::ENFILE => "too many open files in system",
        libc::EMFILE => "too many open files",
        libc::ENOTTY => "inappropriate ioctl for device",
        libc::ESPIPE => "illegal seek",
        libc::ENAMETOOLONG => "file name too long",
        libc::ELOOP => "too many levels of symbolic links",
        libc::EOPNOTSUPP => "operation not supported",
        _ => return None,
    })
}

/// Resolves what a client wrote for `user`.
///
/// # Errors
/// [`PathError::ForeignHome`] for `~name`, [`PathError::Nul`] for a NUL byte.
pub fn resolve(raw: &str, user: &User, default_workdir: Option<&str>) -> Result<PathBuf, PathError> {
    let path = match default_workdir {
        Some(workdir) if raw.is_empty() => workdir,
        _ => raw,
    };
    if path.as_bytes().contains(&0) {
        return Err(PathError::Nul);
    }
    if let Some(rest) = path.strip_prefix('~') {
        return match rest.as_bytes().first() {
            None => Ok(clean(&user.home)),
            Some(b'/' | b'\\') => Ok(clean(&user.home.join(rest.trim_start_matches(['/', '\\'])))),
            Some(_) => Err(PathError::ForeignHome { path: path.to_owned(), user: user.name.clone() }),
        };
    }
    if path.starts_with('/') {
        return Ok(PathBuf::from(path));
    }
    Ok(if path.is_empty() { user.home.clone() } else { clean(&user.home.join(path)) })
}

/// Removes `.`, resolves `..` by text and folds repeated slashes; never looks at the disk.
pub fn clean(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            // Above the root there is only the root.
            Component::ParentDir if cleaned.parent().is_none() && cleaned.has_root() => {}
            Component::ParentDir if matches!(cleaned.components().next_back(), Some(Component::Normal(_))) => {
                cleaned.pop();
            }
            other => cleaned.push(other),
        }
    }
    if cleaned.as_os_str().is_empty() { PathBuf::from(".") } else { cleaned }
}

/// The last component with trailing slashes ignored; `/` for the root.
pub fn base_name(path: &Path) -> &OsStr {
    let bytes = path.as_os_str().as_bytes();
    let trimmed = bytes.iter().rposition(|byte| *byte != b'/').map_or(&b"/"[..], |last| &bytes[..=last]);
    match trimmed.iter().rposition(|byte| *byte == b'/') {
        Some(slash) if trimmed.len() > 1 => OsStr::from_bytes(&trimmed[slash + 1..]),
        _ => OsStr::from_bytes(trimmed),
    }
}

/// Makes `path` and every missing ancestor with mode 0755 and gives the new ones to the user. Existing
/// directories are left as they are. Tells whether any was made. Blocking.
///
/// # Errors
/// [`PathError`] names the ancestor that stands in the way. What was made before stays.
pub fn ensure_directories(path: &Path, user: &User) -> Result<bool, PathError> {
    let mut any_made = false;
    let mut ancestors: Vec<&Path> = path.ancestors().filter(|ancestor| !ancestor.as_os_str().is_empty()).collect();
    ancestors.reverse();
    for ancestor in ancestors {
        match fs::metadata(ancestor) {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => return Err(PathError::IsFile(ancestor.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => any_made |= create_directory(ancestor, user)?,
            Err(source) => return Err(PathError::Stat { path: ancestor.to_owned(), source }),
        }
    }
    Ok(any_made)
}

/// Tells whether the directory is ours: somebody else may have made it in the meantime, and keeps it then.
fn create_directory(path: &Path, user: &User) -> Result<bool, PathError> {
    match fs::DirBuilder::new().mode(0o755).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return match fs::metadata(path) {
                Ok(meta) if meta.is_dir() => Ok(false),
                Ok(_) => Err(PathError::IsFile(path.to_owned())),
                // A link that leads nowhere; clients know it by this text.
                Err(source) => Err(PathError::Chown { path: path.to_owned(), source }),
            };
        }
        Err(source) => return Err(PathError::Create { path: path.to_owned(), source }),
    }
    // Never through a link: whoever owns the parent may have put one in the directory's place by now.
    std::os::unix::fs::lchown(path, Some(user.uid), Some(user.gid))
        .map_err(|source| PathError::Chown { path: path.to_owned(), source })?;
    Ok(true)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]
mod tests {
    use super::*;

    fn user() -> User {
        User {
            name: "user".into(),
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            home: "/home/user".into(),
            shell: "/bin/sh".into(),
            groups: vec![],
        }
    }

    #[test]
    fn relative_means_home_and_only_empty_means_the_workdir() {
        let of = |raw: &str, workdir| resolve(raw, &user(), workdir).map(|path| path.to_str().unwrap().to_owned());
        assert_eq!(of("", None).unwrap(), "/home/user");
        assert_eq!(of("", Some("/srv")).unwrap(), "/srv");
        assert_eq!(of("", Some("~/x")).unwrap(), "/home/user/x");
        assert_eq!(of("a/../b//c", Some("/srv")).unwrap(), "/home/user/b/c");
        assert_eq!(of("~", None).unwrap(), "/home/user");
        assert_eq!(of("~/a/./b", None).unwrap(), "/home/user/a/b");
        assert_eq!(of("../../../x", None).unwrap(), "/x");
        assert_eq!(of("/etc/../etc/", None).unwrap(), "/etc/../etc/");
        assert!(of("~bob", None).unwrap_err().to_string().ends_with("cannot expand user-specific home dir"));
        assert!(matches!(of("a\0b", None), Err(PathError::Nul)));
    }

    #[test]
    fn base_names() {
        for (path, name) in [("/", "/"), ("//", "/"), ("/a", "a"), ("/a/b/", "b"), ("b", "b"), ("/a/..", "..")] {
            assert_eq!(base_name(Path::new(path)), OsStr::new(name), "{path}");
        }
    }

    #[test]
    fn errno_texts_do_not_depend_on_the_c_library() {
        // musl: "No file descriptors available", "Out of memory", "Symbolic link loop", "Filename too long".
        for (errno, text) in [
            (libc::EMFILE, "too many open files"),
            (libc::ENOMEM, "cannot allocate memory"),
            (libc::ELOOP, "too many levels of symbolic links"),
            (libc::ENAMETOOLONG, "file name too long"),
        ] {
            assert_eq!(errno_text(&io::Error::from_raw_os_error(errno)), text);
        }
    }

    #[test]
    fn errno_texts_are_lower_case() {
        assert_eq!(errno_text(&io::Error::from_raw_os_error(2)), "no such file or directory");
        assert_eq!(errno_text(&io::Error::from_raw_os_error(40)), "too many levels of symbolic links");
    }

    #[test]
    fn directories_are_made_once_and_files_stand_in_the_way() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("a/b/c");
        ensure_directories(&deep, &user()).unwrap();
        ensure_directories(&deep, &user()).unwrap();
        assert!(deep.is_dir());
        fs::write(root.path().join("a/f"), "").unwrap();
        let error = ensure_directories(&root.path().join("a/f/g"), &user()).unwrap_err().to_string();
        assert_eq!(error, format!("path is a file: {}", root.path().join("a/f").display()));
    }

    #[test]
    fn what_was_made_is_told_and_a_dangling_link_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        assert!(ensure_directories(&root.path().join("a/b"), &user()).unwrap());
        assert!(!ensure_directories(&root.path().join("a/b"), &user()).unwrap());
        let link = root.path().join("link");
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        let error = ensure_directories(&link.join("c"), &user()).unwrap_err().to_string();
        assert_eq!(error, format!("failed to chown directory: chown {}: no such file or directory", link.display()));
    }
}
