//! The OpenAPI document of the API.
//!
//! Handlers describe themselves, and the router collects the descriptions, so that the document cannot
//! name an endpoint that does not exist or miss one that does. What all endpoints have in common —
//! the token, the errors that are met before a handler is reached — is added here, once.

mod polish;

use axum::Extension;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderValue, header};
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, Ref,
    ResponseBuilder,
};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use super::problem::ProblemBody;

/// Which service it is about.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "described here, read by the router")]
pub(super) struct InService {
    /// Name of the service.
    #[param(pattern = r"^[A-Za-z0-9_-][A-Za-z0-9_.-]*$", example = "checkout")]
    service: String,
}

/// Which backend it is about.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "described here, read by the router")]
pub(super) struct OfBackend {
    /// Name of the service.
    #[param(pattern = r"^[A-Za-z0-9_-][A-Za-z0-9_.-]*$", example = "checkout")]
    service: String,
    /// Name of the backend.
    #[param(pattern = r"^[A-Za-z0-9_-][A-Za-z0-9_.-]*$", example = "green")]
    backend: String,
}

/// The finished document. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Document(Bytes);

impl Document {
    /// Finishes what the routes have described.
    pub(super) fn new(described: OpenApi) -> Self {
        // A document is made of plain data only.
        let mut document = serde_json::to_value(complete(described)).unwrap_or_default();
        polish::polish(&mut document);
        Self(format!("{document:#}\n").into())
    }
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", operation_id = "openapi", tag = "process",
    responses((status = 200, body = Object, description = "OpenAPI 3.1")))]
pub(super) async fn openapi(Extension(Document(text)): Extension<Document>) -> Response {
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json)], text).into_response()
}

/// What the document says about the API as a whole.
pub(super) fn outline() -> OpenApi {
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some(
            "A token: `switchback token new`, or `admin.token` in the state directory",
        ))
        .build();
    let components = ComponentsBuilder::new()
        .security_scheme(TOKEN, SecurityScheme::Http(bearer))
        .schema(ProblemBody::name(), ProblemBody::schema());
    let tag = |name: &str, description: &str| {
        TagBuilder::new()
            .name(name)
            .description(Some(description))
            .build()
    };
    OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("switchback")
                .version(env!("CARGO_PKG_VERSION"))
                .description(Some(DESCRIPTION))
                .license(Some(
                    LicenseBuilder::new()
                        .name("Apache-2.0")
                        .identifier(Some("Apache-2.0"))
                        .build(),
                ))
                .build(),
        )
        .components(Some(components.build()))
        .security(Some([SecurityRequirement::new(TOKEN, [""; 0])]))
        .tags(Some([
            tag("look", "What is"),
            tag("traffic", "Where traffic goes"),
            tag("flags", "What applications are told to do"),
            tag(
                "runbooks",
                "What is done when a release has gone wrong, and its rehearsal",
            ),
            tag("databases", "What versions can live with"),
            tag("rollouts", "Letting a new version in step by step"),
            tag("record", "What was, and what happens"),
            tag("hooks", "Who is told what happens"),
            tag("cluster", "Instances that share one state"),
            tag("process", "The process itself"),
        ]))
        .build()
}

/// Name of the security scheme.
const TOKEN: &str = "token";

const DESCRIPTION: &str = "The admin API of switchback. Errors are `application/problem+json` with a \
stable `code`. An answered write is in force on every worker.";

/// Errors that any endpoint with a token can answer.
const COMMON: [(&str, &str); 6] = [
    (
        "400",
        "The path, the query, a header or the body cannot be read",
    ),
    ("401", "No valid token"),
    (
        "403",
        "The token allows too little, or a web page of another site asks",
    ),
    ("408", "The body did not arrive in time"),
    ("421", "The API is not served under this name"),
    ("429", "Too many failed attempts"),
];

/// Errors that writes can answer, beside the common ones.
const OF_WRITES: [(&str, &str); 9] = [
    ("404", "No such service, backend or flag"),
    ("409", "As things are, it cannot be done; `code` says why"),
    ("412", "The state is not the one of If-Match"),
    ("413", "The body is too large"),
    ("415", "The body is not JSON"),
    ("422", "It makes no sense; nothing has changed"),
    ("503", "Too many changes wait, or the process is ending"),
    (
        "504",
        "In force, but a worker or another instance has not acknowledged it in time",
    ),
    ("507", "It could not be persisted; nothing has changed"),
];

fn complete(mut document: OpenApi) -> OpenApi {
    for (path, item) in &mut document.paths.paths {
        let in_path = path.contains('{');
        let PathItem {
            get,
            put,
            post,
            delete,
            ..
        } = item;
        for operation in get.iter_mut() {
            let open = operation.security.is_some();
            add(operation, COMMON[..1].iter());
            add(operation, COMMON.iter().filter(|_| !open));
            add(
                operation,
                [("404", "It does not exist")].iter().filter(|_| in_path),
            );
            add(
                operation,
                [("421", "The API is not served under this name")].iter(),
            );
        }
        for operation in [put, post, delete].into_iter().flatten() {
            add(operation, COMMON.iter().chain(&OF_WRITES));
        }
    }
    document
}

/// Adds errors to those an operation describes itself.
fn add<'a>(operation: &mut Operation, errors: impl Iterator<Item = &'a (&'a str, &'a str)>) {
    for (status, description) in errors {
        let problem =
            ContentBuilder::new().schema(Some(Ref::from_schema_name(ProblemBody::name())));
        let response = ResponseBuilder::new()
            .description(*description)
            .content("application/problem+json", problem.build());
        let responses = &mut operation.responses.responses;
        responses
            .entry((*status).into())
            .or_insert_with(|| response.build().into());
    }
}
