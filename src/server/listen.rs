//! Listening sockets: TCP, socket files and vsock behind one `accept`.

use std::{
    fs::{self, Permissions},
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::net::sockopt;
use thiserror::Error;
use tokio::{
    net::{TcpListener, TcpSocket, UnixListener, UnixSocket, UnixStream},
    time,
};
use tokio_vsock::{VMADDR_CID_ANY, VsockAddr, VsockListener};
use tracing::debug;

use super::stream::Stream;
use crate::config::Address;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// How long a connection is idle before the kernel asks whether the peer is still there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);

/// How often it asks again.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// How long what was sent may stay unacknowledged before the connection is given up (`TCP_USER_TIMEOUT`, tcp(7)).
/// Without it, a peer that vanished is noticed after a quarter of an hour, and its commands stand still that long.
/// Linux gives up a peer with full buffers after the same time even if it answers, so that a client may pause no
/// longer than this while output waits for it.
const GIVE_UP_MILLIS: u32 = 120_000;

/// A socket file is its owner's alone, whatever the umask says; who wants to share it changes that.
const SOCKET_MODE: u32 = 0o600;

/// How long the owner of a socket file may take to answer before it counts as alive.
const PROBE_LIMIT: Duration = Duration::from_secs(1);

/// Why a listener could not be opened.
#[derive(Debug, Error)]
#[error("cannot listen on {address}: {source}")]
pub struct ListenError {
    /// The address as asked for.
    pub address: Address,
    /// Why.
    pub source: io::Error,
}

/// A listening socket.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    address: Address,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix { listener: UnixListener, _file: SocketFile },
    Vsock(VsockListener),
}

impl Listener {
    /// Opens a listener. `[::]` accepts IPv4 too, and becomes `0.0.0.0` on a machine without IPv6. A socket file
    /// that nobody listens on any more is replaced.
    ///
    /// # Errors
    /// [`ListenError`] with the error of the system call that failed.
    pub async fn bind(address: &Address) -> Result<Self, ListenError> {
        let opened = match address {
            Address::Tcp(wanted) => bind_tcp(*wanted),
            Address::Unix(path) => bind_unix(path).await,
            Address::Vsock { cid, port } => VsockListener::bind(VsockAddr::new(cid.unwrap_or(VMADDR_CID_ANY), *port))
                .map(|listener| Self { socket: Socket::Vsock(listener), address: address.clone() }),
        };
        opened.map_err(|source| ListenError { address: address.clone(), source })
    }

    /// The address that was bound, with the port that the kernel chose.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Waits for the next connection. Safe to cancel.
    ///
    /// # Errors
    /// Those of accept(2), none of which makes the listener unusable.
    pub async fn accept(&self) -> io::Result<Stream> {
        match &self.socket {
            Socket::Tcp(listener) => listener.accept().await.map(|(stream, _)| Stream::Tcp(stream)),
            Socket::Unix { listener, .. } => listener.accept().await.map(|(stream, _)| Stream::Unix(stream)),
            Socket::Vsock(listener) => {
                std::future::poll_fn(|cx| listener.poll_accept(cx)).await.map(|(stream, _)| Stream::Vsock(stream))
            }
        }
    }
}

fn bind_tcp(wanted: SocketAddr) -> io::Result<Listener> {
    let opened = open_tcp(wanted).or_else(|error| {
        let no_ipv6 = matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL));
        match wanted {
            SocketAddr::V6(v6) if no_ipv6 && v6.ip().is_unspecified() => {
                open_tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), v6.port()))
            }
            _ => Err(error),
        }
    })?;
    let address = Address::Tcp(opened.local_addr()?);
    Ok(Listener { socket: Socket::Tcp(opened), address })
}

/// Accepted sockets inherit the options, which saves five system calls on each of many short connections.
fn open_tcp(wanted: SocketAddr) -> io::Result<TcpListener> {
    let socket = if wanted.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
    if wanted.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    socket.set_reuseaddr(true)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    sockopt::set_socket_keepalive(&socket, true)?;
    sockopt::set_tcp_keepidle(&socket, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(&socket, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_user_timeout(&socket, GIVE_UP_MILLIS)?;
    socket.bind(wanted)?;
    socket.listen(BACKLOG)
}

async fn bind_unix(path: &Path) -> io::Result<Listener> {
    remove_stale(path).await?;
    let socket = UnixSocket::new_stream()?;
    socket.bind(path)?;
    let file = SocketFile::new(path)?;
    // Whoever may connect may do everything. Nobody can before listen(2), so the mode comes in time.
    fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE))?;
    let listener = socket.listen(BACKLOG)?;
    Ok(Listener { socket: Socket::Unix { listener, _file: file }, address: Address::Unix(path.to_owned()) })
}

/// Removes a socket file whose owner is gone; leaves everything else for `bind` to fail on.
async fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.file_type().is_socket() => {}
        _ => return Ok(()),
    }
    match time::timeout(PROBE_LIMIT, UnixStream::connect(path)).await {
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        _ => Ok(()),
    }
}

/// The file of a listening Unix socket, removed with it unless somebody has put another one there.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    fn new(path: &Path) -> io::Result<Self> {
        let meta = fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), identity: (meta.dev(), meta.ino()) })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let current = fs::symlink_metadata(&self.path).map(|meta| (meta.dev(), meta.ino()));
        if current.is_ok_and(|current| current == self.identity)
            && let Err(error) = fs::remove_file(&self.path)
        {
            debug!(path = %self.path.display(), %error, "cannot remove the socket file");
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation is the test's failure")]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    fn address(text: &str) -> Address {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn accepted_connections_notice_a_vanished_peer() {
        let listener = Listener::bind(&address("tcp://127.0.0.1:0")).await.unwrap();
        let Address::Tcp(bound) = listener.address() else { panic!("{}", listener.address()) };
        assert_ne!(bound.port(), 0);
        let (client, accepted) = tokio::join!(TcpStream::connect(bound), listener.accept());
        let _client = client.unwrap();
        let Stream::Tcp(accepted) = accepted.unwrap() else { panic!("not TCP") };
        assert!(sockopt::tcp_nodelay(&accepted).unwrap());
        assert!(sockopt::socket_keepalive(&accepted).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&accepted).unwrap(), KEEPALIVE_IDLE);
        assert_eq!(sockopt::tcp_user_timeout(&accepted).unwrap(), GIVE_UP_MILLIS);
    }

    #[tokio::test]
    async fn a_taken_port_is_named_in_the_error() {
        let first = Listener::bind(&address("tcp://127.0.0.1:0")).await.unwrap();
        let error = Listener::bind(first.address()).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot listen on {}: ", first.address())), "{error}");
    }

    #[tokio::test]
    async fn a_socket_file_goes_with_its_listener() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sock");
        let listener = Listener::bind(&Address::Unix(path.clone())).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let (client, accepted) = tokio::join!(UnixStream::connect(&path), listener.accept());
        assert!(client.is_ok() && matches!(accepted, Ok(Stream::Unix(_))));
        drop(listener);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_stale_socket_file_is_replaced_and_a_living_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let living = Listener::bind(&Address::Unix(path.clone())).await.unwrap();
        let refused = Listener::bind(&Address::Unix(path.clone())).await.unwrap_err();
        assert_eq!(refused.source.kind(), io::ErrorKind::AddrInUse);
        assert!(UnixStream::connect(&path).await.is_ok());
        drop(living);
        fs::write(&path, "not a socket").unwrap();
        assert!(Listener::bind(&Address::Unix(path.clone())).await.is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "not a socket");
    }

    #[tokio::test]
    async fn a_socket_file_of_somebody_else_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sock");
        let listener = Listener::bind(&Address::Unix(path.clone())).await.unwrap();
        fs::remove_file(&path).unwrap();
        let _other = std::os::unix::net::UnixListener::bind(&path).unwrap();
        drop(listener);
        assert!(path.exists());
    }
}
