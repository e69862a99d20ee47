//! The same with ipykernel. `ENVD_TEST_PYTHON` names a Python that has it.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a failed expectation is the test's failure"
)]

use std::{
    collections::BTreeMap,
    env, fs, io,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use kernel_bridge::{
    Bridge, Channel, Config, Context, ContextRequest, Ending, ErrorReport, Event, ExecuteRequest, Execution,
    KernelCommand, KernelProcess, Spawner, spawner::BoxFuture,
};
use serde_json::json;
use tempfile::TempDir;
use tokio::{sync::watch, time::timeout};

/// Longer than anything here takes on a very slow machine.
const LIMIT: Duration = Duration::from_secs(120);

struct TestSpawner;

struct Process {
    pid: u32,
    exit: watch::Receiver<Option<String>>,
}

impl Spawner for TestSpawner {
    fn spawn(&self, command: KernelCommand) -> BoxFuture<'_, io::Result<Box<dyn KernelProcess>>> {
        Box::pin(async move {
            let log = fs::OpenOptions::new().append(true).create(true).open(&command.log)?;
            let [program, arguments @ ..] = command.argv.as_slice() else { panic!("no program") };
            let mut child = Command::new(program)
                .args(arguments)
                .envs(command.env)
                .current_dir(command.cwd)
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log)
                .process_group(0)
                .spawn()?;
            let pid = child.id();
            let (sender, exit) = watch::channel(None);
            thread::spawn(move || {
                let status = child.wait().expect("child");
                let text = status.signal().map_or_else(|| status.to_string(), |signal| format!("signal: {signal}"));
                sender.send_replace(Some(text));
            });
            Ok(Box::new(Process { pid, exit }) as Box<dyn KernelProcess>)
        })
    }

    fn give(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }
}

impl KernelProcess for Process {
    fn pid(&self) -> u32 {
        self.pid
    }

    fn exited(&self) -> BoxFuture<'static, String> {
        let mut exit = self.exit.clone();
        Box::pin(async move { exit.wait_for(Option::is_some).await.expect("exit").clone().expect("status") })
    }

    fn signal_group(&self, signal: i32) -> io::Result<()> {
        let group = format!("-{}", self.pid);
        Command::new("kill").args([&format!("-{signal}"), "--", &group]).stderr(Stdio::null()).status().map(drop)
    }
}

struct Setup {
    bridge: Bridge,
    context: Context,
    _folder: TempDir,
}

async fn setup() -> Setup {
    let Ok(python) = env::var("ENVD_TEST_PYTHON") else {
        panic!("set ENVD_TEST_PYTHON to the path of a Python that has ipykernel installed");
    };
    let folder = tempfile::tempdir().expect("folder");
    let spec = json!({"argv": [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"], "language": "python"});
    fs::create_dir_all(folder.path().join("specs/python3")).expect("folder");
    fs::write(folder.path().join("specs/python3/kernel.json"), spec.to_string()).expect("kernel.json");
    let config = Config { kernel_dirs: vec![folder.path().join("specs")], runtime_dir: folder.path().join("run") };
    let bridge = Bridge::new(config, Arc::new(TestSpawner));
    let request = ContextRequest {
        kernel: "python".to_owned(),
        language: "python".to_owned(),
        cwd: folder.path().to_owned(),
        env: vec![("GLOBAL".into(), "g".into())],
    };
    let begin = Instant::now();
    let context = bridge.create(request).await.expect("context");
    println!("created in {:?}", begin.elapsed());
    Setup { bridge, context, _folder: folder }
}

fn start(context: &Context, code: &str) -> Execution {
    context.execute(ExecuteRequest { code: code.to_owned(), env: BTreeMap::new() })
}

async fn run(context: &Context, code: &str) -> Vec<Event> {
    timeout(LIMIT, start(context, code).collect()).await.expect("the execution ends")
}

/// Runs an expression whose value is expected.
async fn value(context: &Context, code: &str) -> String {
    let events = run(context, code).await;
    let value = events.iter().find_map(|event| match event {
        Event::Result { data, main: true } => data.get("text/plain")?.as_str().map(str::to_owned),
        _ => None,
    });
    value.unwrap_or_else(|| panic!("no result: {events:?}"))
}

fn stdout(events: &[Event]) -> String {
    let text = events.iter().filter_map(|event| match event {
        Event::Stream { channel: Channel::Stdout, text, .. } => Some(text.as_str()),
        _ => None,
    });
    text.collect()
}

fn error(events: &[Event]) -> &ErrorReport {
    let error = events.iter().find_map(|event| match event {
        Event::Error(report) => Some(report),
        _ => None,
    });
    error.unwrap_or_else(|| panic!("no error: {events:?}"))
}

fn ending(events: &[Event]) -> Ending {
    let endings = events.iter().filter_map(|event| match event {
        Event::End(ending) => Some(*ending),
        _ => None,
    });
    let endings: Vec<_> = endings.collect();
    let [ending] = endings.as_slice() else { panic!("{} endings", endings.len()) };
    *ending
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_results_and_errors() {
    let Setup { context, .. } = &setup().await;
    assert_eq!(run(context, "x = 41").await, [Event::Input { execution_count: 1 }, Event::End(Ending::Finished)]);
    assert_eq!(value(context, "x + 1").await, "42");
    assert_eq!(value(context, "import os; os.environ['GLOBAL']").await, "'g'");
    let events = run(context, "print('before'); 1/0").await;
    assert_eq!(
        (error(&events).name.as_str(), error(&events).value.as_str()),
        ("ZeroDivisionError", "division by zero")
    );
    assert_eq!((stdout(&events).as_str(), ending(&events)), ("before\n", Ending::Finished));
    assert_eq!(error(&run(context, "input()").await).name, "StdinNotImplementedError");
    assert_eq!(error(&run(context, "import sys; sys.exit(3)").await).value, "3");
    assert_eq!(error(&run(context, "x =").await).name, "SyntaxError");
    assert_eq!(value(context, "x").await, "41");

    let mut times: Vec<Duration> = Vec::new();
    for _ in 0..200 {
        let begin = Instant::now();
        assert_eq!(value(context, "1+1").await, "2");
        times.push(begin.elapsed());
    }
    times.sort();
    println!("1+1: p50 {:?}, p95 {:?}", times[100], times[190]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_cell_leaves_a_kernel_with_its_state() {
    let Setup { context, .. } = &setup().await;
    run(context, "state = 7").await;
    for code in ["import time; print('go', flush=True); time.sleep(1000)", "print('go', flush=True)\nwhile True: pass"]
    {
        for _ in 0..10 {
            let mut execution = start(context, code);
            while let Some(event) = execution.next().await {
                if matches!(event, Event::Stream { .. }) {
                    break;
                }
            }
            drop(execution);
            let begin = Instant::now();
            assert_eq!(value(context, "state").await, "7");
            println!("usable {:?} after an interrupt", begin.elapsed());
        }
    }
    for round in 0..40 {
        let mut execution = start(context, "while True: pass");
        // Half of the clients leave when they hear that the cell has begun, half before anybody knows.
        if round % 2 == 0 {
            assert!(matches!(execution.next().await, Some(Event::Input { .. })));
        }
        drop(execution);
        assert_eq!(value(context, "state").await, "7");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cell_that_swallows_interrupts_loses_its_kernel_and_the_context_lives_on() {
    let Setup { context, .. } = &setup().await;
    let code = "print('go', flush=True)\nwhile True:\n  try:\n    while True: pass\n  except KeyboardInterrupt: pass";
    let mut execution = start(context, code);
    while let Some(event) = execution.next().await {
        if matches!(event, Event::Stream { .. }) {
            break;
        }
    }
    drop(execution);
    assert_eq!(value(context, "6*7").await, "42");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deaths_are_told_at_once_and_survived() {
    let Setup { context, .. } = &setup().await;
    let home = value(context, "import os; os.getcwd()").await;
    for code in ["import os; os._exit(1)", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"] {
        run(context, "lost = 1").await;
        let begin = Instant::now();
        let events = run(context, code).await;
        println!("death told after {:?}", begin.elapsed());
        assert_eq!(ending(&events), Ending::KernelDied);
        assert_eq!(error(&run(context, "lost").await).name, "NameError");
        println!("usable after {:?}", begin.elapsed());
        assert_eq!(value(context, "import os; os.getcwd()").await, home);
        assert_eq!(value(context, "os.environ['GLOBAL']").await, "'g'");
    }
    for code in ["exit()", "quit"] {
        run(context, "lost = 1").await;
        let exit = start(context, code);
        let next = start(context, "lost");
        assert_eq!(ending(&exit.collect::<Vec<_>>().await), Ending::Finished);
        assert_eq!(error(&next.collect::<Vec<_>>().await).name, "NameError");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn variables_of_an_execution_are_data_and_gone_afterwards() {
    let Setup { context, .. } = &setup().await;
    let nasty = "\"'\\\n$HOME `id` \u{1F600}";
    let env = BTreeMap::from([("GLOBAL".to_owned(), nasty.to_owned()), ("NEW".to_owned(), "1".to_owned())]);
    let codes = [
        ("import os; print(os.environ['GLOBAL'], os.environ['NEW'], sep='', end='')", None),
        (
            "import os; print(os.environ['GLOBAL'], os.environ.pop('NEW'), sep='', end=''); 1/0",
            Some("ZeroDivisionError"),
        ),
        ("%%bash\nprintf '%s%s' \"$GLOBAL\" \"$NEW\"", None),
        ("x =", Some("SyntaxError")),
    ];
    for (code, failure) in codes {
        let execution = context.execute(ExecuteRequest { code: code.to_owned(), env: env.clone() });
        let events: Vec<_> = execution.collect().await;
        if failure != Some("SyntaxError") {
            assert_eq!(stdout(&events), format!("{nasty}1"), "{events:?}");
        }
        if let Some(name) = failure {
            assert_eq!(error(&events).name, name);
        }
        assert_eq!(value(context, "import os; os.environ['GLOBAL'], os.environ.get('NEW')").await, "('g', None)");
    }
    let mut execution = context.execute(ExecuteRequest { code: "while True: pass".to_owned(), env });
    assert!(matches!(execution.next().await, Some(Event::Input { .. })));
    drop(execution);
    assert_eq!(value(context, "os.environ['GLOBAL'], os.environ.get('NEW')").await, "('g', None)");

    let mut times: Vec<Duration> = Vec::new();
    let env = BTreeMap::from([("A".to_owned(), "1".to_owned()), ("B".to_owned(), "2".to_owned())]);
    for _ in 0..100 {
        let begin = Instant::now();
        let execution = context.execute(ExecuteRequest { code: "1+1".to_owned(), env: env.clone() });
        assert_eq!(ending(&execution.collect::<Vec<_>>().await), Ending::Finished);
        times.push(begin.elapsed());
    }
    times.sort();
    println!("1+1 with two variables: p50 {:?}, p95 {:?}", times[50], times[95]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restart_and_delete_also_while_a_cell_runs() {
    let Setup { bridge, context, .. } = &setup().await;
    let mut running = start(context, "import time; time.sleep(1000)");
    assert_eq!(running.next().await, Some(Event::Input { execution_count: 1 }));
    bridge.restart(context.id()).await.expect("restarted");
    assert_eq!(ending(&running.collect::<Vec<_>>().await), Ending::Restarted);
    assert_eq!(value(context, "1+1").await, "2");
    let begin = Instant::now();
    bridge.restart(context.id()).await.expect("restarted");
    println!("idle restart took {:?}", begin.elapsed());
    let begin = Instant::now();
    bridge.delete(context.id()).await.expect("deleted");
    println!("idle delete took {:?}", begin.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn output_arrives_whole_however_much_it_is() {
    let Setup { context, .. } = &setup().await;
    let begin = Instant::now();
    let events = run(context, "for i in range(5000): print(i, flush=True)").await;
    println!("5,000 flushed prints took {:?}", begin.elapsed());
    let expected: String = (0..5000).map(|number| format!("{number}\n")).collect();
    assert!(stdout(&events) == expected, "{} bytes of output", stdout(&events).len());
    let begin = Instant::now();
    let events = run(context, "print('x' * 100_000_000)").await;
    println!("100 MB took {:?}", begin.elapsed());
    assert_eq!(stdout(&events).len(), 100_000_001);
    drop(events);
    println!("resident after 100 MB: {}", resident());
    assert_eq!(stdout(&run(context, r"print('a\udcffb')").await), "a\u{FFFD}b\n");
    assert_eq!(value(context, "1+1").await, "2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_slowly_loses_nothing() {
    let Setup { context, .. } = &setup().await;
    // More than fits into the channel, in messages few enough for the kernel's own queue.
    let mut execution = start(context, "for i in range(40): print(str(i % 10) * 4_000_000, flush=True)");
    let mut bytes = 0;
    while let Some(event) = execution.next().await {
        if let Event::Stream { text, .. } = event {
            bytes += text.len();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    assert_eq!(bytes, 40 * 4_000_001);
}

fn resident() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default().to_owned()
}
