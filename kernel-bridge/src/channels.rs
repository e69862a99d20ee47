//! The ZeroMQ sockets of one kernel process.

use std::{collections::VecDeque, future::poll_fn, path::Path, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, future};
use tokio::time::sleep;
use uuid::Uuid;
use zeromq::{
    DealerSocket, Socket, SocketEvent, SocketOptions, SocketRecv, SocketSend, SubSocket, ZmqError, ZmqMessage,
    ZmqResult, util::PeerIdentity,
};

use crate::{
    connection::{Connection, Port},
    wire::{Message, Request, Signer},
};

/// How often a socket file is looked for while the kernel starts. The `zeromq` crate would do it for us, but
/// with pauses that double from 50 ms.
const SOCKET_POLL: Duration = Duration::from_millis(2);

/// From this size on, a message is kept until the socket has a new read buffer; see [`receive`].
const LARGE_BYTES: usize = 256 * 1024;

/// Size of a read once there is much to read. It shrinks only after very many short reads, which [`receive`]
/// relies on.
const READ_MAX_BYTES: usize = 64 * 1024;
const SHORT_READS: usize = 4096;

/// How many messages are read ahead of a client that is slow.
const AHEAD_MAX: usize = 2;

/// The last large message, kept for the sake of the socket's read buffer; see [`receive`].
struct Large {
    _content: Bytes,
    /// Whether another message has come behind it.
    followed: bool,
}

/// What the kernel sent.
pub(crate) enum Incoming {
    /// A message on iopub.
    Iopub(Message),
    /// A message on shell.
    Shell(Message),
    /// The kernel has closed its shell socket, or sends what is not ZeroMQ.
    Broken,
}

/// Connected sockets. Made new for each kernel process; dropping them drops what was not delivered.
pub(crate) struct Channels {
    shell: DealerSocket,
    shell_events: futures_util::stream::Fuse<futures_util::stream::BoxStream<'static, SocketEvent>>,
    control: Option<DealerSocket>,
    iopub: SubSocket,
    /// Messages that were read only to make the socket let go of its buffer.
    ahead: VecDeque<ZmqMessage>,
    large: Option<Large>,
    signer: Signer,
    session: String,
}

impl Channels {
    /// Waits for the kernel's sockets and connects to them, iopub first.
    pub(crate) async fn connect(connection: &Connection) -> ZmqResult<Self> {
        let session = Uuid::new_v4().to_string();
        let mut iopub = SubSocket::with_options(options());
        iopub.subscribe("").await?;
        connect(&mut iopub, &connection.socket(Port::Iopub)).await?;
        let mut shell_options = options();
        shell_options.peer_identity(PeerIdentity::try_from(session.as_bytes())?);
        let mut shell = DealerSocket::with_options(shell_options);
        connect(&mut shell, &connection.socket(Port::Shell)).await?;
        let shell_events = shell.monitor().boxed().fuse();
        let mut control = DealerSocket::with_options(options());
        connect(&mut control, &connection.socket(Port::Control)).await?;
        let signer = Signer::new(&connection.key);
        Ok(Self {
            shell,
            shell_events,
            control: Some(control),
            iopub,
            ahead: VecDeque::new(),
            large: None,
            signer,
            session,
        })
    }

    /// Sends a request on shell.
    pub(crate) async fn send_shell(&mut self, request: &Request) -> ZmqResult<()> {
        self.shell.send(request.frames(&self.session, &self.signer)).await
    }

    /// Sends a request on control.
    pub(crate) async fn send_control(&mut self, request: &Request) -> ZmqResult<()> {
        match &mut self.control {
            Some(control) => control.send(request.frames(&self.session, &self.signer)).await,
            None => Err(ZmqError::NoMessage),
        }
    }

    /// The next message; losing this future loses nothing. Messages that are not signed by the kernel are
    /// dropped, and so are replies on control. Without `read_iopub` iopub stays unread.
    pub(crate) async fn next(&mut self, read_iopub: bool) -> Incoming {
        loop {
            if read_iopub && let Some(multipart) = self.ahead.pop_front() {
                if let Some(message) = self.accept(multipart) {
                    return Incoming::Iopub(message);
                }
                continue;
            }
            while !read_iopub && self.large.is_some() && self.ahead.len() < AHEAD_MAX {
                match receive(&mut self.iopub, &mut self.large).now_or_never() {
                    Some(Ok(multipart)) => self.ahead.push_back(multipart),
                    Some(Err(_)) | None => break,
                }
            }
            let control = async {
                match &mut self.control {
                    Some(control) => control.recv().await,
                    None => future::pending().await,
                }
            };
            tokio::select! {
                received = receive(&mut self.iopub, &mut self.large), if read_iopub => match received {
                    Ok(multipart) => {
                        if let Some(message) = self.accept(multipart) {
                            return Incoming::Iopub(message);
                        }
                    }
                    // The socket reconnects by itself.
                    Err(error) => tracing::debug!(%error, "iopub failed"),
                },
                received = self.shell.recv() => match received {
                    Ok(multipart) => {
                        if let Some(message) = self.accept(multipart) {
                            return Incoming::Shell(message);
                        }
                    }
                    Err(error) => {
                        tracing::debug!(%error, "shell failed");
                        return Incoming::Broken;
                    }
                },
                received = control => if received.is_err() {
                    self.control = None;
                },
                Some(event) = self.shell_events.next() => if matches!(event, SocketEvent::Disconnected(_)) {
                    return Incoming::Broken;
                },
            }
        }
    }

    fn accept(&mut self, multipart: ZmqMessage) -> Option<Message> {
        match Message::parse(multipart, &self.signer) {
            Ok(message) => {
                if message.content.len() >= LARGE_BYTES {
                    self.large = Some(Large { _content: message.content.clone(), followed: false });
                }
                Some(message)
            }
            Err(error) => {
                tracing::debug!(%error, "message of a kernel dropped");
                None
            }
        }
    }
}

fn options() -> SocketOptions {
    let mut options = SocketOptions::default();
    options.read_buffer(1024, READ_MAX_BYTES, SHORT_READS);
    options
}

async fn connect(socket: &mut impl Socket, path: &Path) -> ZmqResult<()> {
    while !path.exists() {
        sleep(SOCKET_POLL).await;
    }
    socket.connect(&format!("ipc://{}", path.display())).await
}

/// Receives from iopub, and lets go of the last large message as soon as the socket has another read buffer.
///
/// A socket reuses its buffer when nothing else refers to it: after a message of 100 MB it would keep 100 MB
/// for good. It takes a new one when a full read does not fit behind what it has; that is so when one more
/// message has been read and it waits for the next.
async fn receive(iopub: &mut SubSocket, large: &mut Option<Large>) -> ZmqResult<ZmqMessage> {
    let mut receiving = iopub.recv();
    poll_fn(|context| {
        let polled = receiving.as_mut().poll(context);
        if polled.is_pending() {
            large.take_if(|large| large.followed);
        } else if let Some(large) = large {
            large.followed = true;
        }
        polled
    })
    .await
}
