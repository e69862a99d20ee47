//! Descriptors: as plain numbers from libraries, and watched for readiness.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use tokio::io::{Interest, unix::AsyncFd};

/// Watches a descriptor for readiness. Needs a tokio runtime; non-blocking mode is the caller's business.
///
/// # Errors
/// As epoll_ctl(2).
pub fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` names the same open descriptor for as long as it lives, and it lives inside the result.
    Ok(unsafe { AsyncFd::register_with_interest(fd, interest) }?)
}

/// The same for an open file. Only special files, such as those of control groups, can be watched.
///
/// # Errors
/// As epoll_ctl(2): `EPERM` for a file that is always ready.
pub fn watch_file(file: File, interest: Interest) -> io::Result<AsyncFd<File>> {
    // SAFETY: a `File` names the same open descriptor for as long as it lives, and it lives inside the result.
    Ok(unsafe { AsyncFd::register_with_interest(file, interest) }?)
}

/// The same for a descriptor that belongs to somebody else.
///
/// # Errors
/// As epoll_ctl(2).
pub fn watch_borrowed(fd: BorrowedFd<'_>, interest: Interest) -> io::Result<AsyncFd<BorrowedFd<'_>>> {
    // SAFETY: a `BorrowedFd` names the same open descriptor for its whole lifetime, which the result cannot outlive.
    Ok(unsafe { AsyncFd::register_with_interest(fd, interest) }?)
}

/// A close-on-exec duplicate of a descriptor that a library hands out as a number only (fcntl(2), `F_DUPFD_CLOEXEC`).
///
/// # Errors
/// As fcntl(2): `EBADF`, `EMFILE`.
pub fn duplicate(number: RawFd) -> io::Result<OwnedFd> {
    duplicate_from(number, 0)
}

/// A close-on-exec duplicate whose number is not one of the three standard ones.
pub(super) fn duplicate_above_standard(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    duplicate_from(fd.as_fd().as_raw_fd(), 3)
}

fn duplicate_from(number: RawFd, lowest: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl with F_DUPFD_CLOEXEC touches no memory; a bad number is answered with EBADF.
    let duplicate = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, lowest) };
    if duplicate < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(duplicate) })
}
