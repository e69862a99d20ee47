//! What the benches let the agent and the floors run.
//!
//! * `child text BYTES` writes lines of text.
//! * `child stamps LINES` writes a line every millisecond: the monotonic clock (clock_gettime(2)) in nanoseconds.
//! * `child echo` makes its terminal raw, writes `!` and then every byte that it reads, until it reads a `q`.
//! * `child sink` reads standard input to its end and prints how many bytes that were.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a bench has nobody to report to but its own exit status")]

use std::{
    env,
    fs::File,
    io::{self, Read, Write},
    os::fd::AsFd,
    thread,
    time::Duration,
};

use benches::text::Text;
use rustix::{
    termios::{OptionalActions, tcgetattr, tcsetattr},
    time::{ClockId, clock_gettime},
};

fn main() {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let amount = || arguments.get(1).and_then(|amount| amount.parse().ok()).unwrap();
    match arguments.first().map(String::as_str) {
        Some("text") => text(amount()),
        Some("stamps") => stamps(amount()),
        Some("echo") => echo(),
        Some("sink") => sink(),
        other => panic!("text, stamps, echo or sink, not {other:?}"),
    }
}

fn text(bytes: u64) {
    let mut text = Text::new(bytes);
    let mut output = unbuffered(io::stdout());
    while let Some(block) = text.next_block() {
        output.write_all(block).unwrap();
    }
}

fn stamps(lines: u64) {
    let mut output = unbuffered(io::stdout());
    for _ in 0..lines {
        thread::sleep(Duration::from_millis(1));
        let now = clock_gettime(ClockId::Monotonic);
        output.write_all(format!("{}\n", now.tv_sec * 1_000_000_000 + now.tv_nsec).as_bytes()).unwrap();
    }
}

fn echo() {
    let mut terminal = unbuffered(io::stdin());
    let mut attributes = tcgetattr(&terminal).unwrap();
    attributes.make_raw();
    tcsetattr(&terminal, OptionalActions::Now, &attributes).unwrap();
    terminal.write_all(b"!").unwrap();
    let mut buffer = [0; 64];
    loop {
        let count = terminal.read(&mut buffer).unwrap();
        let bytes = buffer.get(..count).unwrap();
        if bytes.is_empty() || bytes.contains(&b'q') {
            return;
        }
        terminal.write_all(bytes).unwrap();
    }
}

fn sink() {
    let (mut input, mut buffer, mut total) = (unbuffered(io::stdin()), vec![0; 64 * 1024], 0);
    loop {
        match input.read(&mut buffer).unwrap() {
            0 => break,
            count => total += count,
        }
    }
    unbuffered(io::stdout()).write_all(format!("{total}\n").as_bytes()).unwrap();
}

/// A standard stream as the descriptor that it is: `stdin` and `stdout` have buffers and look for lines.
fn unbuffered(stream: impl AsFd) -> File {
    File::from(stream.as_fd().try_clone_to_owned().unwrap())
}
