//! Where cells run: the directory that a client asked for, or the default one.

use std::path::{Path, PathBuf};

use crate::system::{blocking, identity::Identity, settings::Settings};

/// The home of the default user; of the user that the agent runs as where the default user is unknown.
fn home(settings: &Settings, identity: &Identity) -> PathBuf {
    let user = identity.user(&settings.default_user()).unwrap_or_else(|_| identity.own());
    user.home.clone()
}

/// What a client wrote, made absolute: `~` and relative paths start at home. `None` for what no path can hold.
pub(super) fn resolve(raw: &str, settings: &Settings, identity: &Identity) -> Option<PathBuf> {
    if raw.contains('\0') {
        return None;
    }
    let path = match raw.strip_prefix('~') {
        Some("") => home(settings, identity),
        Some(rest) if rest.starts_with('/') => home(settings, identity).join(rest.trim_start_matches('/')),
        _ if raw.starts_with('/') => PathBuf::from(raw),
        _ => home(settings, identity).join(raw),
    };
    Some(path)
}

/// The platform's default directory, else home, else the root: the first one that is there, so that a cell can
/// always run.
pub(super) async fn default(settings: &Settings, identity: &Identity) -> PathBuf {
    let configured = settings.default_workdir().and_then(|dir| resolve(&dir, settings, identity));
    for candidate in [configured, Some(home(settings, identity))].into_iter().flatten() {
        if is_directory(&candidate).await {
            return candidate;
        }
    }
    PathBuf::from("/")
}

async fn is_directory(path: &Path) -> bool {
    let path = path.to_owned();
    path.is_absolute() && blocking::run(move || path.is_dir()).await.unwrap_or(false)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]
mod tests {
    use std::fs;

    use super::*;
    use crate::system::settings::Environment;

    #[tokio::test]
    async fn the_first_directory_that_exists_is_the_default() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("home");
        fs::write(dir.path().join("passwd"), format!("user:x:1000:1000::{}:/bin/sh\n", home.display())).unwrap();
        fs::write(dir.path().join("group"), "").unwrap();
        let identity = Identity::from_files(dir.path().join("passwd"), dir.path().join("group"), None);
        let settings = Settings::new("user".into(), None, Environment::new());

        assert_eq!(default(&settings, &identity).await, Path::new("/"));
        fs::create_dir(&home).unwrap();
        assert_eq!(default(&settings, &identity).await, home);
        settings.set_default_workdir("/no/such/place".into());
        assert_eq!(default(&settings, &identity).await, home);
        settings.set_default_workdir(dir.path().to_str().unwrap().into());
        assert_eq!(default(&settings, &identity).await, dir.path());

        for (raw, wanted) in
            [("~", home.clone()), ("~/a b", home.join("a b")), ("x", home.join("x")), ("/srv", "/srv".into())]
        {
            assert_eq!(resolve(raw, &settings, &identity), Some(wanted), "{raw}");
        }
        assert_eq!(resolve("/a\0b", &settings, &identity), None);
    }
}
