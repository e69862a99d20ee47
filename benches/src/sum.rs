//! A checksum that sees bytes that are missing, repeated, changed or out of order, at the speed of memory.

/// A running sum over 64-bit words and a sum of those sums, as Fletcher's checksum has them, and the count of bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    bytes: u64,
    first: u64,
    second: u64,
    /// The bytes after the last whole word, lowest first.
    rest: u64,
}

impl Sum {
    /// Adds bytes. How they are cut into pieces makes no difference.
    pub fn add(&mut self, mut bytes: &[u8]) {
        while !self.bytes.is_multiple_of(8) {
            let Some((byte, others)) = bytes.split_first() else { return };
            self.rest |= u64::from(*byte) << (self.bytes % 8 * 8);
            self.bytes += 1;
            bytes = others;
            if self.bytes.is_multiple_of(8) {
                let word = std::mem::take(&mut self.rest);
                self.word(word);
            }
        }
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.word(u64::from_le_bytes(*word));
        }
        self.bytes += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        for (place, byte) in rest.iter().enumerate() {
            self.rest |= u64::from(*byte) << (place * 8);
        }
    }

    /// How many bytes there were.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn word(&mut self, word: u64) {
        self.first = self.first.wrapping_add(word);
        self.second = self.second.wrapping_add(self.first);
    }
}

#[cfg(test)]
mod tests {
    use super::Sum;

    fn of(pieces: &[&[u8]]) -> Sum {
        let mut sum = Sum::default();
        pieces.iter().for_each(|piece| sum.add(piece));
        sum
    }

    #[test]
    fn the_cuts_make_no_difference() {
        let bytes: Vec<u8> = (0..=255).cycle().skip(7).take(1003).collect();
        for cut in 0..bytes.len() {
            let (head, tail) = bytes.split_at(cut);
            assert_eq!(of(&[head, tail]), of(&[&bytes]), "cut at {cut}");
        }
    }

    #[test]
    fn loss_change_and_order_are_seen() {
        let whole = of(&[b"12345678abcdefghrest"]);
        for other in ["abcdefgh12345678rest", "12345678abcdefghresT", "12345678abcdefghres", "12345678abcdefghrset"] {
            assert_ne!(of(&[other.as_bytes()]), whole, "{other}");
        }
    }
}
