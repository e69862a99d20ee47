#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation is the test's failure")]

use proptest::prelude::*;

use super::*;

/// Large enough that the fixed reserve for the next read leaves something to play with.
const LIMITS: Limits = Limits { budget: CHUNK_LIMIT_BYTES + 2_000, history: 600 };
const WITHOUT_HISTORY: Limits = Limits { history: 0, ..LIMITS };
const SQUEEZED: Limits = Limits { budget: CHUNK_LIMIT_BYTES + 700, history: 0 };

/// How many ticks a subscriber that takes nothing is waited for.
const PATIENCE_TICKS: usize = PATIENCE_BYTES / TICK_BYTES;

fn end() -> EndEvent {
    EndEvent { exit_code: 0, exited: true, status: "exit status 0".into(), error: None, details: None }
}

/// Bytes that say where in the output they are.
fn bytes(offset: u64, length: usize) -> Bytes {
    (offset..offset + length as u64).map(|at| u8::try_from(at * 31 % 251).unwrap()).collect()
}

fn append(log: &mut Log, length: usize, limits: Limits) {
    log.append(Output::Stdout(bytes(log.written, length)), limits);
}

/// What a subscriber gets until there is nothing more.
fn take_all(log: &mut Log, id: CursorId, limits: Limits) -> Vec<u8> {
    let mut taken = Vec::new();
    while let Taken::Output(output, _) = log.take(id, limits) {
        taken.extend_from_slice(data(&output));
    }
    taken
}

#[test]
fn what_nobody_has_received_waits_and_is_not_told_twice() {
    let mut log = Log::default();
    log.append(Output::Stdout("a".into()), LIMITS);
    let (first, _) = log.subscribe();
    assert_eq!(log.take(first, LIMITS), Taken::Output(Output::Stdout("a".into()), 0));
    assert_eq!(log.take(first, LIMITS), Taken::Nothing);
    log.unsubscribe(first, LIMITS);
    log.append(Output::Stderr("b".into()), LIMITS);
    let (second, offset) = log.subscribe();
    assert_eq!(offset, 1);
    assert_eq!(log.take(second, LIMITS), Taken::Output(Output::Stderr("b".into()), 1));
    assert_eq!(log.take(second, LIMITS), Taken::Nothing);
    log.finish(end());
    assert_eq!(log.take(second, LIMITS), Taken::End(end()));
    log.shrink(WITHOUT_HISTORY);
    assert_eq!(log.cost(), 0);
}

#[test]
fn a_chunk_is_given_back_by_a_client_that_never_asked_for_the_next() {
    let mut log = Log::default();
    append(&mut log, 10, WITHOUT_HISTORY);
    append(&mut log, 10, WITHOUT_HISTORY);
    let (died, _) = log.subscribe();
    assert!(matches!(log.take(died, WITHOUT_HISTORY), Taken::Output(_, 0)));
    assert!(matches!(log.take(died, WITHOUT_HISTORY), Taken::Output(_, 10)));
    log.unsubscribe(died, WITHOUT_HISTORY);
    let (next, offset) = log.subscribe();
    assert_eq!(offset, 10, "the second chunk may not have been sent");
    assert_eq!(take_all(&mut log, next, WITHOUT_HISTORY), bytes(10, 10));
    log.unsubscribe(next, WITHOUT_HISTORY);
    assert_eq!((log.subscribe().1, log.cost()), (20, 0));
}

#[test]
fn a_client_whose_stream_was_ended_for_it_gives_nothing_back() {
    let mut log = Log::default();
    append(&mut log, 10, LIMITS);
    let (ended, _) = log.subscribe();
    assert!(matches!(log.take(ended, LIMITS), Taken::Output(_, 0)));
    log.receive(ended, LIMITS);
    log.unsubscribe(ended, LIMITS);
    assert_eq!(log.subscribe().1, 10);
}

#[test]
fn replay_starts_at_the_byte_asked_for_or_at_the_oldest_that_is_kept() {
    let mut log = Log::default();
    for _ in 0..100 {
        append(&mut log, 50, LIMITS);
    }
    let (plain, _) = log.subscribe();
    take_all(&mut log, plain, LIMITS);
    // 600 bytes of history, of which each chunk of 50 takes 178: four of them.
    let (replay, offset) = log.subscribe_from(0).unwrap();
    assert_eq!(offset, 4_800);
    assert_eq!(take_all(&mut log, replay, LIMITS), bytes(4_800, 200));
    let (replay, offset) = log.subscribe_from(4_870).unwrap();
    assert_eq!(offset, 4_870);
    assert_eq!(log.take(replay, LIMITS), Taken::Output(Output::Stdout(bytes(4_870, 30)), 4_870));
    assert_eq!(log.take(replay, LIMITS), Taken::Output(Output::Stdout(bytes(4_900, 50)), 4_900));
    let (_, offset) = log.subscribe_from(5_000).unwrap();
    assert_eq!(offset, 5_000);
    assert_eq!(log.subscribe_from(5_001).unwrap_err(), 5_000);
    // None of that changes what a plain subscriber gets.
    assert_eq!(log.subscribe().1, 5_000);
}

#[test]
fn replay_of_an_empty_log() {
    let mut log = Log::default();
    assert_eq!(log.subscribe_from(0).unwrap().1, 0);
    assert_eq!(log.subscribe_from(1).unwrap_err(), 0);
}

#[test]
fn history_makes_room_for_what_waits() {
    let mut log = Log::default();
    let limits = Limits { budget: 3_000, history: 2_000 };
    for _ in 0..20 {
        append(&mut log, 50, limits);
    }
    let (first, _) = log.subscribe();
    take_all(&mut log, first, limits);
    log.unsubscribe(first, limits);
    assert!(log.cost() >= limits.history, "{}", log.cost());
    for _ in 0..16 {
        append(&mut log, 50, limits);
    }
    assert!(log.cost() <= limits.budget);
    assert_eq!(log.subscribe().1, 1_000, "nothing that waits was let go");
}

#[test]
fn a_stalled_subscriber_of_ten_holds_up_the_others_once_and_is_told_what_it_missed() {
    let mut log = Log::default();
    let stalled = log.subscribe().0;
    let others: Vec<_> = (0..9).map(|_| log.subscribe().0).collect();
    let mut ticks = 0;
    for _ in 0..200 {
        while !log.has_room(LIMITS) {
            log.tick(LIMITS);
            ticks += 1;
        }
        append(&mut log, 1_000, LIMITS);
        let from = log.written - 1_000;
        for other in &others {
            assert_eq!(take_all(&mut log, *other, LIMITS), bytes(from, 1_000));
        }
    }
    assert_eq!(ticks, PATIENCE_TICKS);
    let Taken::Skipped(skipped) = log.take(stalled, LIMITS) else { panic!("nothing was skipped") };
    let rest = take_all(&mut log, stalled, LIMITS);
    assert_eq!(rest, bytes(skipped, rest.len()));
    assert_eq!(skipped + rest.len() as u64, 200_000);
}

#[test]
fn nobody_loses_patience_with_a_slow_subscriber_that_moves() {
    let mut log = Log::default();
    let (quick, slow) = (log.subscribe().0, log.subscribe().0);
    let mut taken = 0;
    for _ in 0..2_000 {
        while log.has_room(LIMITS) {
            append(&mut log, 1_000, LIMITS);
        }
        take_all(&mut log, quick, LIMITS);
        log.tick(LIMITS);
        // Now and then, and then enough.
        if log.written % 16_000 < 1_000 {
            log.tick(LIMITS);
        }
        for _ in 0..2 * TICK_BYTES / 1_000 + 1 {
            match log.take(slow, LIMITS) {
                Taken::Output(output, _) => taken += data(&output).len() as u64,
                Taken::Nothing => break,
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(taken > 2_000_000, "{taken}");
}

#[test]
fn a_subscriber_that_trickles_is_left_behind() {
    let mut log = Log::default();
    let (quick, trickle) = (log.subscribe().0, log.subscribe().0);
    for round in 0..PATIENCE_TICKS * 5 {
        while log.has_room(LIMITS) {
            append(&mut log, 1_000, LIMITS);
        }
        take_all(&mut log, quick, LIMITS);
        log.tick(LIMITS);
        if matches!(log.take(trickle, LIMITS), Taken::Skipped(_)) {
            assert!(round >= PATIENCE_TICKS, "{round}");
            return;
        }
    }
    panic!("it holds up the other for ever");
}

#[test]
fn a_single_subscriber_holds_the_process_back_for_as_long_as_it_likes() {
    let mut log = Log::default();
    let only = log.subscribe().0;
    let mut appended = 0;
    while log.has_room(LIMITS) {
        append(&mut log, 100, LIMITS);
        appended += 100;
        assert!(appended < 100_000, "never full");
    }
    for _ in 0..PATIENCE_TICKS * 3 {
        log.tick(LIMITS);
        assert!(!log.has_room(LIMITS));
    }
    assert_eq!(take_all(&mut log, only, LIMITS), bytes(0, appended));
}

#[derive(Clone, Debug)]
enum Step {
    Append(usize),
    Subscribe,
    /// From this many thousandths of what was written.
    Replay(u64),
    Unsubscribe(usize),
    Take(usize),
    Receive(usize),
    Tick,
    /// Memory becomes short, or is enough again.
    Squeeze(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (1..400_usize).prop_map(Step::Append),
        1 => Just(Step::Subscribe),
        1 => (0..=1000_u64).prop_map(Step::Replay),
        1 => (0..4_usize).prop_map(Step::Unsubscribe),
        8 => (0..4_usize).prop_map(Step::Take),
        1 => (0..4_usize).prop_map(Step::Receive),
        4 => Just(Step::Tick),
        1 => any::<bool>().prop_map(Step::Squeeze),
    ];
    prop::collection::vec(step, 1..250)
}

/// The simplest thing that could be true: how much was written, how much of it somebody has received, and where each
/// subscriber is. What was written where is known from the offset.
#[derive(Default)]
struct Model {
    written: u64,
    received: u64,
    subscribers: Vec<Subscriber>,
}

struct Subscriber {
    id: CursorId,
    /// The next byte it has to be told.
    next: u64,
    /// Whether it was told anything from where it is.
    told: bool,
    /// Whether it ever had company, and may have been left behind.
    company: bool,
}

impl Model {
    fn subscribed(&mut self, id: CursorId, next: u64) {
        self.subscribers.push(Subscriber { id, next, told: false, company: false });
        let several = self.subscribers.len() > 1;
        self.subscribers.iter_mut().for_each(|subscriber| subscriber.company |= several);
    }

    fn receive(&mut self, index: usize) {
        let Subscriber { next, told, .. } = self.subscribers[index];
        if told {
            self.received = self.received.max(next);
        }
    }

    /// Takes once; false: there was nothing but perhaps the end.
    fn take(&mut self, log: &mut Log, index: usize, limits: Limits) -> Result<bool, TestCaseError> {
        self.receive(index);
        let resumes_at = oldest(log).max(self.received);
        let subscriber = &mut self.subscribers[index];
        match log.take(subscriber.id, limits) {
            Taken::Output(output, offset) => {
                let data = data(&output);
                prop_assert_eq!(offset, subscriber.next, "a gap that nobody told");
                prop_assert_eq!(data, &bytes(offset, data.len()));
                prop_assert!(!data.is_empty());
                subscriber.next += data.len() as u64;
                subscriber.told = true;
                prop_assert!(subscriber.next <= self.written);
                Ok(true)
            }
            Taken::Skipped(skipped) => {
                prop_assert!(subscriber.company, "a single subscriber lost {skipped} bytes");
                prop_assert!(skipped > 0);
                prop_assert_eq!(subscriber.next + skipped, resumes_at);
                subscriber.next = resumes_at;
                subscriber.told = false;
                Ok(true)
            }
            Taken::Nothing | Taken::End(_) => {
                prop_assert_eq!(subscriber.next, self.written);
                Ok(false)
            }
        }
    }
}

/// Bytes of output before the first that is kept.
fn oldest(log: &Log) -> u64 {
    log.chunks.front().map_or(log.written, |chunk| chunk.offset)
}

proptest! {
    #[test]
    fn every_subscriber_sees_a_contiguous_part_and_the_end(steps in steps()) {
        let mut log = Log::default();
        let mut model = Model::default();
        let mut limits = LIMITS;
        for step in steps {
            let (kept_from, had_subscribers) = (oldest(&log), log.has_subscribers());
            match step {
                Step::Append(length) => {
                    if log.has_room(limits) {
                        append(&mut log, length, limits);
                        model.written += length as u64;
                    } else {
                        prop_assert!(had_subscribers, "nobody listens and the process waits");
                    }
                }
                Step::Subscribe if model.subscribers.len() < 4 => {
                    let (id, offset) = log.subscribe();
                    prop_assert_eq!(offset, model.received.max(kept_from));
                    model.subscribed(id, offset);
                }
                Step::Replay(thousandths) if model.subscribers.len() < 4 => {
                    let from = model.written * thousandths / 1000;
                    let (id, offset) = log.subscribe_from(from).unwrap();
                    prop_assert_eq!(offset, from.max(kept_from));
                    model.subscribed(id, offset);
                }
                Step::Unsubscribe(index) if index < model.subscribers.len() => {
                    log.unsubscribe(model.subscribers.remove(index).id, limits);
                }
                Step::Take(index) if index < model.subscribers.len() => {
                    model.take(&mut log, index, limits)?;
                }
                Step::Receive(index) if index < model.subscribers.len() => {
                    model.receive(index);
                    log.receive(model.subscribers[index].id, limits);
                }
                Step::Tick => log.tick(limits),
                Step::Squeeze(squeezed) => {
                    limits = if squeezed { SQUEEZED } else { LIMITS };
                    log.shrink(limits);
                }
                _ => {}
            }
            check(&log, &model, limits, kept_from)?;
        }
        log.finish(end());
        for index in 0..model.subscribers.len() {
            while model.take(&mut log, index, limits)? {}
            prop_assert_eq!(log.take(model.subscribers[index].id, limits), Taken::End(end()));
        }
        model.subscribers.drain(..).for_each(|subscriber| log.unsubscribe(subscriber.id, WITHOUT_HISTORY));
        prop_assert!(model.received < model.written || log.cost() == 0);
    }
}

/// What has to be true after each step.
fn check(log: &Log, model: &Model, limits: Limits, kept_from: u64) -> Result<(), TestCaseError> {
    prop_assert_eq!(log.written, model.written);
    prop_assert_eq!(log.cost() as u64, log.chunks.iter().map(Chunk::cost).sum::<u64>());
    prop_assert!(log.cost() <= LIMITS.budget);
    // What nobody has received goes only for lack of space, and never while the only subscriber may still want it.
    if oldest(log) > model.received.max(kept_from) {
        prop_assert!(log.cost() + CHUNK_COST_BYTES + 400 > limits.budget, "let go for nothing");
    }
    // Nobody needs what is kept before this, and it is at most one chunk more than allowed.
    let needed = model.subscribers.iter().map(|subscriber| subscriber.next).min().unwrap_or(u64::MAX);
    let history = log.chunks.iter().filter(|chunk| chunk.end() <= needed.min(model.received));
    prop_assert!(
        history.map(Chunk::cost).sum::<u64>() <= (LIMITS.history + 2 * (400 + CHUNK_COST_BYTES)) as u64,
        "too much history"
    );
    Ok(())
}
