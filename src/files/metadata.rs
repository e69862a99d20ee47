//! File metadata: the extended attributes `user.e2b.<key>` (xattr(7)).
//!
//! Reading never fails: what cannot be read, or is not UTF-8, is not there. Writing replaces the whole set and
//! leaves foreign attributes alone.

use std::{collections::BTreeMap, io, os::fd::AsFd, path::Path};

use rustix::{
    fs::{XattrFlags, fgetxattr, flistxattr, flistxattr_query, fremovexattr, fsetxattr, getxattr, listxattr},
    fs::{getxattr_query, listxattr_query},
    io::Errno,
};

/// What the attribute names start with.
pub const PREFIX: &str = "user.e2b.";

/// Keys without the prefix, and their values.
pub type Metadata = BTreeMap<String, String>;

/// Most lists and values fit here, which saves the call that asks for their length.
const TYPICAL_BYTES: usize = 512;

/// The metadata of what `path` leads to, symbolic links followed. Blocking.
///
/// Empty where the file system has no extended attributes, or on any error. Keys and values that are not UTF-8
/// are left out, empty values are kept.
pub fn read(path: &Path) -> Metadata {
    let list = |buffer: &mut Vec<u8>| fill(buffer, || listxattr_query(path), |spare| listxattr(path, spare));
    let value = |name: &[u8], buffer: &mut Vec<u8>| {
        fill(buffer, || getxattr_query(path, name), |out| getxattr(path, name, out))
    };
    collect(list, value)
}

/// The metadata of an open file; otherwise like [`read`]. Blocking.
pub fn read_open(file: impl AsFd) -> Metadata {
    let fd = file.as_fd();
    let list = |buffer: &mut Vec<u8>| fill(buffer, || flistxattr_query(fd), |spare| flistxattr(fd, spare));
    let value = |name: &[u8], buffer: &mut Vec<u8>| {
        fill(buffer, || rustix::fs::fgetxattr_query(fd, name), |out| fgetxattr(fd, name, out))
    };
    collect(list, value)
}

/// Makes `metadata` the whole metadata of an open file: given keys are set, absent ones removed. Blocking.
///
/// A file system without extended attributes takes nothing and reports nothing.
///
/// # Errors
/// What fsetxattr(2) and fremovexattr(2) report, apart from "not supported": ENOSPC and EDQUOT for no space.
pub fn replace(file: impl AsFd, metadata: &Metadata) -> io::Result<()> {
    let fd = file.as_fd();
    let mut names = Vec::new();
    match fill(&mut names, || flistxattr_query(fd), |spare| flistxattr(fd, spare)) {
        Ok(()) => {}
        Err(error) if is_unsupported(error) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    for name in names.split(|byte| *byte == 0) {
        let Some(key) = name.strip_prefix(PREFIX.as_bytes()) else { continue };
        if std::str::from_utf8(key).is_ok_and(|key| metadata.contains_key(key)) {
            continue;
        }
        match fremovexattr(fd, name) {
            // Somebody else was faster.
            Ok(()) | Err(Errno::NODATA) => {}
            Err(error) if is_unsupported(error) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    for (key, value) in metadata {
        match fsetxattr(fd, format!("{PREFIX}{key}"), value.as_bytes(), XattrFlags::empty()) {
            Ok(()) => {}
            Err(error) if is_unsupported(error) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The kernel answers EPERM for `user.*` attributes of what is neither a file nor a directory.
fn is_unsupported(error: Errno) -> bool {
    matches!(error, Errno::NOTSUP | Errno::NOSYS | Errno::PERM)
}

fn collect(
    list: impl Fn(&mut Vec<u8>) -> Result<(), Errno>,
    value: impl Fn(&[u8], &mut Vec<u8>) -> Result<(), Errno>,
) -> Metadata {
    let (mut names, mut buffer) = (Vec::new(), Vec::new());
    if list(&mut names).is_err() {
        return Metadata::new();
    }
    let mut metadata = Metadata::new();
    for name in names.split(|byte| *byte == 0) {
        let Some(Ok(key)) = name.strip_prefix(PREFIX.as_bytes()).map(std::str::from_utf8) else { continue };
        if value(name, &mut buffer).is_err() {
            continue;
        }
        if let Ok(text) = std::str::from_utf8(&buffer) {
            metadata.insert(key.to_owned(), text.to_owned());
        }
    }
    metadata
}

/// Fills `buffer`, which grows when the kernel says that it is too small.
fn fill(
    buffer: &mut Vec<u8>,
    query: impl Fn() -> Result<usize, Errno>,
    read: impl Fn(&mut [u8]) -> Result<usize, Errno>,
) -> Result<(), Errno> {
    buffer.clear();
    buffer.resize(TYPICAL_BYTES, 0);
    loop {
        match read(buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(());
            }
            // It may grow again before the next try: ask for the length and leave room.
            Err(Errno::RANGE) => buffer.resize(query()? + TYPICAL_BYTES, 0),
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]
mod tests {
    use std::fs::File;

    use rustix::fs::setxattr;

    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Metadata {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn replacing_removes_absent_keys_and_spares_foreign_attributes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let file = File::create(&path).unwrap();
        setxattr(&path, "user.other", b"mine", XattrFlags::empty()).unwrap();
        replace(&file, &of(&[("a", "1"), ("empty", "")])).unwrap();
        assert_eq!(read(&path), of(&[("a", "1"), ("empty", "")]));
        replace(&file, &of(&[("b", "2")])).unwrap();
        assert_eq!(read(&path), of(&[("b", "2")]));
        assert_eq!(read_open(&file), of(&[("b", "2")]));
        replace(&file, &Metadata::new()).unwrap();
        assert_eq!(read(&path), Metadata::new());
        let mut value = [0; 8];
        assert_eq!(getxattr(&path, "user.other", &mut value[..]).unwrap(), 4);
    }

    #[test]
    fn what_is_not_text_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        setxattr(dir.path(), "user.e2b.bytes", &[0xff], XattrFlags::empty()).unwrap();
        setxattr(dir.path(), &b"user.e2b.\xff"[..], b"x", XattrFlags::empty()).unwrap();
        setxattr(dir.path(), "user.e2b.text", b"x", XattrFlags::empty()).unwrap();
        assert_eq!(read(dir.path()), of(&[("text", "x")]));
    }

    #[test]
    fn long_lists_and_values_are_read_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let long = "v".repeat(2 * TYPICAL_BYTES);
        let metadata: Metadata = (0..4).map(|n| (format!("{n}{}", "k".repeat(200)), "x".to_owned())).collect();
        replace(File::create(&path).unwrap(), &metadata).unwrap();
        assert_eq!(read(&path), metadata);
        replace(File::open(&path).unwrap(), &of(&[("long", &long)])).unwrap();
        assert_eq!(read(&path), of(&[("long", &long)]));
    }

    #[test]
    fn missing_files_and_file_systems_without_attributes_have_none() {
        assert_eq!(read(Path::new("/nonexistent")), Metadata::new());
        assert_eq!(read(Path::new("/proc/self/status")), Metadata::new());
        replace(File::open("/proc/self/status").unwrap(), &of(&[("a", "1")])).unwrap();
    }
}
