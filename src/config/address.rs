//! Where to listen, written as a URL.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

use thiserror::Error;

/// The address of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `tcp://IP:PORT`. `[::]` accepts IPv4 too, and stands for `0.0.0.0` on a machine without IPv6. Port 0
    /// lets the kernel choose.
    Tcp(SocketAddr),
    /// `unix:/path` or `unix:///path`.
    Unix(PathBuf),
    /// `vsock://CID:PORT`; no CID means any (vsock(7)).
    Vsock {
        /// The context id to bind to.
        cid: Option<u32>,
        /// The port, which is not related to TCP ports.
        port: u32,
    },
}

/// Why a text is no listener address.
#[derive(Debug, Error)]
pub enum AddressError {
    /// No known scheme.
    #[error("write tcp://IP:PORT, unix:/path or vsock://CID:PORT")]
    Scheme,
    /// Not an IP address with a port.
    #[error("write an IP address and a port, such as tcp://127.0.0.1:49983 or tcp://[::]:49983")]
    Tcp,
    /// Not an absolute path.
    #[error("write an absolute path, such as unix:/run/envd.sock")]
    Unix,
    /// Not a context id with a port.
    #[error("write numbers, such as vsock://:49983 or vsock://3:49983")]
    Vsock,
}

impl Address {
    /// Every address of the machine, IPv6 and IPv4.
    pub fn any(port: u16) -> Self {
        Self::Tcp(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port))
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(rest) = text.strip_prefix("tcp://") {
            let rest = rest.strip_suffix('/').unwrap_or(rest);
            if let Some(port) = rest.strip_prefix(':') {
                return port.parse().map(Self::any).map_err(|_| AddressError::Tcp);
            }
            return rest.parse().map(Self::Tcp).map_err(|_| AddressError::Tcp);
        }
        if let Some(rest) = text.strip_prefix("vsock://") {
            let (cid, port) = rest.strip_suffix('/').unwrap_or(rest).rsplit_once(':').ok_or(AddressError::Vsock)?;
            let cid = if cid.is_empty() { None } else { Some(cid.parse().map_err(|_| AddressError::Vsock)?) };
            return Ok(Self::Vsock { cid, port: port.parse().map_err(|_| AddressError::Vsock)? });
        }
        if let Some(rest) = text.strip_prefix("unix:") {
            let path = rest.strip_prefix("//").unwrap_or(rest);
            let absolute = path.starts_with('/') && !path.ends_with('/') && !path.contains('\0');
            return if absolute { Ok(Self::Unix(path.into())) } else { Err(AddressError::Unix) };
        }
        Err(AddressError::Scheme)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp://{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Vsock { cid: Some(cid), port } => write!(f, "vsock://{cid}:{port}"),
            Self::Vsock { cid: None, port } => write!(f, "vsock://:{port}"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_understood_and_printed_back() {
        for (given, printed) in [
            ("tcp://[::]:49983", "tcp://[::]:49983"),
            ("tcp://127.0.0.1:0", "tcp://127.0.0.1:0"),
            ("tcp://:8080", "tcp://[::]:8080"),
            ("tcp://0.0.0.0:1/", "tcp://0.0.0.0:1"),
            ("unix:/run/x.sock", "unix:/run/x.sock"),
            ("unix:///run/x.sock", "unix:/run/x.sock"),
            ("vsock://:49983", "vsock://:49983"),
            ("vsock://3:49983", "vsock://3:49983"),
            ("vsock://4294967295:70000", "vsock://4294967295:70000"),
        ] {
            assert_eq!(given.parse::<Address>().unwrap().to_string(), printed, "{given}");
        }
        assert_eq!("vsock://:7".parse::<Address>().unwrap(), Address::Vsock { cid: None, port: 7 });
    }

    #[test]
    fn anything_else_is_refused() {
        for odd in [
            "",
            "49983",
            "127.0.0.1:1",
            "http://127.0.0.1:1",
            "tcp://",
            "tcp://localhost:1",
            "tcp://127.0.0.1",
            "tcp://127.0.0.1:65536",
            "tcp://[::1]",
            "unix:",
            "unix:run/x",
            "unix://run/x",
            "unix:/run/",
            "vsock://",
            "vsock://3",
            "vsock://x:1",
            "vsock://3:x",
            "vsock://-1:1",
        ] {
            assert!(odd.parse::<Address>().is_err(), "{odd:?}");
        }
    }
}
