//! Users and groups, read from `/etc/passwd` and `/etc/group` (passwd(5), group(5)).
//!
//! Pure file parsing, no NSS: the sandbox has no directory service, and a static binary could not load one.
//! Both files are parsed once per change (device, inode, size and mtime are compared), so that listing
//! thousands of entries costs two `stat` calls a lookup, not two file scans.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use thiserror::Error;

/// Why a user cannot be served.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// No such name in the passwd file.
    #[error("user: unknown user {name}")]
    UnknownUser {
        /// The name as asked for.
        name: String,
    },
    /// The agent has no privileges, so it serves nobody but the user it runs as.
    #[error(
        "cannot act as user '{name}': the agent runs without root privileges as '{own}' and can serve only that user; \
         start it as root to serve others"
    )]
    NotPrivileged {
        /// The name as asked for.
        name: String,
        /// The user that the agent runs as.
        own: String,
    },
    /// The passwd file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// One line of the passwd file, with the supplementary groups of the group file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Login name.
    pub name: String,
    /// Numeric user id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Home directory, verbatim.
    pub home: PathBuf,
    /// Login shell, verbatim; may be empty.
    pub shell: PathBuf,
    /// Ids of all groups that list the user, in file order, without the primary one.
    pub groups: Vec<u32>,
}

/// Looks up users and groups; cheap to clone.
#[derive(Clone, Debug)]
pub struct Identity {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    passwd: PathBuf,
    group: PathBuf,
    /// The user that an unprivileged agent is bound to.
    bound: Option<u32>,
    tables: Mutex<Arc<Tables>>,
}

#[derive(Debug, Default)]
struct Tables {
    stamp: [Option<Stamp>; 2],
    users: Vec<Arc<User>>,
    user_names: HashMap<u32, String>,
    group_names: HashMap<u32, String>,
}

/// What tells one version of a file from the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    mtime: (i64, i64),
}

impl Identity {
    /// Reads the system's own files. Without root privileges only the agent's own user is served.
    pub fn system() -> Self {
        let euid = rustix::process::geteuid();
        let bound = (!euid.is_root()).then(|| euid.as_raw());
        Self::from_files("/etc/passwd".into(), "/etc/group".into(), bound)
    }

    /// Reads the given files; `bound` is the one uid that may be served, if there is such a limit.
    pub fn from_files(passwd: PathBuf, group: PathBuf, bound: Option<u32>) -> Self {
        Self { inner: Arc::new(Inner { passwd, group, bound, tables: Mutex::default() }) }
    }

    /// Whether the agent is bound to the user it runs as, because it has no root privileges.
    pub fn is_bound(&self) -> bool {
        self.inner.bound.is_some()
    }

    /// The user with exactly this name.
    ///
    /// # Errors
    /// Unknown names (also the empty one and numbers), users that an unprivileged agent may not serve, and an
    /// unreadable passwd file.
    pub fn user(&self, name: &str) -> Result<Arc<User>, IdentityError> {
        let tables = self.tables()?;
        let user = tables
            .users
            .iter()
            .find(|user| user.name == name)
            .cloned()
            .ok_or_else(|| IdentityError::UnknownUser { name: name.to_owned() })?;
        match self.inner.bound {
            Some(own) if own != user.uid => Err(IdentityError::NotPrivileged {
                name: name.to_owned(),
                own: tables.user_names.get(&own).cloned().unwrap_or_else(|| own.to_string()),
            }),
            _ => Ok(user),
        }
    }

    /// The user that the agent itself runs as; made up from the ids where the passwd file does not list it.
    pub fn own(&self) -> Arc<User> {
        let uid = rustix::process::geteuid().as_raw();
        let listed = self.tables().ok().and_then(|tables| tables.users.iter().find(|user| user.uid == uid).cloned());
        listed.unwrap_or_else(|| {
            Arc::new(User {
                name: uid.to_string(),
                uid,
                gid: rustix::process::getegid().as_raw(),
                home: std::env::var_os("HOME").map_or_else(|| PathBuf::from("/"), PathBuf::from),
                shell: PathBuf::new(),
                groups: Vec::new(),
            })
        })
    }

    /// The name behind a uid, else the decimal number.
    pub fn user_name(&self, uid: u32) -> String {
        self.name_of(uid, |tables| &tables.user_names)
    }

    /// The name behind a gid, else the decimal number.
    pub fn group_name(&self, gid: u32) -> String {
        self.name_of(gid, |tables| &tables.group_names)
    }

    /// The id of the group with exactly this name; `None` also where the group file cannot be read.
    pub fn group_id(&self, name: &str) -> Option<u32> {
        let tables = self.tables().ok()?;
        tables.group_names.iter().find(|(_, known)| *known == name).map(|(gid, _)| *gid)
    }

    fn name_of(&self, id: u32, names: impl Fn(&Tables) -> &HashMap<u32, String>) -> String {
        self.tables().ok().and_then(|tables| names(&tables).get(&id).cloned()).unwrap_or_else(|| id.to_string())
    }

    /// The parsed tables, read again when either file has changed.
    fn tables(&self) -> Result<Arc<Tables>, IdentityError> {
        let stamp = [stamp(&self.inner.passwd), stamp(&self.inner.group)];
        let mut cached = self.inner.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if cached.stamp[0].is_none() || cached.stamp != stamp {
            *cached = Arc::new(self.read(stamp)?);
        }
        Ok(cached.clone())
    }

    fn read(&self, stamp: [Option<Stamp>; 2]) -> Result<Tables, IdentityError> {
        let passwd = fs::read(&self.inner.passwd)
            .map_err(|source| IdentityError::Unreadable { path: self.inner.passwd.clone(), source })?;
        // An image without a group file is served with primary groups only.
        let group = fs::read(&self.inner.group).unwrap_or_default();
        Ok(Tables::parse(&String::from_utf8_lossy(&passwd), &String::from_utf8_lossy(&group), stamp))
    }
}

impl Tables {
    fn parse(passwd: &str, group: &str, stamp: [Option<Stamp>; 2]) -> Self {
        let groups: Vec<(&str, u32, Vec<&str>)> = group
            .lines()
            .filter_map(|line| {
                let mut fields = line.split(':');
                let (name, _password, gid) = (fields.next()?, fields.next()?, fields.next()?.parse().ok()?);
                Some((name, gid, fields.next().unwrap_or("").split(',').collect()))
            })
            .collect();
        let users: Vec<Arc<User>> = passwd
            .lines()
            .filter_map(|line| {
                let fields: Vec<&str> = line.split(':').collect();
                let [name, _password, uid, gid, _gecos, home, ..] = fields[..] else { return None };
                let gid: u32 = gid.parse().ok()?;
                let supplementary = groups
                    .iter()
                    .filter(|(_, group, members)| *group != gid && members.contains(&name))
                    .map(|(_, group, _)| *group)
                    .collect();
                Some(Arc::new(User {
                    name: name.to_owned(),
                    uid: uid.parse().ok()?,
                    gid,
                    home: PathBuf::from(home),
                    shell: PathBuf::from(fields.get(6).copied().unwrap_or("")),
                    groups: supplementary,
                }))
            })
            .collect();
        // The first line that names an id wins, as in getpwuid(3).
        let mut user_names = HashMap::new();
        for user in &users {
            user_names.entry(user.uid).or_insert_with(|| user.name.clone());
        }
        let mut group_names = HashMap::new();
        for (name, gid, _) in &groups {
            group_names.entry(*gid).or_insert_with(|| (*name).to_owned());
        }
        Self { stamp, users, user_names, group_names }
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let meta = fs::metadata(path).ok()?;
    Some(Stamp { device: meta.dev(), inode: meta.ino(), size: meta.size(), mtime: (meta.mtime(), meta.mtime_nsec()) })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nuser:x:1000:1000::/home/user:/bin/sh\nbroken line\n\
                          alias:x:1000:1000::/home/alias:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nsudo:x:27:user,other\nuser:x:1000:user\nempty:x:5\n";

    fn fixture(bound: Option<u32>) -> (tempfile::TempDir, Identity) {
        let dir = tempfile::tempdir().unwrap();
        let (passwd, group) = (dir.path().join("passwd"), dir.path().join("group"));
        fs::write(&passwd, PASSWD).unwrap();
        fs::write(&group, GROUP).unwrap();
        (dir, Identity::from_files(passwd, group, bound))
    }

    #[test]
    fn users_have_their_supplementary_groups() {
        let (_dir, identity) = fixture(None);
        let user = identity.user("user").unwrap();
        assert_eq!((user.uid, user.gid, &user.groups), (1000, 1000, &vec![27]));
        assert_eq!((identity.group_id("sudo"), identity.group_id("27")), (Some(27), None));
        assert_eq!(user.home, Path::new("/home/user"));
    }

    #[test]
    fn names_are_exact_and_numbers_are_not_names() {
        let (_dir, identity) = fixture(None);
        for name in ["", "1000", "User", "user "] {
            assert!(matches!(identity.user(name), Err(IdentityError::UnknownUser { .. })), "{name:?}");
        }
    }

    #[test]
    fn ids_resolve_to_the_first_name_or_stay_numbers() {
        let (_dir, identity) = fixture(None);
        assert_eq!(identity.user_name(1000), "user");
        assert_eq!(identity.group_name(27), "sudo");
        assert_eq!(identity.user_name(4242), "4242");
    }

    #[test]
    fn a_changed_file_is_read_again() {
        let (dir, identity) = fixture(None);
        assert!(identity.user("late").is_err());
        fs::write(dir.path().join("passwd"), format!("{PASSWD}late:x:1001:1001::/home/late:/bin/sh\n")).unwrap();
        assert_eq!(identity.user("late").unwrap().uid, 1001);
    }

    #[test]
    fn an_unprivileged_agent_names_the_reason() {
        let (_dir, identity) = fixture(Some(1000));
        assert_eq!(identity.user("user").unwrap().uid, 1000);
        let refusal = identity.user("root").unwrap_err().to_string();
        assert!(refusal.contains("runs without root privileges as 'user'"), "{refusal}");
    }
}
