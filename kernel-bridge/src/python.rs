//! What Python kernels get from us: start-up files, written once, and environment variables as data.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::{connection::make_passable, spawner::Spawner};

/// Everything below `python/` of this crate, by relative path.
const FILES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/python_files.rs"));

/// Code that sets the variables of one cell; runs silently in front of it, as a request of its own. The
/// argument is base64 of a JSON object, so that no value can ever be taken for code.
pub(crate) fn enter_code(env: &BTreeMap<String, String>) -> String {
    let json = serde_json::to_vec(env).unwrap_or_default();
    let data = base64_simd::STANDARD.encode_to_string(json);
    format!("__import__(\"_envd_kernel\").enter(\"{data}\")")
}

/// Code that restores what [`enter_code`] changed; runs silently behind the cell, however that ended.
pub(crate) const LEAVE_CODE: &str = "__import__(\"_envd_kernel\").leave()";

/// The written start-up files.
#[derive(Clone, Debug)]
pub(crate) struct Startup {
    folder: PathBuf,
}

impl Startup {
    /// Writes the files to `<runtime_dir>/python`. IPython writes into its own folder there (history, locks),
    /// which therefore belongs to the kernels' user; all the rest is only readable to it.
    pub(crate) fn write(runtime_dir: &Path, spawner: &dyn Spawner) -> io::Result<Self> {
        make_passable(runtime_dir)?;
        let folder = runtime_dir.join("python");
        // Always anew: in what an earlier agent gave away there may be links by now, and we may be root.
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => make_readable(&folder)?,
        }
        for (name, content) in FILES {
            let path = folder.join(name);
            let inner: Vec<_> = path.ancestors().skip(1).take_while(|inner| *inner != folder).collect();
            for folder in inner.into_iter().rev().filter(|inner| !inner.exists()) {
                make_readable(folder)?;
            }
            fs::write(&path, content)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
        }
        let startup = Self { folder };
        if let Some(ipython) = startup.existing("ipython") {
            give_all(&ipython, spawner)?;
        }
        Ok(startup)
    }

    /// Variables that make a kernel find the files.
    pub(crate) fn env(&self) -> Vec<(OsString, OsString)> {
        let variables = [("IPYTHONDIR", "ipython"), ("MATPLOTLIBRC", "matplotlibrc")];
        let known = variables.iter().filter_map(|(name, file)| Some(((*name).into(), self.existing(file)?.into())));
        known.collect()
    }

    fn existing(&self, name: &str) -> Option<PathBuf> {
        let path = self.folder.join(name);
        path.exists().then_some(path)
    }
}

fn make_readable(folder: &Path) -> io::Result<()> {
    fs::create_dir(folder)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))
}

/// Gives a folder with all that is in it; the contents first, so that nobody can swap them meanwhile.
fn give_all(path: &Path, spawner: &dyn Spawner) -> io::Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            give_all(&entry?.path(), spawner)?;
        }
    }
    spawner.give(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_never_appear_as_code() {
        let env = BTreeMap::from([("A".to_owned(), "\"); import os #\n".to_owned())]);
        // {"A":"\"); import os #\n"}
        let expected = "__import__(\"_envd_kernel\").enter(\"eyJBIjoiXCIpOyBpbXBvcnQgb3MgI1xuIn0=\")";
        assert_eq!(enter_code(&env), expected);
    }
}
