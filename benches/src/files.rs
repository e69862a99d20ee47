//! Upload and download of a large file, against a bare copy between a socket and a file of the same file system.

use std::{
    env,
    fs::{self, File},
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use crate::{
    agent::{Agent, user},
    copy::copy,
    figures::Pairs,
    http::Client,
};

const BYTES: u64 = 256 << 20;
const ROUNDS: usize = 3;
const PIECE_BYTES: usize = 256 * 1024;

/// Measures and prints.
pub(crate) fn run() {
    // In memory where possible: what a disk costs is not the question.
    let shared = Path::new("/dev/shm");
    let folder = if shared.is_dir() { shared.to_owned() } else { env::temp_dir() };
    let path = folder.join(format!("envd-bench-{}", std::process::id()));
    let agent = Agent::start();
    let (mut uploads, mut downloads) = (Pairs::default(), Pairs::default());
    for _ in 0..ROUNDS {
        // Each upload makes its file anew: pages that exist are cheaper to write.
        let ours = upload(&agent, &path);
        fs::remove_file(&path).unwrap();
        uploads.push(ours, bare_upload(&path));
        downloads.push(download(&agent, &path), bare_download(&path));
        fs::remove_file(&path).unwrap();
    }
    let place = folder.display();
    uploads.print_speeds(&format!("upload of 256 MiB to {place}"), "bare copy, socket to file", BYTES);
    downloads.print_speeds(&format!("download of 256 MiB from {place}"), "bare copy, file to socket", BYTES);
}

fn target(path: &Path) -> String {
    format!("/files?path={}&username={}", path.display(), user())
}

fn upload(agent: &Agent, path: &Path) -> Duration {
    let mut client = Client::connect(agent.port);
    let piece = vec![7; PIECE_BYTES];
    let began = Instant::now();
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/octet-stream\r\nContent-Length: {BYTES}\r\n\r\n",
        target(path)
    );
    client.send(head.as_bytes());
    for _ in 0..pieces() {
        client.send(&piece);
    }
    client.read_response();
    let elapsed = began.elapsed();
    assert_eq!(fs::metadata(path).unwrap().len(), BYTES);
    elapsed
}

fn download(agent: &Agent, path: &Path) -> Duration {
    let mut client = Client::connect(agent.port);
    let began = Instant::now();
    client.send(format!("GET {} HTTP/1.1\r\nHost: localhost\r\n\r\n", target(path)).as_bytes());
    assert_eq!(client.read_response(), BYTES);
    began.elapsed()
}

fn bare_upload(path: &Path) -> Duration {
    let (mut client, mut server) = connection();
    let path: PathBuf = path.to_owned();
    let began = Instant::now();
    let receiver = thread::spawn(move || copy(&mut server, &mut File::create(path).unwrap(), PIECE_BYTES));
    let piece = vec![7; PIECE_BYTES];
    for _ in 0..pieces() {
        client.write_all(&piece).unwrap();
    }
    drop(client);
    receiver.join().unwrap();
    began.elapsed()
}

fn bare_download(path: &Path) -> Duration {
    let (mut client, mut server) = connection();
    let path: PathBuf = path.to_owned();
    let began = Instant::now();
    let sender = thread::spawn(move || {
        copy(&mut File::open(path).unwrap(), &mut server, PIECE_BYTES);
    });
    let mut buffer = vec![0; PIECE_BYTES];
    while client.read(&mut buffer).unwrap() > 0 {}
    sender.join().unwrap();
    began.elapsed()
}

fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

fn pieces() -> u64 {
    BYTES / u64::try_from(PIECE_BYTES).unwrap()
}
