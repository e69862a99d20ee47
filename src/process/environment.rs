//! The environment of a new process, and where its program may lie.

use std::{
    collections::BTreeMap,
    ffi::{CString, OsString},
    os::unix::ffi::OsStrExt,
    path::Path,
};

use crate::system::{identity::User, settings::Environment};

/// Where programs are looked for when the agent itself has no PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Name and value of each variable of one process.
pub(super) type Variables = BTreeMap<OsString, OsString>;

/// What every process sees before its own variables are added: PATH of the agent, who and where it is, and what the
/// platform has set. Nothing else of the agent's own environment leaks.
pub(super) fn base_variables(user: &User, cwd: &Path, global: Environment) -> Variables {
    let path = std::env::var_os("PATH").filter(|path| !path.is_empty()).unwrap_or_else(|| DEFAULT_PATH.into());
    let mut variables = Variables::from([
        ("PATH".into(), path),
        ("HOME".into(), user.home.clone().into_os_string()),
        ("USER".into(), OsString::from(&user.name)),
        ("LOGNAME".into(), OsString::from(&user.name)),
        // Shells that are started without it ask the kernel, other programs do not.
        ("PWD".into(), cwd.as_os_str().to_owned()),
    ]);
    variables.extend(global.into_iter().map(|(name, value)| (name.into(), value.into())));
    variables
}

/// The variables as `NAME=value`; `None` if one contains a NUL byte.
pub(super) fn to_strings(variables: &Variables) -> Option<Vec<CString>> {
    let string = |(name, value): (&OsString, &OsString)| {
        let mut bytes = Vec::with_capacity(name.len() + value.len() + 2);
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(b'=');
        bytes.extend_from_slice(value.as_bytes());
        CString::new(bytes).ok()
    };
    variables.iter().map(string).collect()
}

/// The paths to try for a program, as execvp(3): a name with a slash is a path, anything else is looked for along
/// the PATH of the new process, where an empty entry means its working directory. Empty for an empty name.
pub(super) fn candidates(program: &[u8], variables: &Variables) -> Option<Vec<CString>> {
    if program.is_empty() {
        return Some(Vec::new());
    }
    if program.contains(&b'/') {
        return Some(vec![CString::new(program).ok()?]);
    }
    let path = variables.get(&OsString::from("PATH")).map_or(DEFAULT_PATH.as_bytes(), |path| path.as_bytes());
    let join = |dir: &[u8]| {
        let mut candidate = dir.to_owned();
        if !candidate.is_empty() {
            candidate.push(b'/');
        }
        candidate.extend_from_slice(program);
        CString::new(candidate).ok()
    };
    path.split(|byte| *byte == b':').map(join).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]
mod tests {
    use super::*;

    fn of(program: &str, path: &str) -> Vec<String> {
        let variables = Variables::from([("PATH".into(), path.into())]);
        let candidates = candidates(program.as_bytes(), &variables).unwrap();
        candidates.into_iter().map(|candidate| candidate.into_string().unwrap()).collect()
    }

    #[test]
    fn programs_are_looked_for_along_the_path() {
        assert_eq!(of("ls", "/bin::/usr/bin"), ["/bin/ls", "ls", "/usr/bin/ls"]);
        assert_eq!(of("./ls", "/bin"), ["./ls"]);
        assert!(of("", "/bin").is_empty());
    }

    #[test]
    fn the_platform_wins_over_the_user_database_and_nul_is_refused() {
        let user = User {
            name: "user".into(),
            uid: 1000,
            gid: 1000,
            home: "/home/user".into(),
            shell: "/bin/sh".into(),
            groups: vec![],
        };
        let global = Environment::from([("HOME".to_owned(), "/srv".to_owned())]);
        let mut variables = base_variables(&user, Path::new("/tmp"), global);
        let strings = to_strings(&variables).unwrap();
        for expected in [c"HOME=/srv", c"USER=user", c"LOGNAME=user", c"PWD=/tmp"] {
            assert!(strings.iter().any(|string| string.as_c_str() == expected), "{expected:?}");
        }
        variables.insert("A".into(), "b\0c".into());
        assert!(to_strings(&variables).is_none());
    }
}
