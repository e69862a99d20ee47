//! Lines of text in any amount, the same in the program that writes them and in the bench that checks them.

/// As much as a pipe holds, so that each write can fill one.
const BLOCK_BYTES: usize = 64 * 1024;
/// Digits of the number in the first line of a block.
const DIGITS: usize = 16;

/// Blocks of lines between 40 and 100 bytes. Each block begins with its number, so that no two are alike.
pub struct Text {
    block: Vec<u8>,
    number: u64,
    left: u64,
}

impl Text {
    /// Text of this many bytes.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let mut block = vec![b'0'; DIGITS];
        block.push(b'\n');
        let mut line = 0_usize;
        while block.len() < BLOCK_BYTES {
            block.extend(format!("{line:05} ").bytes());
            block.extend((0..34 + line * 7 % 60).map(|place| b"etaoin shrdlu "[(place + line) % 14]));
            block.push(b'\n');
            line += 1;
        }
        block.truncate(BLOCK_BYTES);
        Self { block, number: 0, left: bytes }
    }

    /// The next block, or nothing at the end.
    pub fn next_block(&mut self) -> Option<&[u8]> {
        if self.left == 0 {
            return None;
        }
        let mut number = self.number;
        for digit in self.block[..DIGITS].iter_mut().rev() {
            *digit = b"0123456789abcdef"[usize::from(number.to_le_bytes()[0] & 15)];
            number >>= 4;
        }
        self.number += 1;
        let count = usize::try_from(self.left).map_or(BLOCK_BYTES, |left| left.min(BLOCK_BYTES));
        self.left -= u64::try_from(count).unwrap_or(self.left);
        Some(&self.block[..count])
    }
}

#[cfg(test)]
mod tests {
    use super::{BLOCK_BYTES, Text};

    #[test]
    fn there_is_as_much_as_was_asked_for() {
        for bytes in [0, 1, 65_536, 65_537, 1_000_000] {
            let (mut text, mut count) = (Text::new(bytes), 0);
            while let Some(block) = text.next_block() {
                count += block.len();
            }
            assert_eq!(u64::try_from(count), Ok(bytes));
        }
    }

    #[test]
    fn blocks_differ_and_lines_are_short() {
        let mut text = Text::new(u64::MAX);
        let first = text.next_block().map(<[u8]>::to_vec);
        let second = text.next_block().map(<[u8]>::to_vec);
        assert_ne!(first, second);
        let first = first.unwrap_or_default();
        assert_eq!(first.len(), BLOCK_BYTES);
        assert!(first.split(|byte| *byte == b'\n').all(|line| line.len() <= 100));
    }
}
