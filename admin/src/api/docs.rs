//! The page under `/docs/`: the OpenAPI document, to read and to try out.
//!
//! The page is Swagger UI as its crate brings it, below a small form of our own: the document needs a
//! token like everything else, so the page asks for one, keeps it in its memory, and fetches the document
//! with it. Nothing comes from elsewhere, and the policy that is sent along makes browsers see to that.

use std::sync::Arc;

use axum::response::{Redirect, Response};
use http::{HeaderValue, header};
use utoipa_swagger_ui::Config;

use super::asset;
use super::extract::Named;
use super::problem::Problem;

/// Where the page is.
pub(super) const PLACE: &str = "/docs/";

/// Scripts, styles and requests from here only, and no other page around this one. Swagger UI draws with
/// inline images.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Files of our own.
const OWN: [(&str, &str, &str); 3] = [
    (
        "",
        "text/html; charset=utf-8",
        include_str!("docs/index.html"),
    ),
    (
        "page.css",
        "text/css; charset=utf-8",
        include_str!("docs/page.css"),
    ),
    (
        "page.js",
        "text/javascript; charset=utf-8",
        include_str!("docs/page.js"),
    ),
];

/// Files of Swagger UI that the page uses, of those that its crate brings.
const FOREIGN: [(&str, &str); 3] = [
    ("swagger-ui-bundle.js", "text/javascript; charset=utf-8"),
    ("swagger-ui.css", "text/css; charset=utf-8"),
    ("favicon-32x32.png", "image/png"),
];

/// The page, where people look for it.
#[utoipa::path(get, path = "/docs", operation_id = "docs_moved", tag = "process", security(()),
    responses((status = 308, description = "It is at /docs/", headers(("Location" = String, description = "/docs/")))))]
pub(super) async fn moved() -> Redirect {
    Redirect::permanent(PLACE)
}

/// A page that shows this document and lets one try it.
#[utoipa::path(get, path = "/docs/", operation_id = "docs", tag = "process", security(()),
    responses((status = 200, body = String, content_type = "text/html; charset=utf-8")))]
pub(super) async fn page() -> Response {
    let [(_, kind, text), ..] = OWN;
    answer(kind, text.as_bytes(), false)
}

/// Files of that page.
#[utoipa::path(get, path = "/docs/{file}", operation_id = "docs_file", tag = "process", security(()),
    params(("file" = String, Path, description = "Its name", pattern = "^[a-z0-9-]+[.](js|css|png)$", example = "page.js")),
    responses((status = 200, description = "Its contents", content(
        (String = "text/javascript; charset=utf-8"), (String = "text/css; charset=utf-8"), (String = "image/png")))))]
pub(super) async fn file(Named(name): Named<String>) -> Result<Response, Problem> {
    if let Some((_, kind, text)) = OWN.iter().find(|(own, ..)| *own == name) {
        return Ok(answer(kind, text.as_bytes(), false));
    }
    let foreign = FOREIGN.iter().find(|(foreign, _)| *foreign == name);
    let found = foreign.and_then(|(name, kind)| {
        let file = utoipa_swagger_ui::serve(name, Arc::new(Config::default())).ok()??;
        Some(answer(kind, &file.bytes, file.gzpipped))
    });
    found.ok_or_else(|| Problem::not_found("there is no such file"))
}

fn answer(kind: &'static str, bytes: &[u8], is_gzip: bool) -> Response {
    let mut response = asset::answer(kind, bytes.to_vec(), POLICY);
    if is_gzip {
        let gzip = HeaderValue::from_static("gzip");
        response
            .headers_mut()
            .insert(header::CONTENT_ENCODING, gzip);
    }
    response
}
