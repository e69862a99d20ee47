//! What the code port does: default contexts, contexts by id, executions, readiness.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use kernel_bridge::Spawner;
use tokio::sync::{OwnedMutexGuard, watch};
use tokio_util::sync::CancellationToken;

use super::{
    bridge,
    kernels::{ChangeError, CreateError, Described, Kernels, NewContext},
    stream::ExecutionBody,
    workdir,
};
use crate::system::{
    identity::Identity,
    settings::{Environment, Settings},
};

/// The language of requests that name none.
pub(super) const DEFAULT_LANGUAGE: &str = "python";

/// Another name for the default context of that language.
const DEFAULT_ID: &str = "default";

/// What all kernels together may take to go away.
const SHUTDOWN: Duration = Duration::from_millis(90);

/// Where kernels are found and kept.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directories that hold kernelspecs, in order of preference.
    pub kernel_dirs: Vec<PathBuf>,
    /// Private directory for sockets, connection files, logs and start-up modules.
    pub runtime_dir: PathBuf,
}

/// The code port; cheap to clone.
#[derive(Clone)]
pub struct CodeService {
    inner: Arc<Inner>,
}

struct Inner {
    kernels: Arc<dyn Kernels>,
    settings: Settings,
    identity: Identity,
    /// Language to the id of its default context.
    defaults: Mutex<HashMap<String, Slot>>,
    /// The environment that each context's kernel was started with.
    environments: Mutex<HashMap<String, Environment>>,
    readiness: watch::Sender<Readiness>,
    shutdown: CancellationToken,
}

/// Locked while the context is being created, so that concurrent requests get the same one.
type Slot = Arc<tokio::sync::Mutex<Option<String>>>;

/// How far the start has come.
#[derive(Clone, Debug, Default)]
pub(super) struct Readiness {
    /// All default contexts have been tried.
    pub(super) booted: bool,
    /// The last attempt to start the default Python context; `None` before the first has ended.
    pub(super) python: Option<Result<(), String>>,
}

impl CodeService {
    /// Starts the default contexts in the background, as far as kernels for them are installed. A kernel that fails
    /// is told in the log and tried again when it is needed.
    ///
    /// Must be called within a `tokio` runtime.
    pub fn start(config: Config, settings: Settings, identity: Identity, spawner: Arc<dyn Spawner>) -> Self {
        Self::over(bridge::open(config, spawner), settings, identity)
    }

    pub(super) fn over(kernels: Arc<dyn Kernels>, settings: Settings, identity: Identity) -> Self {
        let service = Self {
            inner: Arc::new(Inner {
                kernels,
                settings,
                identity,
                defaults: Mutex::default(),
                environments: Mutex::default(),
                readiness: watch::Sender::default(),
                shutdown: CancellationToken::new(),
            }),
        };
        tokio::spawn(service.clone().boot());
        service
    }

    /// Completes when the default Python context can execute.
    ///
    /// # Errors
    /// Why it cannot, in words for the person who starts the agent. The service works all the same, for other
    /// languages and as soon as a Python kernel can be started.
    pub async fn ready(&self) -> Result<(), String> {
        let mut readiness = self.inner.readiness.subscribe();
        let settled = readiness.wait_for(|now| now.python.is_some() || now.booted).await;
        let outcome = settled.map(|now| now.python.clone()).unwrap_or_default();
        outcome.unwrap_or_else(|| Err("no Python kernel is installed".to_owned()))
    }

    /// Ends running streams, then all kernels, within 100 ms.
    pub async fn shutdown(&self) {
        self.inner.shutdown.cancel();
        if tokio::time::timeout(SHUTDOWN, self.inner.kernels.shutdown()).await.is_err() {
            tracing::warn!("kernels did not end in time");
        }
    }

    pub(super) fn readiness(&self) -> Readiness {
        self.inner.readiness.borrow().clone()
    }

    /// All contexts in the order of their creation; the ones of the start come first.
    pub(super) async fn contexts(&self) -> Vec<Described> {
        self.booted().await;
        self.inner.kernels.list()
    }

    /// A new context, in the default directory unless another is given. A client that does not wait for it gets none.
    pub(super) async fn create(&self, language: &str, cwd: Option<&str>) -> Result<Described, CreateError> {
        // The default contexts keep their place at the head of the list.
        self.booted().await;
        let Some(raw) = cwd else { return self.open(language, None).await };
        let cwd = workdir::resolve(raw, &self.inner.settings, &self.inner.identity)
            .ok_or_else(|| CreateError::BadCwd("the path contains a NUL byte".to_owned()))?;
        self.open(language, Some(cwd)).await
    }

    /// The default context of a language in its normal form, made when it is missing.
    pub(super) async fn default_context(&self, language: &str) -> Result<Described, CreateError> {
        let known = self.lock_defaults().get(language).cloned();
        let slot = match known {
            Some(slot) => slot,
            // Names that no kernel has must not pile up in the table.
            None if !self.inner.kernels.has_kernel(&self.kernel_name(language)) => {
                return Err(CreateError::UnknownKernel(self.kernel_name(language)));
            }
            None => self.lock_defaults().entry(language.to_owned()).or_default().clone(),
        };
        let slot = slot.lock_owned().await;
        if let Some(context) = slot.as_deref().and_then(|id| self.inner.kernels.get(id)) {
            return Ok(context);
        }
        let (service, language) = (self.clone(), language.to_owned());
        detached(async move { service.fill(slot, &language).await })
            .await
            .unwrap_or_else(|why| Err(CreateError::Failed(why)))
    }

    /// The context with this id; [`DEFAULT_ID`] is made when it is missing.
    pub(super) async fn context(&self, id: &str) -> Result<Option<Described>, CreateError> {
        match self.inner.kernels.get(id) {
            None if id == DEFAULT_ID => self.default_context(DEFAULT_LANGUAGE).await.map(Some),
            found => Ok(found),
        }
    }

    /// Queues a cell; `None` when the context has gone in the meantime.
    pub(super) fn execute(&self, id: &str, code: String, env: BTreeMap<String, String>) -> Option<ExecutionBody> {
        let mut variables = self.news(id);
        variables.extend(env);
        let events = self.inner.kernels.execute(id, code, variables)?;
        Some(ExecutionBody::new(events, self.inner.shutdown.clone()))
    }

    pub(super) async fn restart(&self, id: &str) -> Result<(), ChangeError> {
        let (service, id) = (self.clone(), self.real_id(id).await);
        let restarted = detached(async move {
            let environment = service.inner.settings.environment();
            service.inner.kernels.restart(&id).await?;
            service.lock_environments().insert(id, environment);
            Ok(())
        });
        restarted.await.unwrap_or_else(|why| Err(ChangeError::Failed(why)))
    }

    pub(super) async fn delete(&self, id: &str) -> Result<(), ChangeError> {
        let (service, id) = (self.clone(), self.real_id(id).await);
        let deleted = detached(async move {
            service.inner.kernels.delete(&id).await?;
            service.lock_environments().remove(&id);
            Ok(())
        });
        deleted.await.unwrap_or_else(|why| Err(ChangeError::Failed(why)))
    }

    async fn boot(self) {
        for language in [DEFAULT_LANGUAGE, "javascript"] {
            if self.inner.kernels.has_kernel(language)
                && let Err(error) = self.default_context(language).await
            {
                tracing::warn!(language, %error, "the default context could not be started");
            }
        }
        self.inner.readiness.send_modify(|readiness| readiness.booted = true);
    }

    async fn booted(&self) {
        // The sender lives as long as the service, so this cannot fail.
        let _ = self.inner.readiness.subscribe().wait_for(|readiness| readiness.booted).await;
    }

    async fn fill(&self, mut slot: OwnedMutexGuard<Option<String>>, language: &str) -> Result<Described, CreateError> {
        let opened = self.open(language, None).await;
        if let Ok(context) = &opened {
            *slot = Some(context.id.clone());
        }
        if language == DEFAULT_LANGUAGE {
            let outcome = opened.as_ref().map(drop).map_err(ToString::to_string);
            self.inner.readiness.send_modify(|readiness| readiness.python = Some(outcome));
        }
        opened
    }

    async fn open(&self, language: &str, cwd: Option<PathBuf>) -> Result<Described, CreateError> {
        let cwd = match cwd {
            Some(cwd) => cwd,
            None => workdir::default(&self.inner.settings, &self.inner.identity).await,
        };
        // Taken before the kernel starts: what changes in between is then passed once too often, not once too little.
        let environment = self.inner.settings.environment();
        let new = NewContext { kernel: self.kernel_name(language), language: language.to_owned(), cwd };
        let context = self.inner.kernels.create(new).await?;
        self.lock_environments().insert(context.id.clone(), environment);
        Ok(context)
    }

    /// The kernelspec for a language. TypeScript is JavaScript's kernel with contexts of its own, and Debian calls
    /// the R kernel `ir`.
    fn kernel_name(&self, language: &str) -> String {
        let has = |name| self.inner.kernels.has_kernel(name);
        match language {
            "typescript" if !has(language) => "javascript",
            "r" if !has(language) && has("ir") => "ir",
            other => other,
        }
        .to_owned()
    }

    /// Variables that were set or changed since the context's kernel started. Kernels get the sandbox's environment
    /// when they start, and the platform often sends it only after that.
    fn news(&self, id: &str) -> BTreeMap<String, String> {
        let mut environment = self.inner.settings.environment();
        if let Some(known) = self.lock_environments().get(id) {
            environment.retain(|name, value| known.get(name) != Some(value));
        }
        environment
    }

    async fn real_id(&self, id: &str) -> String {
        if id != DEFAULT_ID {
            return id.to_owned();
        }
        let slot = self.lock_defaults().get(DEFAULT_LANGUAGE).cloned();
        match slot {
            Some(slot) => slot.lock().await.clone(),
            None => None,
        }
        .unwrap_or_else(|| id.to_owned())
    }

    // A panic while one of these locks is held leaves a complete map behind: every change is one call.
    fn lock_defaults(&self) -> std::sync::MutexGuard<'_, HashMap<String, Slot>> {
        self.inner.defaults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_environments(&self) -> std::sync::MutexGuard<'_, HashMap<String, Environment>> {
        self.inner.environments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs to its end even if the client goes away: others wait for the same default context, and a context must not be
/// left between two kernels.
async fn detached<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Result<T, String> {
    tokio::spawn(work).await.map_err(|error| format!("the task ended early: {error}"))
}
