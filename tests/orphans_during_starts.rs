//! As a subreaper the agent reaps orphans also while a start is in progress, however long that takes.
//!
//! In a file of its own, because being a subreaper is a property of the whole process.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation is the test's failure")]

use std::{path::Path, pin::Pin, time::Duration};

use envd::{
    process::{ProcessService, Processes},
    proto::process::{
        CloseStdinRequest, ProcessConfig, ProcessSelector, StartRequest, StartResponse,
        process_event::{DataEvent, Event, data_event::Output},
        process_selector::Selector,
        process_server::Process,
    },
    system::{identity::Identity, settings::Settings},
};
use futures_util::{Stream, StreamExt};
use tokio::time::timeout;
use tonic::{Request, Status};

/// How long the test waits for something that has to happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// Holds a lease on a file (fcntl(2)): whoever executes it waits until the lease is given back, which is when standard
/// input ends, or when the kernel has waited long enough (`/proc/sys/fs/lease-break-time`).
const LEASE: &str = "
import fcntl, os, signal, sys
signal.signal(signal.SIGIO, lambda *_: os.write(1, b'wanted\\n'))
file = os.open(sys.argv[1], os.O_RDONLY)
fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
os.write(1, b'leased\\n')
while os.read(0, 1): pass
fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
";

struct Run {
    pid: u32,
    events: Pin<Box<dyn Stream<Item = Result<StartResponse, Status>> + Send>>,
}

impl Run {
    async fn start(service: &ProcessService, cmd: &str, args: &[&str]) -> Self {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        let config = ProcessConfig { cmd: cmd.to_owned(), args, ..Default::default() };
        let request = StartRequest { process: Some(config), ..Default::default() };
        let mut run = Self { pid: 0, events: service.start(Request::new(request)).await.unwrap().into_inner() };
        let Event::Start(start) = run.next().await else { panic!("no start") };
        run.pid = start.pid;
        run
    }

    async fn next(&mut self) -> Event {
        let event = timeout(PATIENCE, self.events.next()).await.unwrap().unwrap().unwrap();
        event.event.unwrap().event.unwrap()
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        while !line.ends_with('\n') {
            match self.next().await {
                Event::Data(DataEvent { output: Some(Output::Stdout(data)), .. }) => {
                    line.push_str(str::from_utf8(&data).unwrap());
                }
                other => panic!("{other:?}"),
            }
        }
        line.trim().to_owned()
    }

    async fn exit_code(mut self) -> i32 {
        loop {
            if let Event::End(end) = self.next().await {
                return end.exit_code;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_hangs_does_not_hold_up_the_reaping_of_orphans() {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
    let identity = Identity::system();
    let settings = Settings::new(identity.own().name.clone(), Some("/".to_owned()), [].into());
    let service = ProcessService::new(Processes::start(identity, settings).unwrap());

    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("program");
    std::fs::copy("/bin/true", &program).unwrap();
    let program = program.to_str().unwrap().to_owned();
    let mut holder = Run::start(&service, "python3", &["-c", LEASE, &program]).await;
    assert_eq!(holder.line().await, "leased");
    let starting = {
        let service = service.clone();
        tokio::spawn(async move { Run::start(&service, &program, &[]).await.exit_code().await })
    };
    assert_eq!(holder.line().await, "wanted");

    // The start waits in the kernel now. Orphans end meanwhile, as do children of our own.
    for number in 0..20 {
        let script = format!("(sleep 1000 & echo $!; kill $!) ; exit {number}");
        let mut run = Run::start(&service, "/bin/sh", &["-c", &script]).await;
        let orphan = run.line().await;
        assert_eq!(run.exit_code().await, number);
        let reaped = async {
            while Path::new(&format!("/proc/{orphan}")).exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, reaped).await.unwrap();
        assert!(!starting.is_finished(), "the start was over before orphan {number} was reaped");
    }

    let process = Some(ProcessSelector { selector: Some(Selector::Pid(holder.pid)) });
    service.close_stdin(Request::new(CloseStdinRequest { process })).await.unwrap();
    assert_eq!(holder.exit_code().await, 0);
    assert_eq!(starting.await.unwrap(), 0);
}
