//! Starts while the agent is short of descriptors: clear errors, nothing leaks, and it goes on.
//!
//! In a file of its own, because a limit is a property of the whole process.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed expectation is the test's failure"
)]

use std::{
    fs,
    time::{Duration, Instant},
};

use envd::{
    process::{ProcessService, Processes},
    proto::process::{ProcessConfig, Pty, StartRequest, process_event::Event, process_server::Process},
    system::{identity::Identity, settings::Settings},
};
use futures_util::StreamExt;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tonic::{Code, Request, Status};

fn descriptors() -> u64 {
    // One of them is that of the directory itself.
    fs::read_dir("/proc/self/fd").unwrap().count() as u64 - 1
}

async fn run(service: &ProcessService, request: StartRequest) -> Result<i32, Status> {
    let mut events = service.start(Request::new(request)).await?.into_inner();
    let mut code = None;
    while let Some(event) = events.next().await {
        if let Some(Event::End(end)) = event?.event.unwrap().event {
            code = Some(end.exit_code);
        }
    }
    Ok(code.expect("an end"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_without_enough_descriptors_is_told_and_leaks_nothing() {
    let identity = Identity::system();
    let settings = Settings::new(identity.own().name.clone(), Some("/".to_owned()), [].into());
    let service = ProcessService::new(Processes::start(identity, settings).unwrap());
    let plain = || {
        let config = ProcessConfig { cmd: "/bin/true".into(), ..Default::default() };
        StartRequest { process: Some(config), ..Default::default() }
    };
    let terminal = || StartRequest { pty: Some(Pty::default()), ..plain() };
    for request in [plain(), terminal()] {
        run(&service, request).await.unwrap();
    }
    let given = getrlimit(Resource::Nofile);
    let settled = async || {
        let deadline = Instant::now() + Duration::from_secs(120);
        let mut last = descriptors();
        // Ended processes let go of their descriptors after the end was told.
        while Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let now = descriptors();
            if now == last {
                return now;
            }
            last = now;
        }
        panic!("the number of descriptors does not settle");
    };
    let before = settled().await;
    for (name, request) in [("plain", &plain as &dyn Fn() -> StartRequest), ("terminal", &terminal)] {
        let (mut failures, mut successes) = (0, 0);
        // One more each time, so that every step is once the one that fails.
        for more in 0..16 {
            setrlimit(Resource::Nofile, Rlimit { current: Some(before + more), maximum: given.maximum }).unwrap();
            let outcome = run(&service, request()).await;
            setrlimit(Resource::Nofile, given).unwrap();
            match outcome {
                Ok(code) => {
                    assert_eq!(code, 0, "{name}, {more} descriptors");
                    successes += 1;
                }
                Err(error) => {
                    assert_eq!(error.code(), Code::Internal, "{name}, {more} descriptors: {error:?}");
                    assert!(error.message().contains("too many open files"), "{name}, {more}: {}", error.message());
                    let detail = String::from_utf8_lossy(error.details()).into_owned();
                    assert!(detail.contains("process.SpawnFailure") && detail.contains("EMFILE"), "{name}: {detail}");
                    failures += 1;
                }
            }
            assert!(settled().await <= before, "{name}: descriptors leak with {more} more");
        }
        assert!(failures > 2 && successes > 2, "{name}: {failures} failures, {successes} successes");
    }
}
