#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation is the test's failure")]

use futures_util::task::noop_waker;

use super::{
    memory::{BUDGET_BYTES, SQUEEZED_BUDGET_BYTES},
    *,
};
use crate::process::log::{CHUNK_COST_BYTES, CHUNK_LIMIT_BYTES, data};

fn chunk(length: usize) -> Output {
    Output::Stdout(vec![b'y'; length].into())
}

fn has_room(log: &OutputLog) -> bool {
    log.poll_room(&Context::from_waker(&noop_waker())).is_ready()
}

/// Takes everything there is; the bytes.
fn read(subscription: &mut Subscription) -> usize {
    let mut bytes = 0;
    while let Poll::Ready(Taken::Output(output, _)) = subscription.poll_next(&Context::from_waker(&noop_waker())) {
        bytes += data(&output).len();
    }
    bytes
}

fn end() -> EndEvent {
    EndEvent { exited: true, status: "exit status 0".into(), ..Default::default() }
}

#[test]
fn a_program_that_writes_for_ever_keeps_memory_flat_without_a_reader() {
    let memory = Memory::default();
    let log = OutputLog::new(memory.clone());
    drop(log.subscribe());
    // Nine gigabytes, as `yes` would write them.
    let output = chunk(CHUNK_LIMIT_BYTES);
    for _ in 0..300_000 {
        assert!(has_room(&log));
        log.append(output.clone());
        assert!(memory.used() <= BUDGET_BYTES);
    }
    let mut client = log.subscribe();
    let missed = client.offset();
    assert_eq!(missed + read(&mut client) as u64, 300_000 * CHUNK_LIMIT_BYTES as u64);
    drop((client, log));
    assert_eq!(memory.used(), 0);
}

#[test]
fn all_logs_together_are_bounded_and_none_loses_what_its_client_waits_for() {
    let memory = Memory::default();
    let logs: Vec<_> = (0..100).map(|_| OutputLog::new(memory.clone())).collect();
    let mut clients: Vec<_> = logs.iter().map(|log| log.subscribe()).collect();
    let mut written = vec![0; logs.len()];
    while logs.iter().any(|log| has_room(log)) {
        for (log, written) in logs.iter().zip(&mut written) {
            if has_room(log) {
                log.append(chunk(10_000));
                *written += 10_000;
            }
        }
    }
    assert!(memory.is_short());
    assert!(memory.used() <= Memory::LIMIT_BYTES + logs.len() * SQUEEZED_BUDGET_BYTES, "{}", memory.used());
    for (client, written) in clients.iter_mut().zip(written) {
        assert_eq!(read(client), written);
    }
}

#[test]
fn history_goes_first_when_memory_is_short() {
    let memory = Memory::default();
    let quiet: Vec<_> = (0..300).map(|_| OutputLog::new(memory.clone())).collect();
    for log in &quiet {
        let mut client = log.subscribe();
        (0..3).for_each(|_| log.append(chunk(20_000)));
        assert_eq!(read(&mut client), 60_000);
        assert_eq!(log.subscribe_from(0).unwrap().offset(), 0, "there is history");
    }
    let history = memory.used();
    assert!(history >= 300 * 60_000);
    // Others fill the rest of the memory with what waits for clients.
    let mut busy = Vec::new();
    while quiet.iter().any(|log| log.subscribe_from(0).unwrap().offset() == 0) {
        let log = OutputLog::new(memory.clone());
        let client = log.subscribe();
        while has_room(&log) {
            log.append(chunk(20_000));
        }
        assert!(!memory.is_short(), "history was enough to give");
        busy.push((log, client));
    }
    assert!(memory.used() > Memory::LIMIT_BYTES - history);
    assert!(quiet.iter().all(|log| log.subscribe_from(0).unwrap().offset() == 60_000), "all of it");
    for (log, mut client) in busy {
        assert_eq!(client.offset(), 0);
        assert!(read(&mut client) > 0);
        drop((log, client));
    }
    // Half of it is free again.
    let log = OutputLog::new(memory.clone());
    log.append(chunk(1));
    let mut client = log.subscribe();
    assert_eq!(read(&mut client), 1);
    assert_eq!(log.subscribe_from(0).unwrap().offset(), 0, "there is history again");
}

#[test]
fn an_ended_process_keeps_its_last_words_and_no_more() {
    let memory = Memory::default();
    let log = OutputLog::new(memory.clone());
    let mut client = log.subscribe();
    for _ in 0..50 {
        log.append(chunk(1_000));
        assert_eq!(read(&mut client), 1_000);
    }
    log.finish(end());
    assert_eq!(read(&mut client), 0);
    drop(client);
    let tail = log.subscribe_from(0).unwrap().offset();
    assert!(tail > 30_000 && tail <= 50_000 - 14_000, "{tail}");
    assert_eq!(log.subscribe().offset(), 50_000);

    let unread = OutputLog::new(memory.clone());
    let client = unread.subscribe();
    while has_room(&unread) {
        unread.append(chunk(CHUNK_LIMIT_BYTES));
    }
    unread.finish(end());
    assert!(memory.used() > BUDGET_BYTES / 2, "the client may still take all of it");
    drop(client);
    assert!(memory.used() <= 1024 * 1024 + 32 * 1024, "{}", memory.used());
}

/// With the clock standing still, so that any wait that only time ends would be seen.
#[test]
fn nine_of_ten_subscribers_read_to_the_end_and_the_process_is_held_up_once() {
    let log = OutputLog::new(Memory::default());
    let mut stalled = log.subscribe();
    let mut others: Vec<_> = (0..9).map(|_| log.subscribe()).collect();
    let (mut waits, mut written) = (0, 0);
    let mut read_by_others = [0; 9];
    for round in 0..20_000 {
        while !has_room(&log) {
            // Everybody else has everything: only now does time pass.
            log.lock().ticked = None;
            log.tick();
            waits += 1;
            assert!(waits <= 20, "held up again in round {round}");
        }
        log.append(chunk(10_000));
        written += 10_000;
        for (other, bytes) in others.iter_mut().zip(&mut read_by_others) {
            *bytes += read(other);
        }
        assert_eq!(read_by_others, [written; 9]);
    }
    assert_eq!(waits, 20);
    log.finish(end());
    let Poll::Ready(Taken::Skipped(skipped)) = stalled.poll_next(&Context::from_waker(&noop_waker())) else {
        panic!("it was not told what it missed")
    };
    assert_eq!(usize::try_from(skipped).unwrap() + read(&mut stalled), written);
    assert!(written - usize::try_from(skipped).unwrap() <= BUDGET_BYTES + CHUNK_COST_BYTES);
}
