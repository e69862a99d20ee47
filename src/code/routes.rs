//! From a request to the service and back: the routes of the code port, and every status and text that they answer.

use http::{Method, Request, Response, StatusCode, request::Parts};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::{
    answer, cors,
    kernels::{ChangeError, CreateError, Described},
    ndjson,
    request::{Create, Execute},
    service::{CodeService, DEFAULT_LANGUAGE},
};
use crate::Body;

#[derive(Debug, PartialEq, Eq)]
enum Route<'a> {
    Health,
    Execute,
    Contexts,
    Context(&'a str),
    Restart(&'a str),
}

impl<'a> Route<'a> {
    fn find(path: &'a str) -> Option<Self> {
        let mut segments = path.strip_prefix('/')?.split('/');
        let route = match (segments.next()?, segments.next(), segments.next()) {
            ("health", None, None) => Self::Health,
            ("execute", None, None) => Self::Execute,
            ("contexts", None, None) => Self::Contexts,
            ("contexts", Some(id), None) if !id.is_empty() => Self::Context(id),
            ("contexts", Some(id), Some("restart")) if !id.is_empty() => Self::Restart(id),
            _ => return None,
        };
        segments.next().is_none().then_some(route)
    }

    fn methods(&self) -> &'static str {
        match self {
            Self::Health => "GET",
            Self::Contexts => "GET, POST",
            Self::Context(_) => "DELETE",
            Self::Execute | Self::Restart(_) => "POST",
        }
    }
}

impl CodeService {
    /// Answers one request of the code port, whatever its path and method.
    pub async fn call(&self, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        if let Some(response) = cors::preflight(&parts.method, &parts.headers) {
            return response;
        }
        let mut response = self.route(&parts, body).await;
        cors::grant(&parts.headers, response.headers_mut());
        response
    }

    async fn route(&self, parts: &Parts, body: Body) -> Response<Body> {
        let path = parts.uri.path();
        let Some(route) = Route::find(path) else {
            let target = path.trim_end_matches('/');
            if target.len() == path.len() || Route::find(target).is_none() {
                return answer::detail(StatusCode::NOT_FOUND, "Not Found");
            }
            let query = parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
            return answer::redirect(&format!("{target}{query}"));
        };
        let is = |method: Method| parts.method == method;
        match route {
            Route::Health if is(Method::GET) => self.health(),
            Route::Execute if is(Method::POST) => match Execute::read(&parts.headers, body).await {
                Ok(request) => self.run(request).await,
                Err(rejection) => rejection.into_response(),
            },
            Route::Contexts if is(Method::GET) => {
                let contexts: Vec<Value> = self.contexts().await.iter().map(answer::context).collect();
                answer::json(StatusCode::OK, &contexts)
            }
            Route::Contexts if is(Method::POST) => match Create::read(&parts.headers, body).await {
                Ok(request) => self.create_context(request).await,
                Err(rejection) => rejection.into_response(),
            },
            Route::Context(id) if is(Method::DELETE) => {
                let id = decoded(id);
                changed(&id, "remove", self.delete(&id).await)
            }
            Route::Restart(id) if is(Method::POST) => {
                let id = decoded(id);
                changed(&id, "restart", self.restart(&id).await)
            }
            other => answer::not_allowed(other.methods()),
        }
    }

    /// 200 when the default contexts are up. An image without any Python kernel is healthy too: other languages
    /// work, and Python would not come by waiting.
    fn health(&self) -> Response<Body> {
        let readiness = self.readiness();
        match readiness.python {
            Some(Err(why)) => unavailable(&format!("the default Python context could not be started: {why}")),
            _ if !readiness.booted => unavailable("the default contexts are being started"),
            _ => answer::json(StatusCode::OK, "OK"),
        }
    }

    async fn create_context(&self, request: Create) -> Response<Body> {
        let language = normalise(request.language.as_deref());
        match self.create(&language, request.cwd.as_deref()).await {
            Ok(context) => answer::json(StatusCode::OK, &answer::context(&context)),
            Err(error) => not_created(&error),
        }
    }

    async fn run(&self, request: Execute) -> Response<Body> {
        let found = match (&request.context_id, &request.language) {
            (Some(_), Some(_)) => {
                return answer::text(StatusCode::BAD_REQUEST, "Only one of context_id or language can be provided");
            }
            (Some(id), None) => self.context(id).await,
            (None, language) => self.default_context(&normalise(language.as_deref())).await.map(Some),
        };
        let context = match found {
            Ok(context) => context,
            Err(error) => return not_created(&error),
        };
        let id = context.map(|Described { id, .. }| id);
        let body = id.as_deref().and_then(|id| self.execute(id, request.code, request.env_vars));
        match body {
            // Lines without a content type are what clients know; headers leave at once, before the kernel's turn.
            Some(body) => Response::new(Body::new(body)),
            None => not_found(request.context_id.or(id).as_deref().unwrap_or_default()),
        }
    }
}

/// Lower case without blanks; the common abbreviations in full.
fn normalise(language: Option<&str>) -> String {
    let language = language.unwrap_or_default().trim().to_lowercase();
    match language.as_str() {
        "" => DEFAULT_LANGUAGE.to_owned(),
        "js" => "javascript".to_owned(),
        "ts" => "typescript".to_owned(),
        _ => language,
    }
}

fn decoded(segment: &str) -> String {
    percent_decode_str(segment).decode_utf8_lossy().into_owned()
}

fn unavailable(why: &str) -> Response<Body> {
    answer::text(StatusCode::SERVICE_UNAVAILABLE, why.to_owned())
}

fn not_found(id: &str) -> Response<Body> {
    answer::text(StatusCode::NOT_FOUND, format!("Context {id} not found"))
}

fn not_created(error: &CreateError) -> Response<Body> {
    let text = match error {
        CreateError::UnknownKernel(name) => {
            let message = format!(
                "The '{name}' kernel is not available. Please pick another suitable kernel instead, or install that kernel."
            );
            let cause = json!({ "message": message, "short_message": format!("{name} not found") });
            format!("Failed to create context: {}", ndjson::to_text(&cause))
        }
        CreateError::BadCwd(why) => format!("Failed to set working directory: {why}"),
        CreateError::Failed(why) => format!("Failed to create context: {why}"),
    };
    answer::text(StatusCode::INTERNAL_SERVER_ERROR, text)
}

fn changed(id: &str, verb: &str, outcome: Result<(), ChangeError>) -> Response<Body> {
    match outcome {
        Ok(()) => answer::json(StatusCode::OK, &Value::Null),
        Err(ChangeError::NotFound) => not_found(id),
        Err(ChangeError::Failed(why)) => {
            tracing::warn!(id, why, "cannot {verb} a context");
            answer::text(StatusCode::INTERNAL_SERVER_ERROR, format!("Failed to {verb} context {id}"))
        }
    }
}
