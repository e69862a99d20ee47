//! The memory that an ended process is said to have held is its own.
//!
//! In a file of its own, because the agent's memory is that of the whole process.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation is the test's failure")]

use envd::{
    process::{ProcessService, Processes},
    proto::process::{EndDetails, ProcessConfig, StartRequest, process_event::Event, process_server::Process},
    system::{identity::Identity, settings::Settings},
};
use futures_util::StreamExt;
use tonic::Request;

const MIB: usize = 1024 * 1024;

async fn run(service: &ProcessService, script: &str) -> EndDetails {
    let config = ProcessConfig { cmd: "/bin/sh".into(), args: vec!["-c".into(), script.into()], ..Default::default() };
    let request = StartRequest { process: Some(config), details: true, ..Default::default() };
    let mut events = service.start(Request::new(request)).await.unwrap().into_inner();
    while let Some(event) = events.next().await {
        if let Some(Event::End(end)) = event.unwrap().event.unwrap().event {
            assert_eq!(end.exit_code, 0);
            return end.details.unwrap();
        }
    }
    panic!("no end")
}

#[tokio::test]
async fn a_small_process_is_not_said_to_have_held_what_a_large_agent_holds() {
    let identity = Identity::system();
    let settings = Settings::new(identity.own().name.clone(), Some("/".to_owned()), [].into());
    let service = ProcessService::new(Processes::start(identity, settings).unwrap());
    // tail(1) keeps what it may have to write.
    let holds_200_mib = format!("head -c {} /dev/zero | tail -c {} | cat >/dev/null", 200 * MIB, 200 * MIB);

    let peak = run(&service, &holds_200_mib).await.peak_resident_bytes;
    assert!((200 * MIB as u64..400 * MIB as u64).contains(&peak), "{peak}");

    let heap = vec![1_u8; 100 * MIB];
    assert_eq!(run(&service, "exit 0").await.peak_resident_bytes, 0, "it held less than the agent: not known");
    let peak = run(&service, &holds_200_mib).await.peak_resident_bytes;
    assert!((200 * MIB as u64..400 * MIB as u64).contains(&peak), "{peak}");
    drop(std::hint::black_box(heap));
}
