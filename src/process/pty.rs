//! Terminal pairs.
//!
//! `portable-pty` opens the pair and resizes it. The program is started by us, on the slave's device, which belongs
//! to the user: `screen`, `script` and `gpg` open it again by name.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::OwnedFd,
        unix::fs::{OpenOptionsExt, PermissionsExt},
    },
    sync::{Mutex, PoisonError},
};

use portable_pty::{MasterPty, PtySize, native_pty_system};

use crate::{proto::process::pty, sys::descriptor::duplicate, system::identity::User};

/// The group that may write to terminals, for write(1) and wall(1).
pub(super) const GROUP: &str = "tty";

/// Owner reads and writes, the terminals' group writes, as login(1) leaves it.
const SLAVE_MODE: u32 = 0o620;

/// The agent's end of a terminal.
pub(super) struct Terminal {
    master: Mutex<Option<Box<dyn MasterPty + Send>>>,
}

/// A fresh pair.
pub(super) struct Pair {
    pub(super) terminal: Terminal,
    /// A descriptor of the master for reading and writing.
    pub(super) master: OwnedFd,
    /// The end for the program.
    pub(super) slave: File,
}

/// Opens a pair of the given size and gives the slave to the user and, where there is one, to the terminals' group.
/// Blocking.
///
/// # Errors
/// When there are no more terminals or descriptors, or devpts is not mounted.
pub(super) fn open(size: Option<pty::Size>, user: &User, group: Option<u32>) -> io::Result<Pair> {
    // The library tells the system's answer as text only; as a number it is still the thread's last one.
    let pair = native_pty_system().openpty(pty_size(size)).map_err(|_text| io::Error::last_os_error())?;
    let missing = || io::Error::other("the terminal has no device");
    let path = pair.master.tty_name().ok_or_else(missing)?;
    let master = duplicate(pair.master.as_raw_fd().ok_or_else(missing)?)?;
    // A machine that forbids this has terminals that cannot be opened by name, which is no reason to have none.
    let given = std::os::unix::fs::chown(&path, Some(user.uid), group)
        .and_then(|()| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(SLAVE_MODE)));
    if let Err(error) = given {
        tracing::warn!(terminal = %path.display(), user = user.name, %error, "cannot give the terminal to its user");
    }
    // O_NOCTTY: it must not become the agent's own terminal.
    let slave = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY).open(&path)?;
    Ok(Pair { terminal: Terminal { master: Mutex::new(Some(pair.master)) }, master, slave })
}

impl Terminal {
    /// Sets the window size; the kernel tells the program with SIGWINCH. A terminal that is already closed is left
    /// alone.
    ///
    /// # Errors
    /// As ioctl(2).
    pub(super) fn resize(&self, size: Option<pty::Size>) -> io::Result<()> {
        match &*self.master.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(master) => master.resize(pty_size(size)).map_err(io::Error::other),
            None => Ok(()),
        }
    }

    /// Lets the descriptor go.
    pub(super) fn close(&self) {
        self.master.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// A missing size is 0×0, and numbers are taken modulo 65536, as clients know it.
pub(super) fn pty_size(size: Option<pty::Size>) -> PtySize {
    let size = size.unwrap_or_default();
    let modulo = |number: u32| u16::try_from(number & 0xffff).unwrap_or_default();
    PtySize { rows: modulo(size.rows), cols: modulo(size.cols), pixel_width: 0, pixel_height: 0 }
}
