//! An image with nothing in it but the programs that are run: no shell, no /proc, no /dev, no helpers.
//!
//! In a file of its own, because the root directory is a property of the whole process.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed expectation is the test's failure"
)]

use std::{fs, path::Path, process::Command};

use envd::{
    process::{ProcessService, Processes},
    proto::process::{
        ProcessConfig, Pty, StartRequest,
        process_event::{Event, data_event::Output},
        process_server::Process,
    },
    system::{identity::Identity, settings::Settings},
};
use futures_util::StreamExt;
use tonic::Request;

/// Copies a program with everything that its loader wants.
fn install(root: &Path, program: &str) {
    let libraries = Command::new("ldd").arg(program).output().expect("ldd(1) starts");
    let libraries = String::from_utf8(libraries.stdout).unwrap();
    let paths = libraries.split_whitespace().filter(|word| word.starts_with('/'));
    for path in paths.chain([program]) {
        let copy = root.join(path.trim_start_matches('/'));
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::copy(path, copy).unwrap();
    }
}

async fn run(service: &ProcessService, cmd: &str, args: &[&str]) -> (i32, String, String) {
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    let config = ProcessConfig { cmd: cmd.into(), args, ..Default::default() };
    let request = StartRequest { process: Some(config), stdin: Some(false), ..Default::default() };
    let mut events = service.start(Request::new(request)).await.unwrap().into_inner();
    let (mut code, mut stdout, mut stderr) = (None, Vec::new(), Vec::new());
    while let Some(event) = events.next().await {
        match event.unwrap().event.unwrap().event.unwrap() {
            Event::Data(data) => match data.output.unwrap() {
                Output::Stdout(bytes) => stdout.extend_from_slice(&bytes),
                Output::Stderr(bytes) => stderr.extend_from_slice(&bytes),
                Output::Pty(_) => panic!("no terminal was asked for"),
            },
            Event::End(end) => code = Some(end.exit_code),
            Event::Start(_) | Event::Keepalive(_) => {}
        }
    }
    (code.expect("an end"), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_run_in_an_image_without_anything_else_as_root() {
    assert!(rustix::process::geteuid().is_root(), "needs root; leave it out with: cargo test -- --skip as_root");
    let root = tempfile::tempdir().unwrap();
    for program in ["/bin/echo", "/bin/cat"] {
        install(root.path(), program);
    }
    fs::create_dir(root.path().join("etc")).unwrap();
    fs::write(root.path().join("etc/passwd"), "root:x:0:0::/:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n").unwrap();
    fs::write(root.path().join("script"), "echo never\n").unwrap();
    fs::set_permissions(root.path().join("script"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    fs::set_permissions(root.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let outside = fs::File::open("/").unwrap();
    std::os::unix::fs::chroot(root.path()).unwrap();
    std::env::set_current_dir("/").unwrap();

    for user in ["root", "user"] {
        let settings = Settings::new(user.to_owned(), Some("/".to_owned()), [].into());
        let service = ProcessService::new(Processes::start(Identity::system(), settings).unwrap());
        let said = |text: &str| (0, text.to_owned(), String::new());
        assert_eq!(run(&service, "/bin/echo", &["hello"]).await, said("hello\n"));
        assert_eq!(run(&service, "echo", &["found"]).await, said("found\n"));
        // Reads the end of an input that is not there.
        assert_eq!(run(&service, "/bin/cat", &[]).await, said(""));
        let missing = "envd: sh: No such file or directory\n".to_owned();
        assert_eq!(run(&service, "sh", &["-c", "true"]).await, (127, String::new(), missing));
        // Only a shell could run it.
        let unknown = "envd: /script: Exec format error\n".to_owned();
        assert_eq!(run(&service, "/script", &[]).await, (126, String::new(), unknown));
        let config = ProcessConfig { cmd: "/bin/echo".into(), ..Default::default() };
        let request = StartRequest { process: Some(config), pty: Some(Pty::default()), ..Default::default() };
        let error = service.start(Request::new(request)).await.err().expect("no terminals");
        assert!(error.message().starts_with("error starting pty with command '/bin/echo' in dir '/'"), "{error:?}");
    }
    // So that the directory can be removed.
    rustix::process::fchdir(&outside).unwrap();
    std::os::unix::fs::chroot(".").unwrap();
}
