//! What happens when the disk is full: on a small tmpfs in a mount namespace of its own.

use std::{fs, process::Command};

use bytes::Bytes;

use crate::fixture::{Fixture, RAW, chunked, noise, query_of};

const NO_SPACE: &str = "not enough disk space available";

/// Set only inside the namespace, so that nothing is mounted over the machine.
const INSIDE: &str = "ENVD_TEST_MOUNT_NAMESPACE";

/// Whether the test is in a mount namespace of its own, where it may mount what it likes. If not, it has just been
/// run in one, and has passed.
fn inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let flags: &[&str] = if rustix::process::geteuid().is_root() { &["-m"] } else { &["-r", "-m"] };
    let output = Command::new("unshare")
        .args(flags)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("full_disk::{test}")])
        .env(INSIDE, "1")
        .output()
        .expect("unshare(1) starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{test} in a mount namespace: {said}");
    false
}

fn mount_on_home(fixture: &Fixture, options: &str) {
    assert!(std::env::var_os(INSIDE).is_some(), "this test runs in a mount namespace only");
    let status = Command::new("mount").args(["-t", "tmpfs", "-o", options, "none"]).arg(fixture.home()).status();
    assert!(status.expect("mount(8) starts").success());
}

#[tokio::test]
async fn a_full_disk_is_told_and_loses_nothing() {
    if !inside("a_full_disk_is_told_and_loses_nothing") {
        return;
    }
    let fixture = Fixture::new();
    mount_on_home(&fixture, "size=1m");
    let (new, old) = (fixture.path("new"), fixture.file("old", "old content"));
    let too_much = noise(2 << 20, 1);
    let sized = format!("attempted to write {} bytes: {NO_SPACE}", too_much.len());
    fixture.put_sized(&new, too_much.clone()).await.fails(507, &sized);
    fixture.put_sized(&old, too_much.clone()).await.fails(507, &sized);
    assert_eq!(fs::read_to_string(&old).unwrap(), "old content");
    let pieces = too_much.chunks(100_000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    fixture.post_body(&query_of(&new), &[RAW], chunked(pieces)).await.fails(507, NO_SPACE);
    assert_eq!(fixture.names(), ["old"]);
    // What replaces as much as it takes fits, however full the disk is.
    let most = noise(900 << 10, 2);
    fixture.put_sized(&old, most.clone()).await.wrote(&old);
    fs::write(fixture.path("rest"), noise(1 << 20, 3)).unwrap_err();
    fixture.put_sized(&old, most.clone()).await.wrote(&old);
    assert!(fs::read(&old).unwrap() == most);
}

#[tokio::test]
async fn a_file_system_without_inodes_is_told() {
    if !inside("a_file_system_without_inodes_is_told") {
        return;
    }
    let fixture = Fixture::new();
    mount_on_home(&fixture, "nr_inodes=4");
    let mut last = None;
    for number in 0..8 {
        let path = fixture.path(&number.to_string());
        let answer = fixture.put(&path, "x").await;
        last = Some((path, answer));
    }
    let (path, answer) = last.unwrap();
    answer.fails(507, &format!("not enough inodes available: open {}: no space left on device", path.display()));
}

#[tokio::test]
async fn a_full_device_is_told() {
    Fixture::new().post("path=/dev/full", &[RAW], "x").await.fails(507, NO_SPACE);
}
