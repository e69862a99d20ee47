//! gzip: negotiation, a compressor that is reused between messages, bounded decompression.

use std::io::{self, Read};

use bytes::Bytes;
use flate2::{Compress, Compression, Crc, FlushCompress, Status, read::MultiGzDecoder};

use super::error::ProtocolError;
use crate::system::buffers::Buffer;

/// The name of the one compression besides none.
pub(super) const GZIP: &str = "gzip";

const CHUNK_BYTES: usize = 8 * 1024;
/// Magic, deflate, no flags, no time, no hint, unknown system (RFC 1952).
const GZIP_HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// How the bytes of a message are encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Encoding {
    #[default]
    Identity,
    Gzip,
}

/// The encodings of one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Encodings {
    pub(super) request: Encoding,
    pub(super) response: Encoding,
}

/// Chooses the encodings from what the client sent and what it accepts. Names are compared literally, without
/// quality values; without an accept header the response uses the request's encoding.
pub(super) fn negotiate(sent: Option<&str>, accepted: Option<&str>) -> Result<Encodings, ProtocolError> {
    let request = match sent {
        None | Some("" | "identity") => Encoding::Identity,
        Some(GZIP) => Encoding::Gzip,
        Some(other) => return Err(ProtocolError::UnknownCompression(other.to_owned())),
    };
    let response = match accepted {
        None | Some("") => request,
        Some(list) if list.split([',', ' ']).any(|name| name == GZIP) => Encoding::Gzip,
        Some(_) => Encoding::Identity,
    };
    Ok(Encodings { request, response })
}

/// A gzip compressor. Its tables are large, so one serves a whole stream.
pub(super) struct Gzip {
    deflate: Compress,
}

impl Gzip {
    pub(super) fn new() -> Self {
        // The fastest level: messages are small and somebody waits for them.
        Self { deflate: Compress::new(Compression::fast(), false) }
    }

    /// Appends `plain` to `out` as one gzip member.
    pub(super) fn compress(&mut self, plain: &[u8], out: &mut Buffer) -> io::Result<()> {
        out.put(&GZIP_HEAD);
        self.deflate.reset();
        let mut chunk = [0; CHUNK_BYTES];
        loop {
            let consumed = usize::try_from(self.deflate.total_in()).unwrap_or(usize::MAX);
            let before = self.deflate.total_out();
            let rest = plain.get(consumed..).unwrap_or_default();
            let status = self.deflate.compress(rest, &mut chunk, FlushCompress::Finish)?;
            let produced = usize::try_from(self.deflate.total_out() - before).unwrap_or(0);
            out.put(chunk.get(..produced).unwrap_or_default());
            match status {
                Status::StreamEnd => break,
                Status::BufError if produced == 0 => return Err(io::Error::other("deflate makes no progress")),
                Status::Ok | Status::BufError => {}
            }
        }
        let mut crc = Crc::new();
        crc.update(plain);
        out.put(&crc.sum().to_le_bytes());
        out.put(&crc.amount().to_le_bytes());
        Ok(())
    }
}

/// Unpacks gzip into at most `max_bytes`, so that a small request cannot fill the memory.
pub(super) fn gunzip(packed: &[u8], max_bytes: usize) -> Result<Bytes, ProtocolError> {
    let mut plain = Vec::new();
    let limit = u64::try_from(max_bytes).unwrap_or(u64::MAX).saturating_add(1);
    MultiGzDecoder::new(packed).take(limit).read_to_end(&mut plain).map_err(ProtocolError::Decompress)?;
    if plain.len() > max_bytes {
        return Err(ProtocolError::TooLarge { max_bytes });
    }
    Ok(plain.into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]
mod tests {
    use super::*;

    #[test]
    fn one_compressor_packs_many_messages() {
        let mut gzip = Gzip::new();
        let large: Vec<u8> = (0..300_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        for plain in [&b""[..], b"{}", b"hello hello hello", &large, b"x"] {
            let mut packed = Buffer::new();
            gzip.compress(plain, &mut packed).unwrap();
            assert_eq!(gunzip(packed.filled(), large.len()).unwrap(), plain);
        }
    }

    #[test]
    fn a_bomb_is_stopped_at_the_limit() {
        let mut packed = Buffer::new();
        Gzip::new().compress(&vec![0; 1_000_001], &mut packed).unwrap();
        assert!(matches!(gunzip(packed.filled(), 1_000_000), Err(ProtocolError::TooLarge { max_bytes: 1_000_000 })));
        assert_eq!(gunzip(packed.filled(), 1_000_001).unwrap().len(), 1_000_001);
    }

    #[test]
    fn broken_gzip_is_an_error() {
        let mut packed = Buffer::new();
        Gzip::new().compress(b"payload", &mut packed).unwrap();
        for broken in [&b"not gzip"[..], &packed.filled()[..packed.len() - 3], &[]] {
            assert!(matches!(gunzip(broken, 100), Err(ProtocolError::Decompress(_))), "{broken:?}");
        }
    }

    #[test]
    fn encodings_are_chosen_literally() {
        use Encoding::{Gzip as G, Identity as I};
        for (sent, accepted, request, response) in [
            (None, None, I, I),
            (Some("identity"), Some("identity"), I, I),
            (Some("gzip"), None, G, G),
            (Some("gzip"), Some(""), G, G),
            (Some("gzip"), Some("identity"), G, I),
            (None, Some("gzip"), I, G),
            (None, Some("br, gzip"), I, G),
            (None, Some("br,gzip,zstd"), I, G),
            (None, Some("gzip;q=0.5"), I, I),
            (None, Some("GZIP"), I, I),
            (None, Some("zstd"), I, I),
        ] {
            assert_eq!(negotiate(sent, accepted).unwrap(), Encodings { request, response }, "{sent:?} {accepted:?}");
        }
        assert_eq!(
            negotiate(Some("zstd"), Some("gzip")).unwrap_err().to_string(),
            r#"unknown compression "zstd": supported encodings are gzip"#
        );
    }
}
