//! Symbolic links resolved component by component, without the kernel's limit of 40 links in one path.

use std::{
    collections::VecDeque,
    ffi::OsString,
    io,
    os::unix::ffi::OsStringExt,
    path::{Component, Path, PathBuf},
};

use rustix::io::Errno;
use thiserror::Error;

use crate::system::path::errno_text;

/// More links than this in one path count as a cycle.
pub const MAX_LINKS: usize = 255;

/// Why a path has no canonical form.
#[derive(Debug, Error)]
pub enum LinkError {
    /// A component is missing or cannot be looked at.
    #[error("lstat {}: {}", path.display(), errno_text(source))]
    Component {
        /// The path up to the component.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// More than [`MAX_LINKS`] links.
    #[error("cyclic symlink or chain >255 links at \"{}\"", .0.display())]
    Cyclic(PathBuf),
}

/// The absolute path without any symbolic link, `.` or `..`; every component must exist. Blocking.
///
/// # Errors
/// [`LinkError`] names the component that cannot be resolved, or for a cycle the given path.
pub fn canonicalize(path: &Path) -> Result<PathBuf, LinkError> {
    let mut resolved = PathBuf::from("/");
    let mut rest: VecDeque<OsString> = components(path).collect();
    let mut links = 0;
    while let Some(name) = rest.pop_front() {
        if name == ".." {
            resolved.pop();
            continue;
        }
        resolved.push(&name);
        match rustix::fs::readlink(&resolved, Vec::new()) {
            // EINVAL: exists, and is not a link.
            Err(Errno::INVAL) => {}
            Err(error) => return Err(LinkError::Component { path: resolved, source: error.into() }),
            Ok(target) => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(LinkError::Cyclic(path.to_owned()));
                }
                let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
                if target.is_absolute() {
                    resolved = PathBuf::from("/");
                } else {
                    resolved.pop();
                }
                for component in components(&target).collect::<Vec<_>>().into_iter().rev() {
                    rest.push_front(component);
                }
            }
        }
    }
    Ok(resolved)
}

fn components(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn links_are_resolved_at_every_component() {
        let dir = tempfile::tempdir().unwrap();
        let root = canonicalize(dir.path()).unwrap();
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/f"), "").unwrap();
        symlink("a/b", root.join("relative")).unwrap();
        symlink(root.join("a"), root.join("absolute")).unwrap();
        let of = |path: &str| canonicalize(&root.join(path)).unwrap();
        assert_eq!(of("relative"), root.join("a/b"));
        // `..` after a link means the parent of its target.
        assert_eq!(of("relative/../f"), root.join("a/f"));
        assert_eq!(of("absolute/./b/"), root.join("a/b"));
        assert_eq!(canonicalize(Path::new("/../..")).unwrap(), Path::new("/"));
    }

    #[test]
    fn chains_longer_than_the_kernel_follows_are_resolved_and_cycles_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let root = canonicalize(dir.path()).unwrap();
        fs::write(root.join("0"), "").unwrap();
        for n in 1..=MAX_LINKS + 1 {
            symlink((n - 1).to_string(), root.join(n.to_string())).unwrap();
        }
        assert_eq!(canonicalize(&root.join(MAX_LINKS.to_string())).unwrap(), root.join("0"));
        let long = root.join((MAX_LINKS + 1).to_string());
        assert!(matches!(canonicalize(&long), Err(LinkError::Cyclic(path)) if path == long));
        symlink("me", root.join("me")).unwrap();
        assert!(matches!(canonicalize(&root.join("me")), Err(LinkError::Cyclic(_))));
    }

    #[test]
    fn the_missing_component_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let root = canonicalize(dir.path()).unwrap();
        symlink("gone/x", root.join("dangling")).unwrap();
        let error = canonicalize(&root.join("dangling/y")).unwrap_err().to_string();
        assert_eq!(error, format!("lstat {}: no such file or directory", root.join("gone").display()));
    }
}
