//! What a request can do wrong against the protocol itself, with the code and text that clients see.

use thiserror::Error;
use tonic::{Code, Status};

/// A request that breaks the protocol, or a message that cannot cross it.
#[derive(Debug, Error)]
pub enum ProtocolError {
    /// `Connect-Protocol-Version` is present and not 1.
    #[error("Connect-Protocol-Version must be \"1\": got {0:?}")]
    ProtocolVersion(String),
    /// `Connect-Timeout-Ms` is longer than the protocol allows.
    #[error("parse timeout: {0:?} has >10 digits")]
    TimeoutTooLong(String),
    /// `Connect-Timeout-Ms` is not a number.
    #[error("parse timeout: {0:?} is not an integer")]
    TimeoutNotInteger(String),
    /// The request is compressed in a way that we do not read.
    #[error("unknown compression {0:?}: supported encodings are gzip")]
    UnknownCompression(String),
    /// A frame says that it is compressed, but no encoding was announced.
    #[error("protocol error: sent compressed message without compression support")]
    UnannouncedCompression,
    /// The compressed bytes are broken.
    #[error("decompress: {0}")]
    Decompress(std::io::Error),
    /// A frame carries flag bits that mean nothing.
    #[error("protocol error: invalid envelope flags {0}")]
    EnvelopeFlags(u8),
    /// The body ended inside the five bytes that start a frame.
    #[error("protocol error: incomplete envelope: unexpected EOF")]
    IncompleteEnvelope,
    /// The body ended inside a frame.
    #[error("protocol error: promised {promised} bytes in enveloped message, got {got} bytes")]
    ShortEnvelope {
        /// What the frame's length says.
        promised: usize,
        /// What arrived.
        got: usize,
    },
    /// An end-of-stream frame of the client is not a JSON object.
    #[error("unmarshal end stream message: {0}")]
    EndStream(serde_json::Error),
    /// A method that takes one message got none.
    #[error("unary request has zero messages")]
    NoMessage,
    /// A method that takes one message got more.
    #[error("unary request has multiple messages")]
    SeveralMessages,
    /// A message is larger than the router accepts, possibly after decompression.
    #[error("message size is larger than configured max {max_bytes}")]
    TooLarge {
        /// The limit.
        max_bytes: usize,
    },
    /// The bytes are not a message of the expected type.
    #[error("unmarshal message: {0}")]
    Unmarshal(String),
    /// A response has no representation on the wire.
    #[error("marshal message: {0}")]
    Marshal(String),
    /// The time limit of the call has passed.
    #[error("context deadline exceeded")]
    DeadlineExceeded,
    /// The client went away while it was sending.
    #[error("context canceled")]
    Canceled,
}

impl ProtocolError {
    /// The code that goes with the text.
    pub fn code(&self) -> Code {
        match self {
            Self::ProtocolVersion(_)
            | Self::TimeoutTooLong(_)
            | Self::TimeoutNotInteger(_)
            | Self::Decompress(_)
            | Self::IncompleteEnvelope
            | Self::ShortEnvelope { .. }
            | Self::Unmarshal(_) => Code::InvalidArgument,
            Self::UnknownCompression(_) | Self::NoMessage | Self::SeveralMessages => Code::Unimplemented,
            Self::UnannouncedCompression | Self::EnvelopeFlags(_) | Self::EndStream(_) | Self::Marshal(_) => {
                Code::Internal
            }
            Self::TooLarge { .. } => Code::ResourceExhausted,
            Self::DeadlineExceeded => Code::DeadlineExceeded,
            Self::Canceled => Code::Cancelled,
        }
    }
}

impl From<ProtocolError> for Status {
    fn from(error: ProtocolError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}
