//! The rare orders of things, with a kernel that is told what to do.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed expectation is the test's failure"
)]

mod fake;

use std::{collections::BTreeMap, fs, sync::Arc, time::Duration};

use fake::{Diary, FakeSpawner};
use futures_util::StreamExt;
use kernel_bridge::{
    Bridge, Channel, Config, Context, ContextError, ContextRequest, CreateError, Ending, Event, ExecuteRequest,
    Execution,
};
use serde_json::json;
use tempfile::TempDir;
use tokio::time::timeout;

/// Longer than anything here takes on a very slow machine.
const LIMIT: Duration = Duration::from_secs(60);

struct Setup {
    bridge: Bridge,
    diary: Arc<Diary>,
    spawner: Arc<FakeSpawner>,
    folder: TempDir,
}

fn setup_with(spawner: FakeSpawner) -> Setup {
    let folder = tempfile::tempdir().expect("folder");
    let specs = [
        ("python3", json!({"argv": ["fake", "{connection_file}"], "language": "python"})),
        ("polite", json!({"argv": ["fake", "{connection_file}"], "language": "r", "interrupt_mode": "message"})),
        ("doomed", json!({"argv": ["fake", "dies-at-start"], "language": "x"})),
    ];
    for (name, spec) in specs {
        fs::create_dir_all(folder.path().join(name)).expect("folder");
        fs::write(folder.path().join(name).join("kernel.json"), spec.to_string()).expect("kernel.json");
    }
    let spawner = Arc::new(spawner);
    let diary = Arc::clone(&spawner.diary);
    let config = Config { kernel_dirs: vec![folder.path().to_owned()], runtime_dir: folder.path().join("run") };
    Setup { bridge: Bridge::new(config, spawner.clone()), diary, spawner, folder }
}

fn setup() -> Setup {
    setup_with(FakeSpawner::default())
}

fn request(kernel: &str) -> ContextRequest {
    ContextRequest {
        kernel: kernel.to_owned(),
        language: "label".to_owned(),
        cwd: "/tmp".into(),
        env: vec![("GREETING".into(), "hello".into())],
    }
}

async fn context(setup: &Setup) -> Context {
    timeout(LIMIT, setup.bridge.create(request("python"))).await.expect("in time").expect("context")
}

fn start(context: &Context, code: &str) -> Execution {
    context.execute(ExecuteRequest { code: code.to_owned(), env: BTreeMap::new() })
}

async fn finish(execution: Execution) -> Vec<Event> {
    timeout(LIMIT, execution.collect()).await.expect("the execution ends")
}

async fn run(context: &Context, code: &str) -> Vec<Event> {
    finish(start(context, code)).await
}

fn stdout(text: &str) -> Event {
    let date = Some("2026-11-20T20:02:55.100736Z".to_owned());
    Event::Stream { channel: Channel::Stdout, text: text.to_owned(), date }
}

fn input(execution_count: i64) -> Event {
    Event::Input { execution_count }
}

const FINISHED: Event = Event::End(Ending::Finished);

#[tokio::test]
async fn events_come_in_the_order_of_iopub_whatever_the_reply_does() {
    let setup = setup();
    let context = context(&setup).await;
    assert_eq!(run(&context, "hi").await, [input(1), stdout("hi"), FINISHED]);
    assert_eq!(run(&context, "idle before reply").await, [input(2), FINISHED]);
    assert_eq!(run(&context, "hi").await, [input(3), stdout("hi"), FINISHED]);
    assert_eq!((context.language(), context.cwd().to_str()), ("label", Some("/tmp")));
}

#[tokio::test]
async fn a_lost_idle_or_a_lost_reply_ends_the_execution_after_a_grace() {
    let setup = setup();
    let context = context(&setup).await;
    assert_eq!(run(&context, "no idle").await, [input(1), stdout("out"), FINISHED]);
    assert_eq!(run(&context, "no reply").await, [input(2), FINISHED]);
    assert_eq!(run(&context, "hi").await, [input(3), stdout("hi"), FINISHED]);
}

#[tokio::test]
async fn an_error_is_told_once_from_wherever_it_comes() {
    let setup = setup();
    let context = context(&setup).await;
    let events = run(&context, "error in reply").await;
    let [_, Event::Error(report), FINISHED] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!((report.name.as_str(), report.value.as_str(), report.traceback.len()), ("", "1", 0));
    let events = run(&context, "error twice").await;
    let [_, Event::Error(report), later, FINISHED] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!((report.name.as_str(), report.traceback.as_slice()), ("E", ["t".to_owned()].as_slice()));
    assert_eq!(later, &stdout("later"));
}

#[tokio::test]
async fn a_refused_cell_is_sent_once_more() {
    let setup = setup();
    let context = context(&setup).await;
    assert_eq!(run(&context, "aborted once").await, [input(1), stdout("aborted once"), FINISHED]);
    assert_eq!(run(&context, "aborted always").await, [Event::End(Ending::Aborted)]);
    let sent = setup.diary.entries().iter().filter(|entry| *entry == "1: aborted always").count();
    assert_eq!(sent, 2);
}

#[tokio::test]
async fn odd_messages_are_read_or_dropped_and_never_fatal() {
    let setup = setup();
    let context = context(&setup).await;
    assert_eq!(run(&context, "invalid utf-8").await, [input(1), stdout("a\u{FFFD}b"), FINISHED]);
    let data = json!({"text/plain": "a\nb", "application/json": [1]});
    let result = Event::Result { data: data.as_object().expect("object").clone(), main: true };
    assert_eq!(run(&context, "list mime").await, [input(2), result, FINISHED]);
    assert_eq!(run(&context, "foreign").await, [input(3), stdout("own"), FINISHED]);
    assert_eq!(run(&context, "forged").await, [input(4), stdout("own"), FINISHED]);
}

#[tokio::test]
async fn a_death_is_told_and_what_waits_runs_on_the_next_kernel_only() {
    let setup = setup();
    let context = context(&setup).await;
    let died = start(&context, "die");
    let waiting = start(&context, "hi");
    assert_eq!(finish(died).await.last(), Some(&Event::End(Ending::KernelDied)));
    assert_eq!(finish(waiting).await, [input(1), stdout("hi"), FINISHED]);
    let expected = ["1: cwd /tmp", "1: GREETING=hello", "1: die", "2: cwd /tmp", "2: GREETING=hello", "2: hi"];
    assert_eq!(setup.diary.entries(), expected);
}

#[tokio::test]
async fn a_kernel_that_dies_idle_is_replaced() {
    let setup = setup();
    let context = context(&setup).await;
    setup.spawner.processes.lock().expect("processes")[0].send_replace(Some("signal: killed".to_owned()));
    timeout(LIMIT, setup.diary.wait_for("2: cwd /tmp")).await.expect("a new kernel");
    assert_eq!(run(&context, "hi").await, [input(1), stdout("hi"), FINISHED]);
}

#[tokio::test]
async fn a_kernel_that_closes_its_sockets_is_dead() {
    let setup = setup();
    let context = context(&setup).await;
    assert_eq!(run(&context, "hang up").await.last(), Some(&Event::End(Ending::KernelDied)));
    assert_eq!(run(&context, "hi").await, [input(1), stdout("hi"), FINISHED]);
    assert!(setup.diary.entries().contains(&"1: signal 9".to_owned()));
}

#[tokio::test]
async fn the_last_words_of_a_kernel_that_closes_its_shell_first_are_told() {
    let setup = setup();
    let context = context(&setup).await;
    let died = Event::End(Ending::KernelDied);
    assert_eq!(run(&context, "hang up, speak, die").await, [input(1), stdout("last words"), died]);
}

#[tokio::test]
async fn a_context_whose_worker_panics_is_not_listed_any_more() {
    let setup = setup();
    let context = context(&setup).await;
    let running = start(&context, "sleep");
    setup.diary.wait_for("1: sleep").await;
    setup.spawner.processes.lock().expect("processes")[0].send_replace(Some(fake::POISON.to_owned()));
    assert_eq!(finish(running).await.last(), Some(&Event::End(Ending::KernelDied)));
    let gone = async {
        while setup.bridge.get(context.id()).is_some() {
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, gone).await.expect("the context leaves the list");
    assert!(matches!(setup.bridge.restart(context.id()).await, Err(ContextError::NotFound)));
}

#[tokio::test]
async fn a_kernel_is_found_by_its_name_in_any_case() {
    let setup = setup();
    for (name, found) in [("polite", true), ("Polite", true), ("python", true), ("PYTHON3", true), ("ruby", false)] {
        assert_eq!(setup.bridge.has_kernel(name), found, "{name}");
    }
}

#[tokio::test]
async fn a_cell_that_ends_the_kernel_on_purpose_finishes_and_the_next_has_a_new_kernel() {
    let setup = setup();
    let context = context(&setup).await;
    let (exit, next) = (start(&context, "exit"), start(&context, "hi"));
    assert_eq!(finish(exit).await, [input(1), FINISHED]);
    assert_eq!(finish(next).await, [input(1), stdout("hi"), FINISHED]);
}

#[tokio::test]
async fn code_whose_client_left_the_queue_never_runs() {
    let setup = setup();
    let context = context(&setup).await;
    let running = start(&context, "sleep");
    let leaver = start(&context, "never");
    let stayer = start(&context, "hi");
    timeout(LIMIT, setup.diary.wait_for("1: sleep")).await.expect("running");
    drop(leaver);
    drop(running);
    assert_eq!(finish(stayer).await, [input(2), stdout("hi"), FINISHED]);
    assert!(!setup.diary.entries().contains(&"1: never".to_owned()));
}

#[tokio::test]
async fn dropping_a_running_execution_interrupts_by_signal_or_by_message() {
    let setup = setup();
    for (kernel, number, interrupt) in [("python", 1, "signal 2"), ("polite", 2, "interrupt_request")] {
        let context = setup.bridge.create(request(kernel)).await.expect("context");
        let running = start(&context, "sleep");
        timeout(LIMIT, setup.diary.wait_for(&format!("{number}: sleep"))).await.expect("running");
        drop(running);
        assert_eq!(run(&context, "hi").await, [input(2), stdout("hi"), FINISHED]);
        let seen: Vec<_> =
            setup.diary.entries().into_iter().filter(|entry| entry.starts_with(&number.to_string())).collect();
        let expected =
            ["cwd /tmp", "GREETING=hello", "sleep", interrupt, "hi"].map(|entry| format!("{number}: {entry}"));
        assert_eq!(seen, expected);
    }
}

#[tokio::test]
async fn a_cell_that_swallows_an_interrupt_gets_another_and_then_loses_its_kernel() {
    let setup = setup();
    let context = context(&setup).await;
    let stubborn = start(&context, "stubborn");
    timeout(LIMIT, setup.diary.wait_for("1: stubborn")).await.expect("running");
    drop(stubborn);
    assert_eq!(run(&context, "hi").await, [input(2), stdout("hi"), FINISHED]);
    let deaf = start(&context, "deaf");
    timeout(LIMIT, setup.diary.wait_for("1: deaf")).await.expect("running");
    drop(deaf);
    assert_eq!(run(&context, "hi").await, [input(1), stdout("hi"), FINISHED]);
    assert!(setup.diary.entries().contains(&"1: signal 9".to_owned()));
}

#[tokio::test]
async fn variables_of_one_execution_are_set_before_and_restored_behind_it() {
    let setup = setup();
    let context = context(&setup).await;
    let env = |key: &str| BTreeMap::from([(key.to_owned(), "1".to_owned())]);
    let failing = ExecuteRequest { code: "error twice".to_owned(), env: env("A") };
    assert_eq!(finish(context.execute(failing)).await.last(), Some(&FINISHED));
    assert_eq!(run(&context, "hi").await, [input(2), stdout("hi"), FINISHED]);
    let expected = [
        "1: silent __import__(\"_envd_kernel\").enter(\"eyJBIjoiMSJ9\")",
        "1: error twice",
        "1: silent __import__(\"_envd_kernel\").leave()",
        "1: hi",
    ];
    assert_eq!(setup.diary.entries()[2..], expected);

    let refused = ExecuteRequest { code: "never".to_owned(), env: env("BAD") };
    let events = finish(context.execute(refused)).await;
    let [Event::Error(report), FINISHED] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!(report.name, "EnvironmentNotSet");
    assert!(!setup.diary.entries().contains(&"1: never".to_owned()));
}

#[tokio::test]
async fn variables_are_restored_also_when_the_client_left() {
    let setup = setup();
    let context = context(&setup).await;
    let env = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
    let running = context.execute(ExecuteRequest { code: "sleep".to_owned(), env });
    timeout(LIMIT, setup.diary.wait_for("1: sleep")).await.expect("running");
    drop(running);
    assert_eq!(run(&context, "hi").await, [input(2), stdout("hi"), FINISHED]);
    let expected = ["1: signal 2", "1: silent __import__(\"_envd_kernel\").leave()", "1: hi"];
    assert_eq!(setup.diary.entries()[4..], expected);
}

#[tokio::test]
async fn restart_ends_everything_and_keeps_id_place_cwd_and_environment() {
    let setup = setup();
    let (first, second) = (context(&setup).await, context(&setup).await);
    let (running, waiting) = (start(&first, "sleep"), start(&first, "never"));
    timeout(LIMIT, setup.diary.wait_for("1: sleep")).await.expect("running");
    timeout(LIMIT, setup.bridge.restart(first.id())).await.expect("in time").expect("restarted");
    assert_eq!(finish(running).await.last(), Some(&Event::End(Ending::Restarted)));
    assert_eq!(finish(waiting).await, [Event::End(Ending::Restarted)]);
    assert_eq!(run(&first, "hi").await, [input(1), stdout("hi"), FINISHED]);
    let ids: Vec<_> = setup.bridge.list().iter().map(|context| context.id().to_owned()).collect();
    assert_eq!(ids, [first.id(), second.id()]);
    assert!(setup.diary.entries().ends_with(&["3: cwd /tmp", "3: GREETING=hello", "3: hi"].map(str::to_owned)));
    assert!(matches!(setup.bridge.restart("nobody").await, Err(ContextError::NotFound)));
}

#[tokio::test]
async fn delete_ends_everything_and_the_context_is_gone() {
    let setup = setup();
    let context = context(&setup).await;
    let (running, waiting) = (start(&context, "sleep"), start(&context, "never"));
    timeout(LIMIT, setup.diary.wait_for("1: sleep")).await.expect("running");
    timeout(LIMIT, setup.bridge.delete(context.id())).await.expect("in time").expect("deleted");
    assert_eq!(finish(running).await.last(), Some(&Event::End(Ending::Deleted)));
    assert_eq!(finish(waiting).await, [Event::End(Ending::Deleted)]);
    assert_eq!(run(&context, "never").await, [Event::End(Ending::Deleted)]);
    assert!(setup.bridge.get(context.id()).is_none());
    assert!(matches!(setup.bridge.delete(context.id()).await, Err(ContextError::NotFound)));
    assert!(setup.bridge.list().is_empty());
}

#[tokio::test]
async fn an_idle_kernel_is_asked_to_leave_before_it_is_made_to() {
    let setup = setup();
    let context = context(&setup).await;
    setup.bridge.delete(context.id()).await.expect("deleted");
    assert_eq!(setup.diary.entries().last().map(String::as_str), Some("1: shutdown_request"));
    let left: Vec<_> = fs::read_dir(setup.folder.path().join("run/k")).expect("folder").flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn what_cannot_be_created_says_why() {
    let setup = setup();
    let create = |request| setup.bridge.create(request);
    let Err(CreateError::UnknownKernel { name }) = create(request("cobol")).await else { panic!("unknown kernel") };
    assert_eq!(name, "cobol");
    let nowhere = ContextRequest { cwd: "/nowhere".into(), ..request("python") };
    assert!(matches!(create(nowhere).await, Err(CreateError::BadCwd { .. })));
    let relative = ContextRequest { cwd: "tmp".into(), ..request("python") };
    assert!(matches!(create(relative).await, Err(CreateError::BadCwd { .. })));
    let Err(CreateError::NotReady { reason, .. }) = create(request("doomed")).await else { panic!("doomed kernel") };
    assert!(reason.contains("exit status 1") && reason.contains("no module named fake"), "{reason}");
    assert!(setup.bridge.list().is_empty());
}

#[tokio::test]
async fn a_kernel_that_cannot_be_replaced_is_tried_again_for_the_next_execution() {
    let setup = setup_with(FakeSpawner { broken: 2..5, ..FakeSpawner::default() });
    let context = context(&setup).await;
    let (died, waiting) = (start(&context, "die"), start(&context, "never"));
    assert_eq!(finish(died).await.last(), Some(&Event::End(Ending::KernelDied)));
    assert_eq!(finish(waiting).await, [Event::End(Ending::Unavailable)]);
    assert_eq!(run(&context, "never").await, [Event::End(Ending::Unavailable)]);
    assert!(matches!(setup.bridge.restart(context.id()).await, Err(ContextError::Failed { .. })));
    assert_eq!(run(&context, "hi").await, [input(1), stdout("hi"), FINISHED]);
}

#[tokio::test]
async fn shutdown_ends_kernels_and_executions_and_refuses_new_contexts() {
    let setup = setup();
    let (first, _second) = (context(&setup).await, context(&setup).await);
    let running = start(&first, "sleep");
    timeout(LIMIT, setup.diary.wait_for("1: sleep")).await.expect("running");
    setup.bridge.shutdown().await;
    assert_eq!(finish(running).await.last(), Some(&Event::End(Ending::Deleted)));
    let signals = setup.diary.entries().iter().filter(|entry| entry.ends_with("signal 15")).count();
    assert_eq!(signals, 2);
    assert!(matches!(setup.bridge.create(request("python")).await, Err(CreateError::ShuttingDown)));
}
