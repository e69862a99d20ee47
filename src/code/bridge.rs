//! The `kernel-bridge` crate behind the seam of this module.

use std::{collections::BTreeMap, sync::Arc};

use kernel_bridge::{Bridge, Context, ContextError, ContextRequest, ExecuteRequest, Spawner};

use super::{
    kernels::{BoxFuture, ChangeError, CreateError, Described, Events, Kernels, NewContext},
    service::Config,
};

/// A bridge for the kernels of `config`.
pub(super) fn open(config: Config, spawner: Arc<dyn Spawner>) -> Arc<dyn Kernels> {
    let Config { kernel_dirs, runtime_dir } = config;
    Arc::new(Bridge::new(kernel_bridge::Config { kernel_dirs, runtime_dir }, spawner))
}

impl Kernels for Bridge {
    fn has_kernel(&self, name: &str) -> bool {
        Bridge::has_kernel(self, name)
    }

    fn create(&self, new: NewContext) -> BoxFuture<'_, Result<Described, CreateError>> {
        Box::pin(async move {
            let NewContext { kernel, language, cwd } = new;
            let request = ContextRequest { kernel, language, cwd, env: vec![] };
            Ok(described(&Bridge::create(self, request).await?))
        })
    }

    fn get(&self, id: &str) -> Option<Described> {
        Bridge::get(self, id).as_ref().map(described)
    }

    fn list(&self) -> Vec<Described> {
        Bridge::list(self).iter().map(described).collect()
    }

    fn execute(&self, id: &str, code: String, env: BTreeMap<String, String>) -> Option<Events> {
        let execution = Bridge::get(self, id)?.execute(ExecuteRequest { code, env });
        Some(Box::pin(execution))
    }

    fn restart<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<(), ChangeError>> {
        Box::pin(async move { Ok(Bridge::restart(self, id).await?) })
    }

    fn delete<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<(), ChangeError>> {
        Box::pin(async move { Ok(Bridge::delete(self, id).await?) })
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(Bridge::shutdown(self))
    }
}

fn described(context: &Context) -> Described {
    Described {
        id: context.id().to_owned(),
        language: context.language().to_owned(),
        cwd: context.cwd().to_string_lossy().into_owned(),
    }
}

impl From<kernel_bridge::CreateError> for CreateError {
    fn from(error: kernel_bridge::CreateError) -> Self {
        match error {
            kernel_bridge::CreateError::UnknownKernel { name } => Self::UnknownKernel(name),
            error @ kernel_bridge::CreateError::BadCwd { .. } => Self::BadCwd(error.to_string()),
            error => Self::Failed(error.to_string()),
        }
    }
}

impl From<ContextError> for ChangeError {
    fn from(error: ContextError) -> Self {
        match error {
            ContextError::NotFound => Self::NotFound,
            error => Self::Failed(error.to_string()),
        }
    }
}
