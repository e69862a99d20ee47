//! Kernelspecs: what is installed and how it is started.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

/// An installed kernel (`<dir>/kernel.json`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelSpec {
    /// Name of the folder, by which contexts ask for it.
    pub name: String,
    /// Name for people.
    pub display_name: String,
    /// Language as the kernel calls it; lower-case in practice.
    pub language: String,
    /// Program and arguments with the placeholders `{connection_file}` and `{resource_dir}`.
    pub argv: Vec<String>,
    /// Variables that the kernel wants.
    pub env: BTreeMap<String, String>,
    /// How a running cell is interrupted.
    pub interrupt_mode: InterruptMode,
    /// The folder of the spec.
    pub dir: PathBuf,
}

/// How a kernel wants to be interrupted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InterruptMode {
    /// SIGINT to the process group.
    #[default]
    Signal,
    /// `interrupt_request` on the control channel.
    Message,
}

#[derive(Deserialize)]
struct SpecFile {
    argv: Vec<String>,
    #[serde(default)]
    display_name: String,
    #[serde(default)]
    language: String,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    interrupt_mode: InterruptMode,
}

impl KernelSpec {
    /// Reads the spec in a folder.
    ///
    /// # Errors
    /// The file cannot be read, is not JSON as specs are, or names no program.
    pub fn read(dir: &Path) -> io::Result<Self> {
        let name = dir.file_name().and_then(OsStr::to_str).ok_or(io::ErrorKind::InvalidFilename)?;
        let path = dir.join("kernel.json");
        // Reading a pipe would wait for ever.
        if !fs::metadata(&path)?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "kernel.json is not a regular file"));
        }
        let file: SpecFile = serde_json::from_slice(&fs::read(path)?)?;
        if file.argv.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "argv is empty"));
        }
        Ok(Self {
            name: name.to_owned(),
            display_name: file.display_name,
            language: file.language,
            argv: file.argv,
            env: file.env,
            interrupt_mode: file.interrupt_mode,
            dir: dir.to_owned(),
        })
    }

    /// Whether cells of this kernel are Python for ipykernel's sake.
    pub(crate) fn is_python(&self) -> bool {
        self.language.eq_ignore_ascii_case("python")
    }

    /// The command line with its placeholders filled in.
    pub(crate) fn command_line(&self, connection_file: &Path) -> Vec<OsString> {
        let connection_file = connection_file.to_string_lossy();
        let resource_dir = self.dir.to_string_lossy();
        let fill = |argument: &String| {
            argument.replace("{connection_file}", &connection_file).replace("{resource_dir}", &resource_dir).into()
        };
        self.argv.iter().map(fill).collect()
    }
}

/// All kernels of some folders by name; the first folder wins, and what cannot be read is left out.
pub(crate) fn installed(kernel_dirs: &[PathBuf]) -> BTreeMap<String, KernelSpec> {
    let mut specs = BTreeMap::new();
    for entry in kernel_dirs.iter().filter_map(|dir| fs::read_dir(dir).ok()).flatten().flatten() {
        match KernelSpec::read(&entry.path()) {
            Ok(spec) => drop(specs.entry(spec.name.clone()).or_insert(spec)),
            Err(error) => tracing::debug!(path = %entry.path().display(), %error, "no kernelspec"),
        }
    }
    specs
}

/// Finds a kernel by name, in any case; `python` is also served by the spec `python3`, which is how a
/// Python's own kernel is called.
pub(crate) fn find(kernel_dirs: &[PathBuf], name: &str) -> Option<KernelSpec> {
    let mut specs = installed(kernel_dirs);
    let key = specs.keys().find(|key| key.eq_ignore_ascii_case(name)).cloned();
    match key {
        Some(key) => specs.remove(&key),
        None if name.eq_ignore_ascii_case("python") => specs.remove("python3"),
        None => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed expectation is the test's failure")]
mod tests {
    use super::*;

    fn install(dir: &Path, name: &str, json: &str) {
        fs::create_dir_all(dir.join(name)).expect("folder");
        fs::write(dir.join(name).join("kernel.json"), json).expect("kernel.json");
    }

    #[test]
    fn specs_are_read_and_the_first_folder_wins() {
        let (first, second) = (tempfile::tempdir().expect("dir"), tempfile::tempdir().expect("dir"));
        install(
            first.path(),
            "ir",
            r#"{"argv":["R","{connection_file}"],"display_name":"R","language":"R","interrupt_mode":"message",
               "env":{"A":"1"},"metadata":{"debugger":true}}"#,
        );
        install(second.path(), "ir", r#"{"argv":["other"]}"#);
        install(second.path(), "broken", r#"{"argv":[]}"#);
        install(second.path(), "odd", "not json");
        let dirs = [PathBuf::from("/nowhere"), first.path().to_owned(), second.path().to_owned()];
        let specs = installed(&dirs);
        assert_eq!(specs.len(), 1);
        let spec = specs.get("ir").expect("ir");
        assert_eq!((spec.interrupt_mode, spec.env.len()), (InterruptMode::Message, 1));
        assert_eq!(spec.command_line(Path::new("/run/c.json")), ["R", "/run/c.json"]);
    }

    #[test]
    fn a_pipe_in_place_of_a_spec_is_left_out() {
        let dir = tempfile::tempdir().expect("dir");
        install(dir.path(), "good", r#"{"argv":["x"]}"#);
        fs::create_dir(dir.path().join("pipe")).expect("folder");
        let made = std::process::Command::new("mkfifo").arg(dir.path().join("pipe/kernel.json")).status();
        assert!(made.expect("mkfifo").success());
        assert!(installed(&[dir.path().to_owned()]).keys().eq(["good"]));
    }

    #[test]
    fn python_falls_back_to_python3_and_names_ignore_case() {
        let dir = tempfile::tempdir().expect("dir");
        install(dir.path(), "python3", r#"{"argv":["python"],"language":"python"}"#);
        let dirs = [dir.path().to_owned()];
        assert_eq!(find(&dirs, "python").expect("python").name, "python3");
        assert_eq!(find(&dirs, "Python3").expect("python3").interrupt_mode, InterruptMode::Signal);
        assert_eq!(find(&dirs, "cobol"), None);
        assert_eq!(find(&dirs, "../python3"), None);
    }
}
