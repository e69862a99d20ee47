//! Every test is the process: it makes the pipe and decides when to read.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation is the test's failure")]

use std::{fs::File, io::Read, time::Duration};

use futures_util::future::{join_all, poll_immediate};
use rustix::pipe::{PipeFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with};

use super::{
    super::source::{BUSY_PIPE_BYTES, watch},
    *,
};

/// A full pipe of the size that it grows to, and what it is fed through.
fn pipe() -> (Arc<Input>, File) {
    pipe_with_waiting(Waiting::default())
}

fn pipe_with_waiting(waiting: Waiting) -> (Arc<Input>, File) {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let writer = Arc::new(watch(writer, Interest::WRITABLE).unwrap());
    (Arc::new(Input::new(Some(writer), waiting)), File::from(reader))
}

/// Reads everything up to the end of file.
fn drain(mut reader: File) -> tokio::task::JoinHandle<Vec<u8>> {
    tokio::task::spawn_blocking(move || {
        let mut read = Vec::new();
        reader.read_to_end(&mut read).unwrap();
        read
    })
}

/// Bytes that can be told from those of other calls.
fn piece(number: u8, length: usize) -> Vec<u8> {
    vec![number; length]
}

/// The runs of equal bytes.
fn runs(bytes: &[u8]) -> Vec<(u8, usize)> {
    bytes.chunk_by(|a, b| a == b).map(|run| (run[0], run.len())).collect()
}

#[tokio::test]
async fn calls_are_written_whole_and_in_their_order() {
    let (input, reader) = pipe();
    let pieces: Vec<_> = (0..20).map(|number| piece(number, 300_000)).collect();
    let mut calls: Vec<_> = pieces.iter().map(|piece| Box::pin(input.write(piece, None))).collect();
    // The first poll takes the place.
    for call in &mut calls {
        assert!(poll_immediate(call).await.is_none());
    }
    input.close();
    assert!(matches!(input.write(b"late", None).await, Err(InputFailure::Closed)));
    let read = drain(reader);
    assert!(join_all(calls).await.iter().all(Result::is_ok));
    assert_eq!(runs(&read.await.unwrap()), (0..20).map(|number| (number, 300_000)).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_rest_of_a_dropped_call_is_never_written() {
    let (input, reader) = pipe();
    let pieces = [piece(0, 1_000_000), piece(1, 1_000_000), piece(2, 1_000_000)];
    let mut calls: Vec<_> = pieces.iter().map(|piece| Box::pin(input.write(piece, None))).collect();
    for call in &mut calls {
        assert!(poll_immediate(call).await.is_none());
    }
    // One in the middle of its bytes, one before its turn.
    let last = calls.pop().unwrap();
    drop(calls);
    let read = drain(reader);
    last.await.unwrap();
    input.close();
    assert_eq!(runs(&read.await.unwrap()), [(0, BUSY_PIPE_BYTES), (2, 1_000_000)]);
}

#[tokio::test]
async fn a_late_call_tells_what_the_process_can_read_of_it() {
    let (input, reader) = pipe();
    let soon = Some(Instant::now() + Duration::from_millis(1));
    let (first, second) = (piece(0, 1_000_000), piece(1, 1_000_000));
    let (first, second) = tokio::join!(input.write(&first, soon), input.write(&second, soon));
    assert!(matches!(first, Err(InputFailure::Late(BUSY_PIPE_BYTES))), "{first:?}");
    assert!(matches!(second, Err(InputFailure::Late(0))), "{second:?}");
    // Whoever is late for an empty pipe has not written either.
    input.close();
    assert_eq!(drain(reader).await.unwrap(), piece(0, BUSY_PIPE_BYTES));
}

#[tokio::test]
async fn the_late_answer_comes_before_that_of_an_outer_limit_for_the_same_moment() {
    let (input, _reader) = pipe();
    let bytes = piece(0, 1_000_000);
    for _ in 0..100 {
        let at = Instant::now() + Duration::from_millis(1);
        let outcome = tokio::time::timeout_at(at, input.write(&bytes, Some(at))).await;
        assert!(matches!(outcome, Ok(Err(InputFailure::Late(_)))), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_reader_that_leaves_wakes_everybody() {
    let (input, reader) = pipe();
    let bytes = piece(0, 1_000_000);
    let mut calls: Vec<_> = (0..3).map(|_| Box::pin(input.write(&bytes, None))).collect();
    for call in &mut calls {
        assert!(poll_immediate(call).await.is_none());
    }
    drop(reader);
    for outcome in join_all(calls).await {
        assert!(matches!(&outcome, Err(InputFailure::Io(error)) if error.raw_os_error() == Some(libc::EPIPE)));
    }
}

#[tokio::test]
async fn the_end_of_the_process_wakes_everybody() {
    let (input, reader) = pipe();
    let bytes = piece(0, 1_000_000);
    let mut calls: Vec<_> = (0..3).map(|_| Box::pin(input.write(&bytes, None))).collect();
    for call in &mut calls {
        assert!(poll_immediate(call).await.is_none());
    }
    // A grandchild may still hold the other end.
    input.abandon();
    for outcome in join_all(calls).await {
        assert!(matches!(outcome, Err(InputFailure::Gone)), "{outcome:?}");
    }
    assert_eq!(drain(reader).await.unwrap().len(), BUSY_PIPE_BYTES);
}

#[tokio::test]
async fn what_waits_is_bounded_for_one_process_and_for_all() {
    let waiting = Waiting::default();
    let pipes: Vec<_> = (0..6).map(|_| pipe_with_waiting(waiting.clone())).collect();
    let mebibyte = piece(0, 1 << 20);
    let mut calls = Vec::new();
    let mut refused = Vec::new();
    for (input, _reader) in &pipes {
        let mut crowded = 0;
        for _ in 0..20 {
            let mut call = Box::pin(input.write(&mebibyte, None));
            match poll_immediate(&mut call).await {
                None => calls.push(call),
                Some(Err(InputFailure::Crowded(_))) => crowded += 1,
                Some(other) => panic!("{other:?}"),
            }
        }
        refused.push(crowded);
    }
    // One writes, 16 wait; after four processes the machine has enough.
    assert_eq!(refused, [3, 3, 3, 3, 19, 19]);
    assert_eq!(waiting.0.load(Ordering::Relaxed), ALL_WAITING_BYTES);
    drop(calls);
    assert_eq!(waiting.0.load(Ordering::Relaxed), 0);
    // With room again, one call may be as large as it likes, and is the last.
    let (input, reader) = pipe_with_waiting(waiting.clone());
    let large = piece(1, ALL_WAITING_BYTES + 1);
    let mut first = Box::pin(input.write(&mebibyte, None));
    let mut second = Box::pin(input.write(&large, None));
    assert!(poll_immediate(&mut first).await.is_none() && poll_immediate(&mut second).await.is_none());
    let third = input.write(b"x", None).await;
    assert!(matches!(third, Err(InputFailure::Crowded(waiting)) if waiting == large.len()), "{third:?}");
    let read = drain(reader);
    first.await.unwrap();
    second.await.unwrap();
    input.write(b"x", None).await.unwrap();
    input.close();
    assert_eq!(runs(&read.await.unwrap()), [(0, 1 << 20), (1, ALL_WAITING_BYTES + 1), (b'x', 1)]);
}

#[tokio::test]
async fn a_pipe_grows_when_it_is_full_and_never_shrinks() {
    let (input, reader) = pipe();
    let standard = fcntl_getpipe_size(&reader).unwrap();
    let exactly = piece(0, standard);
    input.write(&exactly, None).await.unwrap();
    assert_eq!(fcntl_getpipe_size(&reader).unwrap(), standard);
    input.write(b"more", None).await.unwrap();
    assert_eq!(fcntl_getpipe_size(&reader).unwrap(), BUSY_PIPE_BYTES);
    // The program may have had its own idea.
    let own = fcntl_setpipe_size(&reader, 2 * BUSY_PIPE_BYTES).unwrap();
    let much = piece(0, own);
    assert!(poll_immediate(Box::pin(input.write(&much, None))).await.is_none());
    assert_eq!(fcntl_getpipe_size(&reader).unwrap(), own);
}
