//! Connection files and the private folder that holds the sockets of one kernel process.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use serde_json::json;
use uuid::Uuid;

use crate::spawner::Spawner;

/// Longest path that fits into `sockaddr_un` together with its terminating zero.
const SOCKET_PATH_MAX_BYTES: usize = 107;

/// How much of a kernel's log goes into an error.
const LOG_TAIL_BYTES: u64 = 2_000;

/// What is private to one kernel process: folder, key and socket paths. Never used for a second process, so
/// that nothing meant for a dead kernel reaches its successor. Removed when dropped.
pub(crate) struct Connection {
    folder: PathBuf,
    log: PathBuf,
    /// The key that messages are signed with.
    pub(crate) key: String,
}

/// A kernel's sockets, with the small integers that stand for ports under `ipc`.
#[derive(Clone, Copy)]
pub(crate) enum Port {
    Shell = 1,
    Iopub = 2,
    Stdin = 3,
    Control = 4,
    Heartbeat = 5,
}

impl Connection {
    /// Makes the folder and the connection file below `runtime_dir`, readable only by the kernel's user.
    pub(crate) fn create(runtime_dir: &Path, kernel_name: &str, spawner: &dyn Spawner) -> io::Result<Self> {
        let parent = runtime_dir.join("k");
        make_passable(runtime_dir)?;
        make_passable(&parent)?;
        let id = Uuid::new_v4().simple().to_string();
        let name = id.get(..8).unwrap_or(&id);
        let connection = Self {
            folder: parent.join(name),
            log: parent.join(format!("{name}.log")),
            key: Uuid::new_v4().to_string(),
        };
        if connection.socket(Port::Heartbeat).as_os_str().len() > SOCKET_PATH_MAX_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::InvalidFilename,
                format!("{} is too long for sockets below it", runtime_dir.display()),
            ));
        }
        DirBuilder::new().mode(0o700).create(&connection.folder)?;
        let file = json!({
            "transport": "ipc",
            "ip": connection.folder.join("s").to_string_lossy(),
            "shell_port": Port::Shell as u16,
            "iopub_port": Port::Iopub as u16,
            "stdin_port": Port::Stdin as u16,
            "control_port": Port::Control as u16,
            "hb_port": Port::Heartbeat as u16,
            "key": connection.key,
            "signature_scheme": "hmac-sha256",
            "kernel_name": kernel_name,
        });
        // The folder is given away last: nobody else can put a link where these files go.
        for (path, text) in [(connection.file(), file.to_string()), (connection.log.clone(), String::new())] {
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?.write_all(text.as_bytes())?;
            spawner.give(&path)?;
        }
        spawner.give(&connection.folder)?;
        Ok(connection)
    }

    /// The connection file.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.join("c.json")
    }

    /// Where the kernel's own output goes.
    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    /// The socket of a channel.
    pub(crate) fn socket(&self, port: Port) -> PathBuf {
        self.folder.join(format!("s-{}", port as u16))
    }

    /// The end of the kernel's log, for the error that says why it did not start.
    pub(crate) fn log_tail(&self) -> String {
        let read = || -> io::Result<Vec<u8>> {
            let mut file = File::open(&self.log)?;
            let start = file.metadata()?.len().saturating_sub(LOG_TAIL_BYTES);
            file.seek(SeekFrom::Start(start))?;
            let mut tail = Vec::new();
            file.take(LOG_TAIL_BYTES).read_to_end(&mut tail)?;
            Ok(tail)
        };
        String::from_utf8_lossy(&read().unwrap_or_default()).trim().to_owned()
    }
}

/// Makes a folder that everybody may pass through, whatever the umask says; one that exists stays as it is.
pub(crate) fn make_passable(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(folder)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o711))
}

impl Drop for Connection {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
        let _ = fs::remove_file(&self.log);
    }
}
