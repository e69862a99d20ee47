//! Base64 (RFC 4648, the standard alphabet with padding), for the rounds that check bytes and for input.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The value of each character; 255 where there is none.
const VALUES: [u8; 256] = {
    let mut values = [255; 256];
    let mut value = 0;
    while value < 64 {
        values[ALPHABET[value as usize] as usize] = value;
        value += 1;
    }
    values
};

/// Appends the decoded bytes.
pub(crate) fn decode(encoded: &[u8], to: &mut Vec<u8>) {
    let padding = encoded.iter().rev().take_while(|byte| **byte == b'=').count();
    let (groups, rest) = encoded.as_chunks::<4>();
    assert!(rest.is_empty() && padding < 3, "not base64");
    to.reserve(groups.len() * 3);
    let mut seen = 0;
    for group in groups {
        let [a, b, c, d] = group.map(|character| if character == b'=' { 0 } else { VALUES[usize::from(character)] });
        seen |= a | b | c | d;
        to.extend([a << 2 | b >> 4, b << 4 | c >> 2, c << 6 | d]);
    }
    assert!(seen < 64, "not base64");
    to.truncate(to.len() - padding);
}

/// The bytes as text.
pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |place: usize| group.get(place).copied().unwrap_or(0);
        let (a, b, c) = (byte(0), byte(1), byte(2));
        let values = [a >> 2, (a & 3) << 4 | b >> 4, (b & 15) << 2 | c >> 6, c & 63];
        for (place, value) in values.into_iter().enumerate() {
            text.push(if place > group.len() { '=' } else { char::from(ALPHABET[usize::from(value)]) });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{decode, encode};

    #[test]
    fn what_was_encoded_is_decoded() {
        assert_eq!(encode(b"any carnal pleas"), "YW55IGNhcm5hbCBwbGVhcw==");
        let bytes: Vec<u8> = (0..=255).cycle().take(700).collect();
        for length in 0..bytes.len() {
            let mut decoded = Vec::new();
            decode(encode(&bytes[..length]).as_bytes(), &mut decoded);
            assert_eq!(decoded, bytes[..length]);
        }
    }
}
