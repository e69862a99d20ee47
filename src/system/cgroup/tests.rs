#![allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]

use super::*;

/// A directory with files as a control group has them.
fn lookalike(files: &[(&str, &str)]) -> (tempfile::TempDir, ControlGroup) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("process-1");
    fs::create_dir(&path).unwrap();
    for (name, content) in files {
        fs::write(path.join(name), content).unwrap();
    }
    let group = ControlGroup::at(path, None);
    (dir, group)
}

#[test]
fn mounts_of_version_2_are_found_with_spaces_in_their_names() {
    let mountinfo = b"31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
        32 31 0:29 / /sys/fs/cgroup/cpu rw shared:1 - cgroup cgroup rw,cpu\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:7 master:2 - cgroup2 cgroup2 rw\n\
        42 31 0:38 / /mnt/a\\040b\\134c rw - cgroup2 none rw\n\
        broken line\n";
    assert_eq!(cgroup2_mounts(mountinfo), ["/sys/fs/cgroup/unified", "/mnt/a b\\c"].map(PathBuf::from));
    assert_eq!(unescape(b"tail\\04"), PathBuf::from("tail\\04"));
}

#[test]
fn processor_limits_stay_within_what_the_kernel_takes() {
    assert_eq!(cpu_max(1500), "150000 100000");
    assert_eq!(cpu_max(10), "1000 100000");
    assert_eq!(cpu_max(1), "1000 1000000");
}

#[test]
fn memory_kills_are_counted_and_absent_means_none() {
    let events = "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n";
    assert_eq!(lookalike(&[("memory.events", events)]).1.oom_kills(), 2);
    assert_eq!(lookalike(&[("memory.events", "low 0\noom 3\n")]).1.oom_kills(), 0);
    assert_eq!(lookalike(&[]).1.oom_kills(), 0);
}

#[test]
fn members_include_those_of_groups_below() {
    let (_dir, group) = lookalike(&[("cgroup.procs", "12\n0\n34\n")]);
    fs::create_dir(group.path().join("inner")).unwrap();
    fs::write(group.path().join("inner/cgroup.procs"), "56\n").unwrap();
    assert_eq!(group.members().unwrap(), [12, 34, 56]);
    fs::remove_dir_all(group.path()).unwrap();
    assert!(group.members().unwrap().is_empty(), "gone is empty");
}

#[test]
fn a_limit_without_its_controller_is_refused_by_name() {
    let (dir, group) = lookalike(&[("cgroup.controllers", "cpu pids\n"), ("cpu.max", "max 100000")]);
    let limits = Limits { cpu_millis: Some(500), ..Limits::default() };
    limit(dir.path(), group.path(), &limits).unwrap();
    assert_eq!(fs::read_to_string(group.path().join("cpu.max")).unwrap(), "50000 100000");
    let limits = Limits { memory_bytes: Some(1 << 20), ..Limits::default() };
    let refusal = limit(dir.path(), group.path(), &limits).unwrap_err();
    assert!(matches!(refusal, ControlGroupError::NoController { controller: "memory", .. }), "{refusal}");
}

#[test]
fn without_a_hierarchy_the_reason_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let refusal = ControlGroups::below(Some(dir.path().to_owned())).create(&Limits::default()).unwrap_err();
    assert!(matches!(&refusal, ControlGroupError::NoHierarchy(path) if path == dir.path()), "{refusal}");
    let refusal = ControlGroups::below(None).create(&Limits::default()).unwrap_err();
    assert!(matches!(refusal, ControlGroupError::SwitchedOff), "{refusal}");
    assert!(fs::read_dir(dir.path()).unwrap().next().is_none());
}

#[test]
fn without_a_switch_for_it_members_are_killed_one_by_one() {
    use std::{os::unix::process::ExitStatusExt, process::Command};
    let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
    let mut gone = Command::new("true").spawn().unwrap();
    gone.wait().unwrap();
    let (_dir, group) = lookalike(&[("cgroup.procs", &format!("{}\n{}\n", gone.id(), child.id()))]);
    group.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
}
