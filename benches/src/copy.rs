//! The bare copy of the floors.

use std::io::{Read, Write};

/// A loop of reads and writes: [`std::io::copy`] would let the kernel copy without us.
pub(crate) fn copy(from: &mut impl Read, to: &mut impl Write, piece_bytes: usize) {
    let mut buffer = vec![0; piece_bytes];
    loop {
        match from.read(&mut buffer).unwrap() {
            0 => return,
            count => to.write_all(buffer.get(..count).unwrap()).unwrap(),
        }
    }
}
